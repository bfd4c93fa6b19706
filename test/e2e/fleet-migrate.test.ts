import { randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { SecretKeys } from '../../src/kit/sealed.ts';
import { SEALED_COLUMNS } from '../../src/postgres/sealed-columns.ts';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';
import { POSTGRES, PostgresServer } from '../support/postgres.ts';
import { describeWith } from '../support/programs.ts';

const PASSWORD = 'of-the-registry';
const TEAM_PASSWORD = 'of-the-team';
/** As SQLite's table has it: SHA-256, then the hash. */
const DIGEST = Buffer.concat([Buffer.of(1), Buffer.alloc(32, 7)]);

describeWith([...POSTGRES], 'from one machine to a fleet, and back', () => {
  let server: PostgresServer;
  let folder: string;
  let url: string;
  let secretFile: string;
  let gateway: TestGateway;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    server = await PostgresServer.start();
    url = await server.createDatabase();
    folder = mkdtempSync(join(tmpdir(), 'migrate-'));
    secretFile = join(folder, 'keys');
    gateway = await prepareGateway({ config: { listen: { workers: 1 } } });
    await gateway.start();
    await gateway.ok('alias', 'add', 'corp', 'registry.corp.example', '--no-check');
    await gateway.cli(
      [
        'registry',
        'set',
        'registry.corp.example',
        '--username',
        'bob',
        '--password-stdin',
        '--proxy',
        'http://me:geheim@127.0.0.1:9',
        '--no-check',
      ],
      { input: PASSWORD },
    );
    const team = ['--credential', 'team', '--for', 'team/*', '--username', 'robot', '--password-stdin', '--no-check'];
    const set = await gateway.cli(['registry', 'set', 'registry.corp.example', ...team], { input: TEAM_PASSWORD });
    expect(set.code, set.stderr).toBe(0);
    await gateway.ok('user', 'add', 'ci', '--expires', '90d');
    // It cannot be had, and is kept with the reason.
    const warmed = await gateway.cli(['warm', 'registry.corp.example/app:1', '--pin', '--schedule', '0 3 1 1 *']);
    expect(warmed.code).toBe(1);
  });
  afterAll(async () => {
    await gateway?.close();
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  /** All of the table and the users, as commands show it. */
  const state = async () => ({
    table: await gateway.ok('alias', 'export'),
    registries: JSON.parse(await gateway.ok('registry', 'ls', '--json')),
    users: JSON.parse(await gateway.ok('user', 'ls', '--json')),
    warm: JSON.parse(await gateway.ok('warm', 'ls', '--json')),
    seen: JSON.parse(await gateway.ok('tag', 'history', 'registry.corp.example/app:1', '--json')),
  });
  const sealed = async (column: string) => {
    const found = SEALED_COLUMNS.filter((one) => one.column === column);
    const values = found.map(({ table }) =>
      server.query(`SELECT ${column} FROM ${table} WHERE ${column} IS NOT NULL`, url),
    );
    return (await Promise.all(values)).flat();
  };

  it('moves nothing while a gateway runs on it, or without keys', async () => {
    expect((await gateway.cli(['migrate', '--to', url])).stderr).toContain('secretFile is not set');
    writeFileSync(secretFile, await gateway.ok('secret', 'new'), { mode: 0o600 });
    gateway.configure({ secretFile });
    const refused = await gateway.cli(['migrate', '--to', url, '--json']);
    expect([refused.code, JSON.parse(refused.stdout).error.code]).toEqual([1, 'DATA_DIR_IN_USE']);
  });

  it('moves all of it, and marks what is left', async () => {
    await gateway.stop();
    const local = new Database(join(gateway.dataDir, 'gateway.db'));
    local.prepare("INSERT INTO objects VALUES (?, 'blob', 42, 1764000000123, NULL)").run(DIGEST);
    local
      .prepare("INSERT INTO object_givers (digest, registry, repository, open) VALUES (?, 'quay.io', 'org/app', 1)")
      .run(DIGEST);
    local
      .prepare(
        "INSERT INTO object_givers (digest, registry, repository, open, credential) SELECT ?, host, 'team/app', 0, registry_credentials.id FROM registries JOIN registry_credentials ON registry = host",
      )
      .run(DIGEST);
    local.exec(SEEN);
    local.close();
    const before = await state();
    expect(before.seen.spans).toHaveLength(1);
    const [credential] = credentialsOf(gateway);
    const moved = JSON.parse(await gateway.ok('migrate', '--to', url, '--json'));
    expect(moved).toMatchObject({ from: gateway.dataDir, users: 1 });
    expect(JSON.stringify(moved)).not.toContain(server.password);
    // Once more is no error: a run that was killed at its end has moved all of it.
    await gateway.ok('migrate', '--to', url);
    const forgotten = await gateway.cli(['alias', 'ls', '--json']);
    expect([forgotten.code, JSON.parse(forgotten.stdout).error.code]).toEqual([1, 'STATE_MOVED']);

    gateway.configure({ database: url, secretFile });
    await gateway.start();
    expect(await state()).toEqual(before);
    expect(
      await server.query(
        'SELECT size, registry, repository, open, credential FROM objects JOIN object_givers USING (digest) ORDER BY registry',
        url,
      ),
    ).toEqual(['42|quay.io|org/app|t|1', `42|registry.corp.example|team/app|f|${credential?.id}`]);
    expect(await server.query('SELECT first, last FROM history_sights ORDER BY first', url)).toEqual([
      '100|200',
      '150|200',
    ]);
    expect(await server.query('SELECT count(*) FROM history_names', url)).toEqual(['1']);
    const passwords = await sealed('sealed_password');
    expect(passwords).toHaveLength(2);
    for (const password of passwords) {
      expect(password).toMatch(/^v1\./);
      expect(password).not.toMatch(/of-the-(registry|team)/);
    }
  });

  it('encrypts everything under a new key, once every gateway has it', async () => {
    const columns = await server.query(
      "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name LIKE 'sealed%'",
      url,
    );
    expect(columns.sort()).toEqual(SEALED_COLUMNS.map(({ table, column }) => `${table}.${column}`).sort());

    const before = await state();
    const old = await sealed('sealed_password');
    writeFileSync(secretFile, `${randomBytes(32).toString('base64')}\n${readFileSync(secretFile, 'utf8')}`);
    const offline = await prepareGateway({ config: { database: url, secretFile, listen: { workers: 1 } } });
    await gateway.stop();
    await gateway.start();
    const done = JSON.parse(await gateway.ok('secret', 'rotate', '--json'));
    expect(done.sealed).toBeGreaterThan(0);
    expect(JSON.parse(await gateway.ok('secret', 'rotate', '--json')).sealed).toBe(0);
    const [first] = readFileSync(secretFile, 'utf8')
      .split('\n')
      .map((line) => new SecretKeys(line || 'x'.repeat(40), 'keys').ids[0]);
    const passwords = await sealed('sealed_password');
    expect(passwords).toHaveLength(2);
    for (const password of passwords) {
      expect(old).not.toContain(password);
      expect(password).toContain(first);
    }
    await gateway.stop();
    const [key = ''] = readFileSync(secretFile, 'utf8').split('\n');
    writeFileSync(secretFile, key);
    await gateway.start();
    expect(await state()).toEqual(before);

    writeFileSync(secretFile, randomBytes(32).toString('base64'));
    offline.launch();
    await expect(offline.ready()).rejects.toThrow(/is encrypted under the key [0-9a-f]{16}, which is not in/);
    await offline.close();
    writeFileSync(secretFile, key);
  });

  it('takes nothing from a database that no gateway ever ran on, or that is not there, and leaves no data directory', async () => {
    const empty = await server.createDatabase();
    const away = new URL(empty);
    away.port = '1';
    const none = await prepareGateway({ config: { secretFile } });
    const takeFrom = async (database: string) => {
      none.configure({ database, secretFile });
      const { code, stdout } = await none.cli(['migrate', '--to', 'sqlite', '--json']);
      return [code, JSON.parse(stdout).error.code];
    };
    expect(await takeFrom(empty)).toEqual([1, 'MIGRATE_REFUSED']);
    expect(await takeFrom(away.href)).toEqual([1, 'DATABASE_UNREACHABLE']);
    expect(existsSync(join(none.dataDir, 'gateway.db'))).toBe(false);
    await none.close();
  });

  it('brings it back, from the database and from a backup of it', async () => {
    const before = await state();
    const archive = join(folder, 'gateway.tar');
    await gateway.ok('backup', archive);
    expect((await gateway.cli(['restore', archive])).stderr).toContain('is in a database that several share');
    expect((await gateway.cli(['migrate', '--to', 'sqlite'])).stderr).toContain('is in use by');
    await gateway.stop();
    leaveLog(join(gateway.dataDir, 'gateway.db'));
    const moved = JSON.parse(await gateway.ok('migrate', '--to', 'sqlite', '--json'));
    expect(moved).toMatchObject({ to: gateway.dataDir, aside: expect.stringContaining('gateway-moved-') });
    gateway.configure({});
    expect(await state()).toEqual(before);
    expect([moved.aside, join(gateway.dataDir, 'gateway.db')].map(countLeft)).toEqual([1, 0]);
    const local = new Database(join(gateway.dataDir, 'gateway.db'), { readonly: true });
    const given =
      'SELECT size, last_use, repository, credential FROM objects JOIN object_givers USING (digest) ORDER BY repository';
    const [credential] = credentialsOf(gateway);
    expect(credential).toMatchObject({
      name: 'team',
      username: 'robot',
      password: TEAM_PASSWORD,
      repositories: '["team/*"]',
    });
    expect(local.prepare(given).all()).toEqual([
      { size: 42, last_use: 1_764_000_000_123, repository: 'org/app', credential: 1 },
      { size: 42, last_use: 1_764_000_000_123, repository: 'team/app', credential: credential?.id },
    ]);
    expect(local.prepare('SELECT first, last FROM history_sights ORDER BY first').raw().all()).toEqual([
      [100, 200],
      [150, 200],
    ]);
    expect(local.prepare('SELECT count(*) FROM history_names').pluck().get()).toBe(1);
    local.close();
    await gateway.ok('restore', archive, '--force');
    expect(await state()).toEqual(before);
  });
});

/** A tag that was seen, its manifest, and a layer that it names. */
const SEEN = `
  INSERT INTO history_repositories VALUES (7, 'registry.corp.example', 'app');
  INSERT INTO history_tags VALUES (1, 7, '1', 'docker', x'01${'aa'.repeat(32)}', 100, 200);
  INSERT INTO history_sights VALUES (3, 7, x'01${'aa'.repeat(32)}', 100, 200), (4, 7, x'01${'bb'.repeat(32)}', 150, 200);
  INSERT INTO history_names VALUES (3, 4);
`;

/** Those of some repositories, as the data directory has them. */
function credentialsOf({ dataDir }: TestGateway): Record<string, unknown>[] {
  const database = new Database(join(dataDir, 'gateway.db'), { readonly: true });
  const rows = database.prepare('SELECT * FROM registry_credentials').all();
  database.close();
  return rows as Record<string, unknown>[];
}

/** As a process that was killed leaves a database: its last change is in the log beside the file alone. */
function leaveLog(file: string): void {
  const database = new Database(file);
  database.prepare("INSERT INTO counters VALUES ('left', 'client', 1)").run();
  const files = [file, `${file}-wal`];
  for (const one of files) copyFileSync(one, `${one}.killed`);
  database.close();
  for (const one of files) renameSync(`${one}.killed`, one);
}

function countLeft(file: string): number {
  const database = new Database(file, { readonly: true });
  const rows = database.prepare("SELECT 1 FROM counters WHERE period = 'left'").all();
  database.close();
  return rows.length;
}
