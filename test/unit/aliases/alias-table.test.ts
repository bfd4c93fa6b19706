import { describe, expect, test } from 'vitest';
import { AliasTable } from '../../../src/aliases/alias-table.ts';
import type { RegistryDeclaration } from '../../../src/aliases/import-export.ts';
import type { TableSnapshot } from '../../../src/aliases/table.ts';
import { type Logger, silentLog } from '../../../src/telemetry/log.ts';
import { MemoryAliasStore } from '../../support/alias-store.ts';
import { rejection } from '../../support/refusal.ts';

const SEED: RegistryDeclaration[] = [
  { host: 'docker.io', aliases: [{ name: 'docker', certificate: true }] },
  { host: 'quay.io', endpoints: ['https://quay.io'], aliases: [{ name: 'quay', certificate: true }] },
];

async function table(
  options: { domain?: string; store?: MemoryAliasStore; seed?: RegistryDeclaration[] } = {},
): Promise<AliasTable> {
  const { domain = 'cr.example.com', store = new MemoryAliasStore(), seed = SEED } = options;
  return AliasTable.open({ store, domain, seed: () => seed, log: silentLog() });
}

const hosts = (one: AliasTable) => [...one.snapshot().hosts.keys()].sort();

describe('a new table', () => {
  test('is filled from the seed, with default endpoints', async () => {
    const { registries, aliases, domain } = (await table()).snapshot();
    expect(domain).toBe('cr.example.com');
    expect(registries.get('docker.io')?.endpoints).toEqual(['https://registry-1.docker.io']);
    expect(aliases.get('quay')).toEqual({
      name: 'quay',
      host: 'quay.cr.example.com',
      registry: 'quay.io',
      certificate: true,
    });
  });

  test('is filled once: a removed alias does not come back', async () => {
    const store = new MemoryAliasStore();
    await (await table({ store })).removeAlias('docker');
    expect(hosts(await table({ store }))).toEqual(['quay.cr.example.com']);
  });

  test('an empty seed fills it, too', async () => {
    const store = new MemoryAliasStore();
    await table({ store, seed: [] });
    expect((await table({ store })).snapshot().registries.size).toBe(0);
  });
});

describe('addAlias', () => {
  test('adds the registry and the alias, and tells the listeners once', async () => {
    const one = await table();
    const seen: unknown[] = [];
    const stop = one.subscribe((snapshot) => seen.push(snapshot));
    const before = one.snapshot();
    const added = await one.addAlias({ name: 'K8S-gcr', registry: 'K8S.gcr.io', certificate: true });
    expect(added).toMatchObject({ aliasAdded: true, registryAdded: true, endpointsChanged: false });
    expect(added.alias).toEqual({
      name: 'k8s-gcr',
      host: 'k8s-gcr.cr.example.com',
      registry: 'k8s.gcr.io',
      certificate: true,
    });
    expect(added.registry.endpoints).toEqual(['https://k8s.gcr.io']);
    expect(seen).toEqual([one.snapshot()]);
    expect(one.snapshot().hosts.get('k8s-gcr.cr.example.com')).toBe(one.snapshot().aliases.get('k8s-gcr'));
    expect(before.hosts.has('k8s-gcr.cr.example.com')).toBe(false);
    stop();
    await one.removeAlias('quay');
    expect(seen).toHaveLength(1);
  });

  test('takes a host outside the domain', async () => {
    const one = await table();
    await one.addAlias({ name: 'hub.corp.example', registry: 'docker.io', certificate: true });
    expect(one.snapshot().hosts.get('hub.corp.example')?.registry).toBe('docker.io');
  });

  test('again with the same registry changes nothing and says so', async () => {
    const one = await table();
    const before = one.snapshot();
    expect(await one.addAlias({ name: 'quay.cr.example.com', registry: 'quay.io', certificate: false })).toMatchObject({
      aliasAdded: false,
      registryAdded: false,
      endpointsChanged: false,
      certificateTurnedOn: false,
      alias: { certificate: true },
    });
    expect(one.snapshot()).toBe(before);
  });

  test('with another registry it is refused, and nothing is added', async () => {
    const one = await table();
    const error = await rejection(one.addAlias({ name: 'quay', registry: 'new.example', certificate: true }));
    expect(error).toMatchObject({ code: 'ALIAS_TAKEN', usage: false });
    expect(error.message).toContain('stands for quay.io already');
    expect(one.snapshot().registries.has('new.example')).toBe(false);
  });

  test('given endpoints replace the old, none keep them', async () => {
    const one = await table();
    const endpoints = ['http://10.0.0.5:5000/', 'https://quay.io'];
    expect(await one.addAlias({ name: 'quay', registry: 'quay.io', endpoints, certificate: true })).toMatchObject({
      endpointsChanged: true,
      registry: { endpoints: ['http://10.0.0.5:5000', 'https://quay.io'] },
    });
    await one.addAlias({ name: 'quay2', registry: 'quay.io', endpoints: [], certificate: true });
    expect(one.registry('quay.io').endpoints).toHaveLength(2);
  });

  test('without --no-cert, one that was added with it gets its certificate', async () => {
    const one = await table();
    await one.addAlias({ name: 'x', registry: 'quay.io', certificate: false });
    expect(await one.addAlias({ name: 'x', registry: 'quay.io', certificate: true })).toMatchObject({
      aliasAdded: false,
      certificateTurnedOn: true,
    });
    expect(one.snapshot().hosts.get('x.cr.example.com')?.certificate).toBe(true);
  });
});

