import { chmodSync, chownSync, copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import { freePorts, type Program, runOk, type Surroundings, startProgram } from './processes.ts';
import { programPath } from './programs.ts';

/** What a group of tests that starts a `PostgresServer` needs: for `describeWith`. */
export const POSTGRES = ['postgres', 'initdb', 'psql', 'setpriv'] as const;

export interface PostgresOptions {
  /** Settings of postgresql.conf beside those that a test always has: `{ max_connections: '20' }`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** PEM files of a certificate and its key: it then takes TLS (`sslmode=require` …) as well as plain connections. */
  readonly tls?: { readonly certificate: string; readonly key: string };
  /** Where it listens; 127.0.0.1. For a server within a namespace, an address of that one. */
  readonly host?: string;
  readonly within?: Surroundings;
}

/** What the superuser of a test's server has as name and password. */
const USER = 'gateway';
const PASSWORD = 'of-the-test';

/**
 * A real PostgreSQL (Debian's) on a free port, its files in a directory of its own, run by a user who is not root, since it refuses that one.
 * It asks for passwords (SCRAM), and does not wait for the disk: a test that needs what is left after a power cut says so by `settings`.
 */
export class PostgresServer {
  readonly host: string;
  readonly port: number;
  readonly user = USER;
  readonly password = PASSWORD;
  readonly #directory: string;
  readonly #within: Surroundings | undefined;
  #program: Program | null = null;
  #databases = 0;

  private constructor(directory: string, host: string, port: number, within: Surroundings | undefined) {
    this.#directory = directory;
    this.host = host;
    this.port = port;
    this.#within = within;
  }

  static async start(options: PostgresOptions = {}): Promise<PostgresServer> {
    const directory = mkdtempSync(join(tmpdir(), 'postgres-'));
    const [port = 0] = await freePorts(1);
    const server = new PostgresServer(directory, options.host ?? '127.0.0.1', port, options.within);
    try {
      await server.#make(options);
      await server.begin();
      return server;
    } catch (error) {
      await server.stop();
      throw error;
    }
  }

  /** The URL of a database of this server, with user and password. */
  url(database = 'postgres'): string {
    return `postgres://${USER}:${PASSWORD}@${this.host}:${this.port}/${database}`;
  }

  /** Makes a new and empty database. @returns its URL */
  async createDatabase(): Promise<string> {
    const name = `test_${++this.#databases}`;
    await this.query(`CREATE DATABASE ${name}`);
    return this.url(name);
  }

  /** Takes every row out of a database of the gateway, as if it were new: much quicker than another one. */
  async empty(url: string): Promise<void> {
    await this.query(
      `DO $$ DECLARE one text; BEGIN
         FOR one IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('gateway_schema', 'fleet', 'revisions', 'alias_table')
         LOOP EXECUTE 'TRUNCATE ' || quote_ident(one) || ' CASCADE'; END LOOP;
         IF to_regclass('alias_table') IS NOT NULL THEN UPDATE alias_table SET version = 0; END IF;
       END $$`,
      url,
    );
  }

  /** Runs statements as the superuser, each in a transaction of its own. @returns the rows as text, fields separated by `|` */
  async query(sql: string, url = this.url()): Promise<string[]> {
    const { stdout } = await runOk({
      command: programPath('psql'),
      args: ['--no-psqlrc', '--quiet', '--tuples-only', '--no-align', '--set=ON_ERROR_STOP=1', url],
      input: sql,
      within: this.#within,
    });
    return stdout.split('\n').filter((line) => line !== '');
  }

  /** Starts it, as after `halt`. Resolves once it answers. */
  async begin(): Promise<void> {
    const program = startProgram({
      ...unprivileged(programPath('postgres'), ['-D', join(this.#directory, 'data')]),
      cwd: this.#directory,
      within: this.#within,
    });
    this.#program = program;
    await program.waitFor(/database system is ready to accept connections/);
    await eventually('the database to answer', () => this.query('SELECT 1'));
  }

  /** Ends it in the given way, its files are left: `fast` breaks connections off in words, `immediate` is as kill -9. */
  async halt(how: 'fast' | 'immediate' = 'fast'): Promise<void> {
    this.#program?.signal(how === 'fast' ? 'SIGINT' : 'SIGQUIT');
    await this.#program?.exited;
    this.#program = null;
  }

  /** All it printed since it was started last. */
  log(): string {
    return this.#program?.output() ?? '';
  }

  /** Ends it and removes its files. */
  async stop(): Promise<void> {
    await this.halt('immediate');
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #make({ settings = {}, tls }: PostgresOptions): Promise<void> {
    giveAway(this.#directory);
    const data = join(this.#directory, 'data');
    const passwordFile = join(this.#directory, 'password');
    writeFileSync(passwordFile, `${PASSWORD}\n`);
    giveAway(passwordFile);
    await runOk({
      ...unprivileged(programPath('initdb'), [
        ...['--pgdata', data, '--username', USER, '--pwfile', passwordFile],
        ...['--auth', 'scram-sha-256', '--encoding', 'UTF8', '--locale', 'C', '--no-sync', '--no-instructions'],
      ]),
      cwd: this.#directory,
    });
    // initdb lets in who comes from this machine's loopback; by another address come other machines.
    if (this.host !== '127.0.0.1')
      writeFileSync(join(data, 'pg_hba.conf'), 'host all all all scram-sha-256\n', { flag: 'a' });
    const all: Record<string, string> = {
      listen_addresses: this.host,
      port: String(this.port),
      unix_socket_directories: this.#directory,
      fsync: 'off',
      ...settings,
    };
    if (tls !== undefined) {
      const [certificate, key] = [join(data, 'server.crt'), join(data, 'server.key')];
      copyFileSync(tls.certificate, certificate);
      copyFileSync(tls.key, key);
      for (const file of [certificate, key]) giveAway(file);
      chmodSync(key, 0o600);
      Object.assign(all, { ssl: 'on' });
    }
    const lines = Object.entries(all).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`);
    writeFileSync(join(data, 'postgresql.conf'), lines.join(''), { flag: 'a' });
  }
}

/** A real PgBouncer (Debian's) in front of a server. */
export interface PgBouncer {
  /** The same database through it. @param url one of the server's */
  through(url: string): string;
  log(): string;
  stop(): Promise<void>;
}

/** What a group of tests that starts one needs. */
export const PGBOUNCER = [...POSTGRES, 'pgbouncer'] as const;

/** In transaction mode: statements of one client meet whatever connection is free, so that nothing of a session holds. */
export async function startPgBouncer(server: PostgresServer, poolSize = 5): Promise<PgBouncer> {
  const directory = mkdtempSync(join(tmpdir(), 'pgbouncer-'));
  giveAway(directory);
  const [port = 0] = await freePorts(1);
  const users = join(directory, 'users.txt');
  writeFileSync(users, `"${server.user}" "${server.password}"\n`);
  const configuration = join(directory, 'pgbouncer.ini');
  writeFileSync(
    configuration,
    `[databases]
* = host=${server.host} port=${server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${users}
pool_mode = transaction
default_pool_size = ${poolSize}
server_login_retry = 1
`,
  );
  for (const file of [users, configuration]) giveAway(file);
  const program = startProgram(unprivileged(programPath('pgbouncer'), [configuration]));
  await program.waitFor(/process up/);
  return {
    through(url) {
      const through = new URL(url);
      through.host = `127.0.0.1:${port}`;
      return through.href;
    },
    log: () => program.output(),
    async stop() {
      await program.end();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** The user that Debian's package makes; a test that is not run by root starts the server as its own user. */
const OWNER = 'postgres';

function unprivileged(command: string, args: readonly string[]): { command: string; args: string[] } {
  if (process.getuid?.() !== 0) return { command, args: [...args] };
  const as = [`--reuid=${OWNER}`, `--regid=${OWNER}`, '--clear-groups', '--'];
  return { command: programPath('setpriv'), args: [...as, command, ...args] };
}

/** Gives a file or folder to the user that the server runs as. */
function giveAway(path: string): void {
  if (process.getuid?.() !== 0) return;
  const [, , uid, gid] =
    readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .map((line) => line.split(':'))
      .find(([name]) => name === OWNER) ?? [];
  chownSync(path, Number(uid), Number(gid));
}
