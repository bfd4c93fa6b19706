import { expect, test } from 'vitest';
import { AliasTable } from '../../../src/aliases/alias-table.ts';
import { readAliasYaml } from '../../../src/aliases/yaml.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { MemoryAliasStore } from '../../support/alias-store.ts';
import { rejection } from '../../support/refusal.ts';

// A gateway that is its own upstream is refused where that can be seen.

const table = (domain = 'cr.example.com', store = new MemoryAliasStore()) =>
  AliasTable.open({
    store,
    domain,
    ports: [8443, 8080],
    seed: () => [{ host: 'quay.io', aliases: [{ name: 'quay', certificate: true }] }],
    log: silentLog(),
  });

test.each([
  'https://cr.example.com',
  'http://cr.example.com',
  'https://cr.example.com:8443/v2/proj',
  'https://quay.cr.example.com',
  'http://127.0.0.1:8080',
  'https://localhost:8443',
  'https://[::1]:8443',
  'https://0.0.0.0:8443',
  'https://[::]:8443',
  'https://[::ffff:7f00:1]:8443',
])('the endpoint %s', async (endpoint) => {
  const one = await table();
  expect((await rejection(one.setRegistry('r.test', { endpoints: [endpoint] }))).code).toBe('LEADS_TO_ITSELF');
  const second = one.setRegistry('quay.io', { endpoints: ['https://quay.io', endpoint] });
  expect((await rejection(second)).message).toContain(endpoint);
});

test.each([
  'https://cr.example.com:5000',
  'http://127.0.0.1:5000',
  'https://other.cr.example.com',
  'https://localhost',
])('the endpoint %s is another program', async (endpoint) => {
  const { registry } = await (await table()).setRegistry('r.test', { endpoints: [endpoint] });
  expect(registry.endpoints).toEqual([endpoint]);
});

test('an alias for its own host, for the domain, or of the host where a registry is fetched', async () => {
  const one = await table();
  const add = (name: string, registry: string) => rejection(one.addAlias({ name, registry, certificate: true }));
  expect((await add('self', 'self.cr.example.com')).code).toBe('LEADS_TO_ITSELF');
  expect((await add('self', 'cr.example.com')).code).toBe('LEADS_TO_ITSELF');
  await one.setRegistry('r.test', { endpoints: ['https://harbor.cr.example.com'] });
  expect((await add('harbor', 'quay.io')).code).toBe('LEADS_TO_ITSELF');
  const local = await table('localhost');
  const own = local.addAlias({ name: 'self', registry: 'self.localhost', certificate: true });
  expect((await rejection(own)).code).toBe('LEADS_TO_ITSELF');
});

test('an import, with all other rows', async () => {
  const one = await table();
  const yaml = 'registries: {a.test: {}, cr.example.com: {}}';
  expect((await rejection(one.importRows(readAliasYaml(yaml, 'f')))).code).toBe('LEADS_TO_ITSELF');
  expect([...one.snapshot().registries.keys()]).toEqual(['quay.io']);
});

test('a row of an earlier version is no reason to refuse another change', async () => {
  const store = new MemoryAliasStore();
  const row = { proxy: null, credentials: null, public: false, realms: [], named: [], ca: null };
  const self = { host: 'cr.example.com', endpoints: ['https://cr.example.com'], ...row };
  await store.apply({ putRegistries: [self] }, 0);
  const one = await table('cr.example.com', store);
  await one.addAlias({ name: 'quay', registry: 'quay.io', certificate: true });
  await one.removeRegistry('cr.example.com');
  expect([...one.snapshot().registries.keys()]).toEqual(['quay.io']);
});