describe('changes', () => {
  test('removeAlias takes a name or a host', async () => {
    const one = await table();
    expect((await one.removeAlias('QUAY.cr.example.com.')).name).toBe('quay');
    await one.removeAlias('docker');
    expect(hosts(one)).toEqual([]);
    expect((await rejection(one.removeAlias('docker'))).code).toBe('ALIAS_UNKNOWN');
    expect((await rejection(one.removeAlias('a_b'))).usage).toBe(true);
  });

  test('setCertificate', async () => {
    const one = await table();
    expect((await one.setCertificate('quay', false)).certificate).toBe(false);
    expect(one.snapshot().hosts.get('quay.cr.example.com')?.certificate).toBe(false);
    const before = one.snapshot();
    await one.setCertificate('quay', false);
    expect(one.snapshot()).toBe(before);
  });

  test('setRegistry creates, changes what is given, and keeps the rest', async () => {
    const one = await table();
    const credentials = { username: 'bot', password: 'p' };
    expect(await one.setRegistry('localhost:5000', { credentials, proxy: 'socks5h://127.0.0.1:1080' })).toMatchObject({
      added: true,
      registry: { endpoints: ['https://localhost:5000'], public: false },
    });
    const { registry, added } = await one.setRegistry('localhost:5000', {
      public: true,
      endpoints: ['http://localhost:5000'],
    });
    expect(added).toBe(false);
    expect(registry).toEqual({
      host: 'localhost:5000',
      endpoints: ['http://localhost:5000'],
      proxy: 'socks5h://127.0.0.1:1080',
      credentials,
      public: true,
      realms: [],
      named: [],
      ca: null,
    });
    const realms = ['Auth.Example.com', 'auth.example.com', '10.0.0.9:8443'];
    expect((await one.setRegistry('localhost:5000', { realms })).registry.realms).toEqual([
      'auth.example.com',
      '10.0.0.9:8443',
    ]);
    expect((await one.setRegistry('localhost:5000', { public: true })).changed).toBe(false);
    expect((await one.setRegistry('localhost:5000', { realms: [] })).registry.realms).toEqual([]);
    expect((await one.setRegistry('localhost:5000', { proxy: null, credentials: null })).registry).toMatchObject({
      proxy: null,
      credentials: null,
    });
    expect((await one.setRegistry('localhost:5000', {})).changed).toBe(false);
  });

  test('removeRegistry names the aliases that stand for it', async () => {
    const one = await table();
    await one.addAlias({ name: 'q2', registry: 'quay.io', certificate: true });
    const error = await rejection(one.removeRegistry('quay.io'));
    expect(error).toMatchObject({ code: 'REGISTRY_IN_USE', usage: false });
    expect(error.message).toContain('q2, quay');
    await one.removeAlias('quay');
    await one.removeAlias('q2');
    await one.removeRegistry('QUAY.io');
    expect(one.snapshot().registries.has('quay.io')).toBe(false);
    expect((await rejection(one.removeRegistry('quay.io'))).code).toBe('REGISTRY_UNKNOWN');
  });

  test('a store that fails leaves the snapshot as it was', async () => {
    const store = new MemoryAliasStore();
    const one = await table({ store });
    const before = one.snapshot();
    store.apply = async () => {
      throw new Error('disk full');
    };
    await expect(one.removeAlias('quay')).rejects.toThrow('disk full');
    expect(one.snapshot()).toBe(before);
  });
});

