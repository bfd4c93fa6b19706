import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AliasTable } from '../../src/aliases/alias-table.ts';
import { SqliteAliasStore } from '../../src/sqlite/alias-store.ts';
import { openDatabase } from '../../src/sqlite/database.ts';
import { gatewayMigrations } from '../../src/sqlite/migrations/gateway.ts';
import { silentLog } from '../../src/telemetry/log.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'gateway-crash-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const ROWS = 300;
const source = (path: string) => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);

/**
 * Imports batch after batch of ROWS aliases of one registry each, and says the number of each when the call returned.
 * With `dieAt`, a trigger kills it by SIGKILL while it writes that alias.
 */
const writer = (file: string, first: number, dieAt?: string) => `
  import { writeSync } from 'node:fs';
  import { AliasTable } from ${source('aliases/alias-table.ts')};
  import { SqliteAliasStore } from ${source('sqlite/alias-store.ts')};
  import { openDatabase } from ${source('sqlite/database.ts')};
  import { gatewayMigrations } from ${source('sqlite/migrations/gateway.ts')};
  const database = openDatabase(${JSON.stringify(file)}, gatewayMigrations, { durability: 'full' });
  const table = await AliasTable.open({ store: new SqliteAliasStore(database), domain: 'localhost', seed: () => [], log: console });
  database.function('die', () => { process.kill(process.pid, 'SIGKILL'); });
  database.exec("CREATE TEMP TRIGGER t AFTER INSERT ON main.aliases WHEN NEW.name = '${dieAt ?? ''}' BEGIN SELECT die(); END");
  for (let batch = ${first}; batch < ${first} + 10_000; batch++) {
    const aliases = Array.from({ length: ${ROWS} }, (_, i) => ({ name: 'a' + batch + '-' + i, certificate: true }));
    await table.importRows([{ host: 'r' + batch + '.example', aliases }]);
    writeSync(1, batch + '\\n');
  }`;

/** Runs the writer until it is killed; what it said in time. */
async function runToDeath(script: string, onSaid: (said: string, kill: () => void) => void): Promise<number[]> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
    onSaid(said, () => child.kill('SIGKILL'));
  });
  const [, signal] = await once(child, 'close');
  expect(signal).toBe('SIGKILL');
  return said.trim().split('\n').map(Number);
}

/** Opens what is left, and checks that it is whole: every batch complete or absent, none missing that was said. */
async function inspect(file: string, said: readonly number[]): Promise<number> {
  const database = openDatabase(file, gatewayMigrations, { durability: 'full' });
  try {
    const store = new SqliteAliasStore(database);
    const seed = () => {
      throw new Error('the table was filled before');
    };
    const { registries, aliases } = (
      await AliasTable.open({ store, domain: 'localhost', seed, log: silentLog() })
    ).snapshot();
    const counts = Map.groupBy(aliases.values(), (alias) => alias.registry);
    for (const host of registries.keys()) expect(counts.get(host)?.length).toBe(ROWS);
    for (const batch of said) expect(registries.has(`r${batch}.example`)).toBe(true);
    expect(database.pragma('integrity_check', { simple: true })).toBe('ok');
    return registries.size;
  } finally {
    database.close();
  }
}

test('kill -9 in the middle of a change leaves nothing of it, and everything before it', async () => {
  const file = join(dir, 'gateway.db');
  const said = await runToDeath(writer(file, 0, 'a2-150'), () => {});
  expect(said).toEqual([0, 1]);
  expect(await inspect(file, said)).toBe(2);
});

test('kill -9 at any moment leaves whole changes only, and loses none that returned', async () => {
  const file = join(dir, 'gateway.db');
  let first = 0;
  for (let round = 0; round < 4; round++) {
    const said = await runToDeath(writer(file, first), (text, kill) => {
      if (text.split('\n').length > 2 + round) kill();
    });
    first = await inspect(file, said);
    expect(first).toBeGreaterThan(round);
  }
});
