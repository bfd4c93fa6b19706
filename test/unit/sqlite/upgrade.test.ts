import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { OperatorError } from '../../../src/kit/operator-error.ts';
import { closeDatabase, openDatabase } from '../../../src/sqlite/database.ts';
import { cacheMigrations } from '../../../src/sqlite/migrations/cache.ts';
import { gatewayMigrations } from '../../../src/sqlite/migrations/gateway.ts';
import { openCacheIndex } from '../../../src/sqlite/open-cache-index.ts';
import { type Logger, silentLog } from '../../../src/telemetry/log.ts';

const canMount = spawnSync('unshare', ['--mount', 'true']).status === 0;

let dir: string;
let path: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'gateway-upgrade-'));
  path = join(dir, 'gateway.db');
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** What an earlier version left. */
function makeEarlier(schema = 3): void {
  const database = new Sqlite(path);
  database.exec(readFileSync('test/fixtures/gateway-schema-3.sql', 'utf8'));
  database.close();
  if (schema > 3) open(schema);
}

/** Opens it as a version that knows so many steps, as the gateway does, and closes it. */
function open(schema = gatewayMigrations.length): void {
  closeDatabase(
    openDatabase(path, gatewayMigrations.slice(0, schema), {
      durability: 'full',
      exclusive: true,
      irreplaceable: true,
    }),
  );
}

/** By the number of their schema, then by their time. */
const backups = () =>
  readdirSync(dir)
    .filter((name) => name.startsWith('backup-'))
    .sort((one, other) => one.localeCompare(other, 'en', { numeric: true }));

function rows(file: string): unknown {
  const database = new Sqlite(file, { readonly: true });
  try {
    const all = (sql: string) => database.prepare(sql).all();
    return {
      schema: database.pragma('user_version', { simple: true }),
      check: database.pragma('integrity_check', { simple: true }),
      aliases: all('SELECT name, registry, certificate FROM aliases ORDER BY name'),
      registries: all('SELECT host, endpoints, username, password FROM registries ORDER BY host'),
      users: all('SELECT name, token_hash FROM users'),
      accounts: all('SELECT * FROM acme_accounts'),
      certificates: all('SELECT name, chain, private_key FROM certificates'),
      counters: all('SELECT * FROM counters'),
    };
  } finally {
    database.close();
  }
}

function failure(run: () => unknown): OperatorError {
  try {
    run();
  } catch (error) {
    if (error instanceof OperatorError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('an update of the schema', () => {
  test('copies the database as it was, readable by its owner alone, and loses nothing', () => {
    makeEarlier();
    const before = rows(path);
    open();
    expect(backups()).toEqual([expect.stringMatching(/^backup-3-\d{8}T\d{9}Z\.db$/)]);
    const copy = join(dir, backups()[0] ?? '');
    expect(statSync(copy).mode & 0o777).toBe(0o600);
    expect(rows(copy)).toEqual(before);
    expect(rows(path)).toEqual({ ...(before as object), schema: gatewayMigrations.length });
  });

  test('is gone back on by putting the copy in place: the version before opens it', () => {
    makeEarlier();
    const before = rows(path);
    open();
    const [copy = ''] = backups();
    renameSync(join(dir, copy), path);
    open(3);
    expect(rows(path)).toEqual(before);
  });

  test.each(gatewayMigrations.map((_, at) => at + 1).slice(2, -1))('begins at schema %i as well', (schema) => {
    makeEarlier(schema);
    open();
    expect(backups().at(-1)).toMatch(new RegExp(`^backup-${schema}-`));
    expect(rows(path)).toMatchObject({ schema: gatewayMigrations.length, check: 'ok' });
  });

  test('makes none where there is nothing to change, or nothing to lose', () => {
    open();
    open();
    expect(backups()).toEqual([]);
  });

  test('keeps the last three copies', () => {
    for (let round = 0; round < 5; round++) {
      rmSync(path, { force: true });
      makeEarlier();
      open();
    }
    expect(backups()).toHaveLength(3);
  });

  test.skipIf(!canMount)('does not begin on a disk that has no room for a copy', () => {
    const big = 'x'.repeat(1_000);
    const database = new Sqlite(path);
    database.exec(readFileSync('test/fixtures/gateway-schema-3.sql', 'utf8'));
    const add = database.prepare('INSERT INTO counters VALUES (?, ?, 1)');
    database.transaction(() => {
      for (let row = 0; row < 1_000; row++) add.run(String(row), big);
    })();
    database.close();
    const disk = join(dir, 'disk');
    mkdirSync(disk);
    const room = Math.floor(1.5 * statSync(path).size);
    // In a mount namespace of its own, so that the file system goes with the process.
    const steps = [
      `mount -t tmpfs -o size=${room},mode=700 none "${disk}"`,
      `cp "${path}" "${disk}"`,
      `"${process.execPath}" src/main.ts --data-dir "${disk}" user ls; echo "exit $?"`,
      `ls "${disk}"; cp "${disk}/gateway.db" "${path}.after"`,
    ].join(' && ');
    const env = { PATH: process.env.PATH };
    const { stdout, stderr } = spawnSync('unshare', ['--mount', 'sh', '-c', steps], { encoding: 'utf8', env });
    expect(stderr).toMatch(/was left as it is, since no copy of it could be made before: database or disk is full/);
    expect(stderr).toMatch(/make room in .* for a copy of the database/);
    expect(stdout).toContain('exit 1\n');
    expect(stdout).not.toContain('backup-');
    expect(rows(`${path}.after`)).toEqual(rows(path));
  });
});

describe('a newer schema', () => {
  const newer = [...gatewayMigrations, { name: 'of the future', sql: 'CREATE TABLE future (x) ' }];

  test('is refused in words that name the copy from before the update', () => {
    makeEarlier();
    open();
    closeDatabase(openDatabase(path, newer, { durability: 'full', exclusive: true, irreplaceable: true }));
    const copy = backups().at(-1);
    expect(copy).toMatch(new RegExp(`^backup-${gatewayMigrations.length}-`));
    const error = failure(() => open());
    expect(error.code).toBe('DATABASE_NEWER');
    expect(error.next).toContain(`gateway restore ${join(dir, copy ?? '')} --force`);
    // An even earlier one can only open the copy that was made before.
    expect(failure(() => open(3)).next).toMatch(/backup-3-/);
  });

  test('is refused in words where there is no copy', () => {
    closeDatabase(openDatabase(path, newer, { durability: 'full', exclusive: true, irreplaceable: true }));
    expect(failure(() => open()).next).toMatch(/gateway restore FILE --force/);
  });
});

test('an index of the cache that a newer version wrote is put aside: the cache is no reason not to go back', () => {
  const lines: string[] = [];
  const log = { ...silentLog(), error: (_: unknown, line: string) => lines.push(line) } as unknown as Logger;
  const newer = [...cacheMigrations, { name: 'of the future', sql: 'CREATE TABLE future (x) ' }];
  openDatabase(join(dir, 'cache.db'), newer, { durability: 'normal' }).close();
  const index = openCacheIndex(dir, log);
  expect(index.totals().blobs).toBe(0);
  index.close();
  expect(readdirSync(dir)).toContain('cache.db.newer');
  expect(lines).toEqual([expect.stringMatching(/newer version of this program; it is put aside as cache.db.newer/)]);
});
