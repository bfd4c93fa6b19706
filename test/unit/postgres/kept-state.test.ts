import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import type { RegistryEntry } from '../../../src/aliases/table.ts';
import { SecretKeys } from '../../../src/kit/sealed.ts';
import { KeptState } from '../../../src/postgres/kept-state.ts';
import { silentLog } from '../../../src/telemetry/log.ts';

const QUAY: RegistryEntry = {
  ...{ host: 'quay.io', endpoints: ['https://quay.io'], proxy: null, public: false, realms: [], ca: null },
  credentials: { username: 'robot', password: 'secret of quay' },
  named: [],
};
const aliases = { version: 3, isNew: false, registries: [QUAY], aliases: [] };

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), 'kept-state-'));
  onTestFinished(() => rmSync(made, { recursive: true }));
  return made;
}

test('a node that was updated while the database is away goes on with what the version before has kept', async () => {
  const file = join(folder(), 'fleet-state.sealed');
  const keys = new SecretKeys(randomBytes(32).toString('base64'), 'keys');
  // A version that knew no several credentials a registry kept no list of them.
  const { named: _, ...older } = QUAY;
  const before = {
    identity: '0123456789abcdef',
    aliases: { ...aliases, registries: [older] },
    users: {},
    certificates: [],
  };
  writeFileSync(file, keys.seal(JSON.stringify(before), 'the state that a node keeps'));
  const kept = KeptState.open(file, keys, silentLog());
  expect(kept.isWhole).toBe(true);
  expect(kept.before('aliases')).toEqual(aliases);
  await kept.close();
});

test('named credentials are kept, and nothing readable of them', async () => {
  const file = join(folder(), 'fleet-state.sealed');
  const keys = new SecretKeys(randomBytes(32).toString('base64'), 'keys');
  const named = [{ id: 2, name: 'team', for: ['team/*'], username: 'robot-of-team', password: 'secret of team' }];
  const kept = KeptState.open(file, keys, silentLog());
  kept.put('aliases', { ...aliases, registries: [{ ...QUAY, named }] });
  await kept.close();
  const text = readFileSync(file, 'latin1');
  for (const word of ['secret of', 'robot', 'quay.io']) expect(text).not.toContain(word);
  expect(KeptState.open(file, keys, silentLog()).before('aliases')?.registries[0]?.named).toEqual(named);
});
