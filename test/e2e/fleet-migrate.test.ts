import { randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { SEALED_COLUMNS } from '../../src/postgres/sealed-columns.ts';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';
import { POSTGRES, PostgresServer } from '../support/postgres.ts';
import { describeWith } from '../support/programs.ts';

const PASSWORD = 'of-the-registry';
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
  });
  const sealed = async (column: string) => {
    const found = SEALED_COLUMNS.find((one) => one.column === column);
    return server.query(`SELECT ${column} FROM ${found?.table} WHERE ${column} IS NOT NULL`, url);
  };

  it('moves nothing while a gateway runs on it, or without keys', async () => {
    expect((await gateway.cli(['migrate', '--to', url])).stderr).toContain('secretFile is not set');
    writeFileSync(secretFile, await gateway.ok('secret', 'new'), { mode: 0o600 });
    gateway.configure({ secretFile });
    const refused = await gateway.cli(['migrate', '--to', url, '--json']);
    expect([refused.code, JSON.parse(refused.stdout).error.code]).toEqual([1, 'DATA_DIR_IN_USE']);
  });

  it('moves all of it, and marks what is left', async () => {
    const before = await state();
    await gateway.stop();
    const local = new Database(join(gateway.dataDir, 'gateway.db'));
    local.prepare("INSERT INTO objects VALUES (?, 'blob', 42, 1764000000123, NULL)").run(DIGEST);
    local.prepare("INSERT INTO object_givers (digest, registry, repository, open) VALUES (?, 'quay.io', 'org/app', 1)").run(DIGEST);
    local.close();
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
      await server.query('SELECT size, registry, repository, open FROM objects JOIN object_givers USING (digest)', url),
    ).toEqual(['42|quay.io|org/app|t']);
    const [password = ''] = await sealed('sealed_password');
    expect(password).toMatch(/^v1\./);
    expect(password).not.toContain(PASSWORD);
  });

  it('encrypts everything under a new key, once every gateway has it', async () => {
    const columns = await server.query(
      "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name LIKE 'sealed%'",
      url,
    );
    expect(columns.sort()).toEqual(SEALED_COLUMNS.map(({ table, column }) => `${table}.${column}`).sort());

    const before = await state();
    const [old = ''] = await sealed('sealed_password');
    writeFileSync(secretFile, `${randomBytes(32).toString('base64')}\n${readFileSync(secretFile, 'utf8')}`);
    const offline = await prepareGateway({ config: { database: url, secretFile, listen: { workers: 1 } } });
    await gateway.stop();
    await gateway.start();
    const done = JSON.parse(await gateway.ok('secret', 'rotate', '--json'));
    expect(done.sealed).toBeGreaterThan(0);
    expect(JSON.parse(await gateway.ok('secret', 'rotate', '--json')).sealed).toBe(0);
    expect((await sealed('sealed_password'))[0]).not.toBe(old);
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
    expect(local.prepare('SELECT size, last_use FROM objects JOIN object_givers USING (digest)').all()).toEqual([
      { size: 42, last_use: 1_764_000_000_123 },
    ]);
    local.close();
    await gateway.ok('restore', archive, '--force');
    expect(await state()).toEqual(before);
  });
});

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
