import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Sqlite from 'better-sqlite3';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { OperatorError } from '../../../src/kit/operator-error.ts';
import { SqliteAliasStore } from '../../../src/sqlite/alias-store.ts';
import { checkpoint, closeDatabase, durable, type Migration, openDatabase } from '../../../src/sqlite/database.ts';
import { cacheMigrations } from '../../../src/sqlite/migrations/cache.ts';
import { gatewayMigrations } from '../../../src/sqlite/migrations/gateway.ts';
import { SqliteUserStore } from '../../../src/sqlite/user-store.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'gateway-db-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const one: Migration = { name: 'one', sql: 'CREATE TABLE a (x INTEGER PRIMARY KEY) STRICT' };
const two: Migration = { name: 'two', sql: 'CREATE TABLE b (x INTEGER REFERENCES a (x)) STRICT' };
const full = { durability: 'full' } as const;
const alone = { durability: 'full', exclusive: true } as const;

function failure(run: () => unknown): OperatorError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(OperatorError);
    return error as OperatorError;
  }
  throw new Error('nothing was thrown');
}

test('makes the directory and the files private, in WAL mode', () => {
  const path = join(dir, 'data', 'x.db');
  const database = openDatabase(path, [one], full);
  database.exec('INSERT INTO a VALUES (1)');
  expect(statSync(join(dir, 'data')).mode & 0o777).toBe(0o700);
  for (const file of [path, `${path}-wal`, `${path}-shm`]) expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(database.pragma('journal_mode', { simple: true })).toBe('wal');
  expect(database.pragma('synchronous', { simple: true })).toBe(2);
  database.close();
  const relaxed = openDatabase(path, [one], { durability: 'normal' });
  expect(relaxed.pragma('synchronous', { simple: true })).toBe(1);
  relaxed.close();
});

