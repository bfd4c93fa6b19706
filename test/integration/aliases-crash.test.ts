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

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'gateway-crash-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const ROWS = 300;
const source = (path: string) => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);

/** Imports batch after batch of ROWS aliases of one registry each, and says the number of each when the call returned. */
const writer = (file: string, first: number) => `
  import { writeSync } from 'node:fs';
  import { AliasTable } from ${source('aliases/alias-table.ts')};
  import { SqliteAliasStore } from ${source('sqlite/alias-store.ts')};
  import { openDatabase } from ${source('sqlite/database.ts')};
  import { gatewayMigrations } from ${source('sqlite/migrations/gateway.ts')};
  const database = openDatabase(${JSON.stringify(file)}, gatewayMigrations, { durability: 'full' });
  const table = new AliasTable({ store: new SqliteAliasStore(database), domain: 'localhost', seed: () => [] });
  for (let batch = ${first}; batch < ${first} + 10_000; batch++) {
    const aliases = Array.from({ length: ${ROWS} }, (_, i) => ({ name: 'a' + batch + '-' + i, certificate: true }));
    table.importRows([{ host: 'r' + batch + '.example', aliases }]);
    writeSync(1, batch + '\\n');
  }`;

test('kill -9 in mid-change leaves all of it or nothing, and loses nothing that returned', async () => {
  const file = join(dir, 'gateway.db');
  let first = 0;
  for (let round = 0; round < 6; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', writer(file, first)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    // Killed as soon as it said so many batches: it is then at some moment of the next.
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.split('\n').length > 2 + round) child.kill('SIGKILL');
    });
    const [, signal] = await once(child, 'close');
    expect(signal).toBe('SIGKILL');
    const returned = said.trim().split('\n').map(Number);

    const database = openDatabase(file, gatewayMigrations, { durability: 'full' });
    const { registries, aliases } = new AliasTable({
      store: new SqliteAliasStore(database),
      domain: 'localhost',
      seed: () => {
        throw new Error('the table was filled before');
      },
    }).snapshot();
    const counts = Map.groupBy(aliases.values(), (alias) => alias.registry);
    for (const host of registries.keys()) expect(counts.get(host)?.length).toBe(ROWS);
    for (const batch of returned) expect(registries.has(`r${batch}.example`)).toBe(true);
    expect(database.pragma('integrity_check', { simple: true })).toBe('ok');
    database.close();
    first = registries.size;
  }
});
