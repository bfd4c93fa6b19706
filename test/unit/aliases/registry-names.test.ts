import { describe, expect, test } from 'vitest';
import { AliasTable } from '../../../src/aliases/alias-table.ts';
import type { RegistryDeclaration } from '../../../src/aliases/import-export.ts';
import { registryOf } from '../../../src/aliases/lookup.ts';
import { parseRegistryHost } from '../../../src/aliases/names.ts';
import { readAliasYaml } from '../../../src/aliases/yaml.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { MemoryAliasStore } from '../../support/alias-store.ts';
import { refusal, rejection } from '../../support/refusal.ts';

const SEED: RegistryDeclaration[] = [
  { host: 'docker.io', aliases: [{ name: 'docker', certificate: true }] },
  { host: '*.pkg.dev', proxy: 'http://proxy.test:3128', aliases: [] },
];

const table = (seed = SEED) =>
  AliasTable.open({ store: new MemoryAliasStore(), domain: 'cr.example.com', seed: () => seed, log: silentLog() });

describe('Docker Hub is one registry, whichever of its names it is given', () => {
  const NAMES = [
    'index.docker.io',
    'registry-1.docker.io',
    'Registry.Docker.io',
    'registry.hub.docker.com',
    'docker.io:443',
  ];

  test.each(NAMES)('%s', async (name) => {
    const one = await table();
    const added = await one.addAlias({ name: 'hub', registry: name, certificate: true });
    expect([added.alias.registry, added.registryAdded]).toEqual(['docker.io', false]);
    await one.setRegistry(name, { proxy: 'http://127.0.0.1:3128' });
    expect(one.registry(name)).toMatchObject({ host: 'docker.io', proxy: 'http://127.0.0.1:3128' });
    await one.importRows(readAliasYaml(`registries: {"${name}": {realms: [auth.test], aliases: [hub2]}}`, 'f'));
    expect(one.snapshot().registries.get('docker.io')?.realms).toEqual(['auth.test']);
    expect([...one.snapshot().registries.keys()]).toEqual(['docker.io', '*.pkg.dev']);
  });

  test('a row of an earlier version keeps its own name, so that it can be removed', async () => {
    const store = new MemoryAliasStore();
    const row = {
      endpoints: ['https://old.test'],
      proxy: null,
      credentials: null,
      public: false,
      realms: [],
      named: [],
      ca: null,
    };
    await store.apply(
      {
        putRegistries: [
          { host: 'docker.io', ...row },
          { host: 'index.docker.io', ...row },
        ],
      },
      0,
    );
    const one = await AliasTable.open({ store, domain: 'cr.example.com', seed: () => [], log: silentLog() });
    expect((await one.removeRegistry('index.docker.io')).host).toBe('index.docker.io');
    expect([...one.snapshot().registries.keys()]).toEqual(['docker.io']);
  });

  test('its web site is no registry', () => {
    expect(refusal(() => parseRegistryHost('hub.docker.com')).message).toContain('docker.io');
  });
});

describe('patterns', () => {
  test.each(['*.pkg.dev', '*.dkr.ecr.*.amazonaws.com', '*.Corp.Example:5000'])('%s is one', (text) => {
    expect(parseRegistryHost(text)).toBe(text.toLowerCase());
  });

  test.each([
    '*',
    '*.dev',
    '*.*.dev',
    'us-*.pkg.dev',
    '*pkg.dev',
    'a.*',
    '*.pkg.*',
    '**.pkg.dev',
    '*.pkg.dev/x',
    '*:5000',
  ])('%s is none', (text) =>
    expect(refusal(() => parseRegistryHost(text))).toMatchObject({ code: 'REGISTRY_INVALID', usage: true }),
  );

  test('each host that matches is a registry of its own, with the settings of the row', async () => {
    const one = await table();
    expect(registryOf(one.snapshot(), 'us-docker.pkg.dev')).toEqual({
      host: 'us-docker.pkg.dev',
      pattern: '*.pkg.dev',
      endpoints: ['https://us-docker.pkg.dev'],
      proxy: 'http://proxy.test:3128',
      credentials: null,
      public: false,
      realms: [],
      named: [],
      ca: null,
    });
    for (const other of [
      'pkg.dev',
      'a.b.pkg.dev',
      'a.pkg.dev.evil.test',
      'xpkg.dev',
      'a.pkg.dev:5000',
      '-.pkg.dev',
      '*.pkg.dev',
    ])
      expect(registryOf(one.snapshot(), other)).toBeUndefined();
    // The port of HTTPS is no other registry.
    expect(registryOf(one.snapshot(), 'us-docker.pkg.dev:443')?.host).toBe('us-docker.pkg.dev');
  });

  test('what is set for one host is a row of its own, which begins as the pattern has it', async () => {
    const one = await table();
    const credentials = { username: '_json_key', password: 'k' };
    const { registry, added } = await one.setRegistry('us-docker.pkg.dev', { credentials });
    expect([added, registry.pattern, registry.proxy]).toEqual([true, undefined, 'http://proxy.test:3128']);
    expect(registryOf(one.snapshot(), 'us-docker.pkg.dev')?.credentials).toEqual(credentials);
    expect(registryOf(one.snapshot(), 'eu-docker.pkg.dev')?.credentials).toBeNull();
    const { registry: aliased } = await one.addAlias({
      name: 'gar',
      registry: 'eu-docker.pkg.dev',
      certificate: false,
    });
    expect(aliased.endpoints).toEqual(['https://eu-docker.pkg.dev']);
  });

  test('the longer of two that match counts', async () => {
    const one = await table([...SEED, { host: '*.docker.pkg.dev', aliases: [] }, { host: '*.*.pkg.dev', aliases: [] }]);
    expect(registryOf(one.snapshot(), 'a.docker.pkg.dev')?.pattern).toBe('*.docker.pkg.dev');
    expect(registryOf(one.snapshot(), 'a.other.pkg.dev')?.pattern).toBe('*.*.pkg.dev');
  });

  test('credentials, an alias and an endpoint without the host are refused', async () => {
    const one = await table();
    const credentials = { username: 'u', password: 'p' };
    const refusals = [
      await rejection(one.setRegistry('*.pkg.dev', { credentials })),
      await rejection(one.importRows([{ host: '*.pkg.dev', credentials, aliases: [] }])),
      await rejection(one.addAlias({ name: 'gar', registry: '*.pkg.dev', certificate: true })),
      await rejection(one.importRows([{ host: '*.pkg.dev', aliases: [{ name: 'gar', certificate: true }] }])),
      await rejection(one.setRegistry('*.pkg.dev', { endpoints: ['https://mirror.test'] })),
      await rejection(one.setRegistry('quay.io', { endpoints: ['https://*.quay.io'] })),
      await rejection(one.removeRegistry('us-docker.pkg.dev')),
    ];
    expect(refusals.map(({ code }) => code)).toEqual([
      'CREDENTIALS_INVALID',
      'CREDENTIALS_INVALID',
      'REGISTRY_INVALID',
      'REGISTRY_INVALID',
      'ENDPOINT_INVALID',
      'ENDPOINT_INVALID',
      'REGISTRY_UNKNOWN',
    ]);
    await one.setRegistry('*.pkg.dev', { endpoints: ['https://mirror.test/v2/*.pkg.dev'] });
    expect(registryOf(one.snapshot(), 'a.pkg.dev')?.endpoints).toEqual(['https://mirror.test/v2/a.pkg.dev']);
  });
});
