import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { OperatorError } from '../../../src/kit/operator-error.ts';
import { SqliteAliasStore } from '../../../src/sqlite/alias-store.ts';
import { type Migration, openDatabase } from '../../../src/sqlite/database.ts';
import { cacheMigrations } from '../../../src/sqlite/migrations/cache.ts';
import { gatewayMigrations } from '../../../src/sqlite/migrations/gateway.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'gateway-db-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const one: Migration = { name: 'one', sql: 'CREATE TABLE a (x INTEGER PRIMARY KEY) STRICT' };
const two: Migration = { name: 'two', sql: 'CREATE TABLE b (x INTEGER REFERENCES a (x)) STRICT' };
const full = { durability: 'full' } as const;

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
