import { afterAll, beforeAll, expect, test } from 'vitest';
import { checkRegistries } from '../../src/admin/doctor/registries.ts';
import type { OperationsDeps } from '../../src/admin/operation.ts';
import type { RegistryEntry } from '../../src/aliases/table.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { makeTestCa } from '../support/test-ca.ts';

// What doctor says of registries that no request of a client can mend: shut down, patterns, loops, certificates of strangers.

const ca = makeTestCa();
let secure: FakeRegistry;
let plain: FakeRegistry;

beforeAll(async () => {
  secure = await FakeRegistry.start({ tls: ca.issue(['localhost']) });
  plain = await FakeRegistry.start({ faults: () => ({ status: 508 }) });
});
afterAll(() => Promise.all([secure.close(), plain.close()]));

async function checks(...rows: (Partial<RegistryEntry> & { host: string; endpoints: readonly string[] })[]) {
  const registries = new Map(
    rows.map((row): [string, RegistryEntry] => [
      row.host,
      { proxy: null, credentials: null, public: false, realms: [], named: [], ca: null, ...row },
    ]),
  );
  const deps = {
    config: { upstream: { proxy: null, caFile: null, stallTimeout: 1_000, connections: 1 } },
    pseudonym: 'registry-gateway-0123456789abcdef',
    table: { snapshot: () => ({ registries }) },
  } as unknown as OperationsDeps;
  const names = { canResolve: () => true, exists: async () => true };
  return (await checkRegistries(deps, names, new AbortController().signal)).findings;
}

test('one that was shut down is no complaint, but another endpoint of it is asked', async () => {
  const host = 'registry.jujucharms.com';
  const [gone, mirror] = await checks({ host, endpoints: [`https://${host}`, `${plain.url}/mirror`] });
  expect(gone).toMatchObject({ level: 'ok', message: expect.stringContaining('shut down in 2022') });
  expect(mirror?.level).toBe('fail');
});

test('a pattern is nobody to ask', async () => {
  const [check] = await checks({ host: '*.pkg.dev', endpoints: ['https://*.pkg.dev'] });
  expect(check).toMatchObject({ level: 'ok', message: expect.stringContaining('not asked') });
});

test('an endpoint that leads back here is told as what it is', async () => {
  const [check] = await checks({ host: 'r.test', endpoints: [plain.url] });
  expect(check).toMatchObject({ level: 'fail', message: expect.stringContaining('leads back to this gateway') });
});

test('a certificate of an authority that nobody here trusts: what to set; with it, all is well', async () => {
  const endpoints = [`https://localhost:${secure.port}`];
  const [strange] = await checks({ host: 'r.test', endpoints });
  expect(strange).toMatchObject({ level: 'fail', next: expect.stringContaining('registry set r.test --ca FILE') });
  const [known] = await checks({ host: 'r.test', endpoints, ca: ca.pem });
  expect(known?.level).toBe('ok');
});