describe('import and export', () => {
  test('what is exported imports as no change', async () => {
    const one = await table();
    await one.setRegistry('quay.io', {
      credentials: { username: 'bot', password: 'hunter2' },
      proxy: 'http://bot:hunter2@proxy.example:3128',
    });
    const rows = one.exportRows();
    expect(JSON.stringify(rows)).not.toContain('hunter2');
    const before = one.snapshot();
    expect(await one.importRows(rows)).toEqual({
      registriesAdded: 0,
      registriesChanged: 0,
      aliasesAdded: 0,
      aliasesChanged: 0,
      certificates: 0,
    });
    expect(one.snapshot()).toBe(before);
    expect(one.registry('quay.io').proxy).toContain('hunter2');
  });

  test('adds and changes in one step', async () => {
    const one = await table();
    let told = 0;
    one.subscribe(() => told++);
    expect(
      await one.importRows([
        { host: 'quay.io', public: true, aliases: [{ name: 'quay', certificate: false }] },
        { host: 'new.example', aliases: [{ name: 'new', certificate: true }] },
      ]),
    ).toEqual({ registriesAdded: 1, registriesChanged: 1, aliasesAdded: 1, aliasesChanged: 1, certificates: 1 });
    expect(told).toBe(1);
    expect(one.registry('quay.io')).toMatchObject({ endpoints: ['https://quay.io'], public: true });
  });

  test('every problem is reported and nothing is imported', async () => {
    const one = await table();
    const before = one.snapshot();
    const error = await rejection(
      one.importRows([
        { host: 'new.example', aliases: [{ name: 'quay', certificate: true }] },
        { host: 'other.example', aliases: [{ name: 'twice', certificate: true }] },
        { host: 'third.example', aliases: [{ name: 'twice', certificate: true }] },
        { host: 'bad', aliases: [] },
      ]),
    );
    expect(error.message).toContain('quay stands for quay.io already');
    expect(error.message).toContain('twice stands for other.example already');
    expect(error.message).toContain('"bad"');
    expect(one.snapshot()).toBe(before);
  });
});

describe('when the domain changes', () => {
  test('labels move with it, full names stay; a name that now means another host is reported', async () => {
    const store = new MemoryAliasStore();
    const old = await table({ store, domain: 'old.example' });
    await old.addAlias({ name: 'quay.new.example', registry: 'docker.io', certificate: true });
    await old.addAlias({ name: 'new.example', registry: 'docker.io', certificate: true });
    expect(old.conflicts()).toEqual([]);
    const now = await table({ store, domain: 'new.example' });
    expect(hosts(now)).toEqual(['docker.new.example', 'quay.new.example']);
    expect(now.snapshot().hosts.get('quay.new.example')?.registry).toBe('quay.io');
    expect(now.conflicts().join()).toMatch(/quay\.new\.example is not reachable.*alias quay,.*the gateway itself/s);
    await now.removeAlias('quay.new.example');
  });

  test('under an IP address labels have no host, full names do', async () => {
    const one = await table({ domain: '192.0.2.1' });
    expect(hosts(one)).toEqual([]);
    expect(one.conflicts()).toEqual([]);
    const added = await one.addAlias({ name: 'corp', registry: 'registry.corp.example', certificate: true });
    expect(added).toMatchObject({ aliasAdded: true, registryAdded: true });
    // It is in nobody's way: the registry is what was asked for.
    const taken = await one.addAlias({ name: 'corp', registry: 'other.corp.example', certificate: true });
    expect(taken).toMatchObject({ aliasAdded: false, registryAdded: true });
    expect(one.snapshot().aliases.get('corp')?.registry).toBe('registry.corp.example');
    expect(
      (await rejection(one.addAlias({ name: 'x', registry: 'corp.example:5000', certificate: true }))).message,
    ).toContain('cannot be pulled by prefix');
    await one.addAlias({ name: 'hub.corp.example', registry: 'quay.io', certificate: true });
    expect(hosts(one)).toEqual(['hub.corp.example']);
  });
});