test('closes a file that others could read', () => {
  const path = join(dir, 'x.db');
  writeFileSync(path, '', { mode: 0o644 });
  openDatabase(path, [one], full).close();
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test('runs only the steps that are missing, and enforces foreign keys afterwards', () => {
  const path = join(dir, 'x.db');
  openDatabase(path, [one], full).close();
  const database = openDatabase(path, [one, two], full);
  expect(database.pragma('user_version', { simple: true })).toBe(2);
  expect(() => database.exec('INSERT INTO b VALUES (7)')).toThrow(/FOREIGN KEY/);
  database.close();
});

test('a step that fails leaves nothing of itself', () => {
  const path = join(dir, 'x.db');
  const bad: Migration = { name: 'bad', sql: 'CREATE TABLE c (x) STRICT; INSERT INTO nowhere VALUES (1)' };
  expect(failure(() => openDatabase(path, [one, bad], full)).code).toBe('DATABASE_UNUSABLE');
  const database = openDatabase(path, [one, two], full);
  expect(database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1").pluck().all()).toEqual([
    'a',
    'b',
  ]);
  database.close();
});

test('a step that leaves rows pointing nowhere is refused', () => {
  const path = join(dir, 'x.db');
  const bad: Migration = { name: 'orphans', sql: 'INSERT INTO b VALUES (9)' };
  expect(failure(() => openDatabase(path, [one, two, bad], full)).message).toContain('step 3 (orphans)');
});

test('a newer schema is refused and stays as it is', () => {
  const path = join(dir, 'x.db');
  openDatabase(path, [one, two], full).close();
  const error = failure(() => openDatabase(path, [one], full));
  expect(error.code).toBe('DATABASE_NEWER');
  expect(error.message).toContain('schema 2, this one knows up to 1');
});

test('while it is open no other program reads or writes it, so nobody is waited for', () => {
  const path = join(dir, 'x.db');
  const database = openDatabase(path, [one], alone);
  const other = new Sqlite(path, { timeout: 0 });
  expect(() => other.exec('BEGIN IMMEDIATE')).toThrow(/locked/);
  expect(() => other.prepare('SELECT * FROM a').all()).toThrow(/locked/);
  other.close();
  database.exec('INSERT INTO a VALUES (1)');
  closeDatabase(database);
});

test('a database that another program has locked is waited for shortly, and then that program is named', async () => {
  const path = join(dir, 'x.db');
  closeDatabase(openDatabase(path, [one], alone));
  const program = `
    import Database from 'better-sqlite3';
    const database = new Database(${JSON.stringify(path)});
    database.exec('BEGIN IMMEDIATE');
    console.log('locked');
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await once(child.stdout, 'data');
    const error = failure(() => openDatabase(path, [one], alone));
    expect(error.code).toBe('DATABASE_LOCKED');
    expect(error.message).toContain(path);
    if (process.platform === 'linux') expect(error.message).toContain(`process ${child.pid}`);
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  closeDatabase(openDatabase(path, [one], alone));
});

test.each(['full', 'normal'] as const)(
  'changes go on while a checkpoint syncs, are seen at once, and stay (%s)',
  async (durability) => {
    const path = join(dir, 'x.db');
    const database = openDatabase(path, [one], { durability, exclusive: true });
    const count = () => (database.prepare('SELECT count(*) AS n FROM a').get() as { n: number }).n;
    const add = database.prepare('INSERT INTO a VALUES (?)');
    for (let round = 0; round < 20; round++) {
      add.run(3 * round);
      const done = checkpoint(database);
      add.run(3 * round + 1);
      await new Promise((resolve) => setImmediate(resolve));
      add.run(3 * round + 2);
      expect(count()).toBe(3 * round + 3);
      await Promise.all([done, durable(database)]);
      expect(database.inTransaction).toBe(false);
    }
    await checkpoint(database);
    closeDatabase(database);
    const again = openDatabase(path, [one], alone);
    expect((again.prepare('SELECT count(*) AS n FROM a').get() as { n: number }).n).toBe(60);
    expect(again.pragma('integrity_check', { simple: true })).toBe('ok');
    closeDatabase(again);
  },
);

test('closing in the middle of a checkpoint loses nothing', async () => {
  const path = join(dir, 'x.db');
  const database = openDatabase(path, [one], alone);
  database.exec('INSERT INTO a VALUES (1)');
  const done = checkpoint(database);
  await null;
  database.exec('INSERT INTO a VALUES (2)');
  closeDatabase(database);
  await done;
  const again = openDatabase(path, [one], alone);
  expect(again.prepare('SELECT x FROM a ORDER BY x').pluck().all()).toEqual([1, 2]);
  closeDatabase(again);
});

test('a log that is overwritten is void before, in whatever order a disk got its pages before a power cut', async () => {
  const path = join(dir, 'x.db');
  const database = openDatabase(path, [{ name: 'two', sql: 'CREATE TABLE b (x INTEGER PRIMARY KEY, y TEXT)' }], alone);
  const put = database.prepare('INSERT INTO b VALUES (?, ?) ON CONFLICT DO UPDATE SET y = excluded.y');
  await checkpoint(database);
  // Its first transactions are short, and outdated by the later ones.
  for (let x = 1; x < 40; x++) put.run(x, 'old'.repeat(1_000));
  database.exec('DELETE FROM b WHERE x < 20');
  put.run(1, 'newer');
  await checkpoint(database);
  const [before, kept] = [readFileSync(`${path}-wal`), readFileSync(path)];
  database.transaction(() => {
    for (let x = 100; x < 110; x++) put.run(x, 'new'.repeat(1_000));
  })();
  const after = readFileSync(`${path}-wal`);
  const PAGE = 4_096;
  for (let got = 0; got <= 14; got++) {
    const cut = join(dir, `cut-${got}.db`);
    writeFileSync(cut, kept);
    writeFileSync(
      `${cut}-wal`,
      Buffer.concat([before.subarray(0, got * PAGE), after.subarray(got * PAGE)]).subarray(0, after.length),
    );
    const again = new Sqlite(cut);
    expect(again.pragma('integrity_check', { simple: true }), `${got} pages`).toBe('ok');
    expect(again.prepare('SELECT y FROM b WHERE x = 1').pluck().get()).toBe('newer');
    expect([21, 31]).toContain(again.prepare('SELECT count(*) FROM b').pluck().get());
    again.close();
  }
  closeDatabase(database);
});

const hasStrace = process.platform === 'linux' && spawnSync('strace', ['true']).status === 0;

test.skipIf(!hasStrace)('the event loop makes no sync: neither for commits nor for checkpoints (needs strace)', () => {
  const path = join(dir, 'x.db');
  const source = (file: string) =>
    JSON.stringify(fileURLToPath(new URL(`../../../src/sqlite/${file}`, import.meta.url)));
  const program = `
    import { accessSync } from 'node:fs';
    import { checkpoint, closeDatabase, durable, openDatabase } from ${source('database.ts')};
    const steps = [{ name: 'one', sql: 'CREATE TABLE a (x INTEGER PRIMARY KEY, y BLOB) STRICT' }];
    const mark = (name) => { try { accessSync('/mark-' + name); } catch {} };
    for (const durability of ['full', 'normal']) {
      const database = openDatabase(${JSON.stringify(path)} + durability, steps, { durability, exclusive: true });
      const add = database.prepare('INSERT INTO a (y) VALUES (?)');
      mark('begin');
      for (let round = 0; round < 5; round++) {
        for (let row = 0; row < 50; row++) add.run(Buffer.alloc(4000));
        await durable(database);
        await checkpoint(database);
      }
      mark('end');
      closeDatabase(database);
    }`;
  const traced = join(dir, 'trace');
  const args = ['-f', '-e', 'trace=fsync,fdatasync,access,faccessat,faccessat2', '-o', traced];
  const run = spawnSync('strace', [...args, process.execPath, '--input-type=module', '-e', program], {
    encoding: 'utf8',
  });
  expect(run.status, run.stderr).toBe(0);
  let loop = '';
  let serving = false;
  const syncs = { loop: 0, elsewhere: 0 };
  for (const line of readFileSync(traced, 'utf8').split('\n')) {
    const [thread = ''] = line.split(' ');
    if (line.includes('/mark-')) {
      loop = thread;
      serving = line.includes('begin');
    } else if (serving && /f(data)?sync\(/.test(line)) syncs[thread === loop ? 'loop' : 'elsewhere']++;
  }
  expect(syncs.elsewhere).toBeGreaterThan(10);
  expect(syncs.loop).toBe(0);
});

test('a damaged file is named', () => {
  const path = join(dir, 'x.db');
  writeFileSync(path, 'this is no database, and it is long enough to be read as one'.repeat(40));
  const error = failure(() => openDatabase(path, [one], full));
  expect(error.code).toBe('DATABASE_DAMAGED');
  expect(error.message).toContain(path);
});

test.each([
  ['gateway.db', gatewayMigrations],
  ['cache.db', cacheMigrations],
])('the schema of %s applies from nothing, and twice', (name, migrations) => {
  openDatabase(join(dir, name), migrations, full).close();
  const database = openDatabase(join(dir, name), migrations, full);
  expect(database.pragma('user_version', { simple: true })).toBe(migrations.length);
  database.close();
});

test('a table that was filled before there were versions keeps its rows, and takes changes on version 1', async () => {
  const path = join(dir, 'gateway.db');
  const old = openDatabase(path, gatewayMigrations.slice(0, 3), full);
  old.exec(`
    INSERT INTO registries (host, endpoints) VALUES ('quay.io', '["https://quay.io"]');
    INSERT INTO aliases (name, registry) VALUES ('quay', 'quay.io');
    INSERT INTO table_state (filled) VALUES (1)`);
  old.close();
  const database = openDatabase(path, gatewayMigrations, full);
  const store = new SqliteAliasStore(database);
  expect(await store.load()).toMatchObject({ version: 1, isNew: false, aliases: [{ name: 'quay' }] });
  expect(await store.apply({ removeAliases: ['quay'] }, 1)).toBe(2);
  database.close();
});

test.each([
  [1, true],
  [0, false],
])('a database of before that held %i users: whether there ever was one is %s', async (users, everAdded) => {
  const file = join(dir, 'gateway.db');
  const before = openDatabase(file, gatewayMigrations.slice(0, 8), full);
  for (let id = 0; id < users; id++) {
    before.prepare("INSERT INTO users VALUES (?, zeroblob(32), '2026-11-22T05:00:00.000Z')").run(`u${id}`);
  }
  before.close();
  const database = openDatabase(file, gatewayMigrations, full);
  const kept = await new SqliteUserStore(database).load();
  expect(kept.everAdded).toBe(everAdded);
  expect(kept.users.map(({ issuedAt }) => issuedAt)).toEqual(Array(users).fill('2026-11-22T05:00:00.000Z'));
  database.close();
});