test('a change writes its own rows only, whatever the size of the table', async () => {
  const store = new MemoryAliasStore();
  const aliases = Array.from({ length: 10_000 }, (_, index) => ({ name: `a${index}`, certificate: true }));
  const one = await table({ store, seed: [{ host: 'quay.io', aliases }] });
  const changes: unknown[] = [];
  const apply = store.apply.bind(store);
  store.apply = (change, basedOn) => {
    changes.push(change);
    return apply(change, basedOn);
  };
  await one.addAlias({ name: 'new', registry: 'quay.io', certificate: true });
  expect(changes).toEqual([
    { putRegistries: [], putAliases: [{ name: 'new', registry: 'quay.io', certificate: true }] },
  ]);
  expect(one.snapshot().hosts.size).toBe(10_001);
});

describe('with other holders of the store', () => {
  test("shows another holder's change, and tells the listeners", async () => {
    const store = new MemoryAliasStore();
    const one = await table({ store });
    const other = await table({ store: store.another() });
    const seen: TableSnapshot[] = [];
    one.subscribe((snapshot) => seen.push(snapshot));
    await other.addAlias({ name: 'new', registry: 'quay.io', certificate: true });
    await expect.poll(() => one.snapshot().hosts.has('new.cr.example.com')).toBe(true);
    expect(seen).toEqual([one.snapshot()]);
    await one.removeAlias('new');
    await expect.poll(() => other.snapshot().hosts.has('new.cr.example.com')).toBe(false);
  });

  test('plans anew on what another holder has changed meanwhile', async () => {
    const store = new MemoryAliasStore();
    const one = await table({ store });
    const other = await table({ store: store.another() });
    const add = (name: string, registry: string) => ({ name, registry, certificate: true });
    const results = await Promise.allSettled([
      one.addAlias(add('new', 'a.example')),
      other.addAlias(add('new', 'b.example')),
      one.addAlias(add('x', 'quay.io')),
      other.addAlias(add('y', 'quay.io')),
    ]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
    expect((results[1] as PromiseRejectedResult).reason).toMatchObject({ code: 'ALIAS_TAKEN' });
    await expect.poll(() => hosts(one)).toEqual(hosts(other));
    expect([...one.snapshot().aliases.keys()].sort()).toEqual(['docker', 'new', 'quay', 'x', 'y']);
    expect(one.snapshot().registries.has('b.example')).toBe(false);
  });

  test('a new table that two open at once is filled once', async () => {
    const store = new MemoryAliasStore();
    const both = await Promise.all([table({ store }), table({ store: store.another(), seed: [] })]);
    expect(hosts(both[0])).toEqual(hosts(both[1]));
    expect((await store.load()).version).toBe(1);
  });

  test('a reload that fails is reported, and tried again at the next notice', async () => {
    const store = new MemoryAliasStore();
    const errors: unknown[] = [];
    const one = await AliasTable.open({
      store,
      domain: 'cr.example.com',
      seed: () => SEED,
      log: { error: (line: unknown) => void errors.push(line) } as Pick<Logger, 'error'>,
    });
    const other = await table({ store: store.another() });
    const load = store.load.bind(store);
    store.load = async () => {
      throw new Error('the store is away');
    };
    await other.removeAlias('quay');
    await expect.poll(() => errors).toHaveLength(1);
    expect(hosts(one)).toHaveLength(2);
    store.load = load;
    await other.removeAlias('docker');
    await expect.poll(() => hosts(one)).toEqual([]);
    await one.close();
    await other.addAlias({ name: 'late', registry: 'quay.io', certificate: true });
    expect(hosts(one)).toEqual([]);
  });
});
