import { describe, expect, test } from 'vitest';
import { AliasTable } from '../../../src/aliases/alias-table.ts';
import { readAliasYaml, seedRows, writeAliasYaml } from '../../../src/aliases/yaml.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { MemoryAliasStore } from '../../support/alias-store.ts';
import { refusal } from '../../support/refusal.ts';

test('the seed is the table of the contract', () => {
  const pairs = Object.fromEntries(seedRows().flatMap((row) => row.aliases.map((alias) => [alias.name, row.host])));
  expect(pairs).toEqual({
    docker: 'docker.io',
    gcr: 'gcr.io',
    ghcr: 'ghcr.io',
    'k8s-gcr': 'k8s.gcr.io',
    k8s: 'registry.k8s.io',
    mcr: 'mcr.microsoft.com',
    nvcr: 'nvcr.io',
    quay: 'quay.io',
    elastic: 'docker.elastic.co',
    l5d: 'cr.l5d.io',
    jujucharms: 'registry.jujucharms.com',
    ecr: 'public.ecr.aws',
    gitlab: 'registry.gitlab.com',
    ollama: 'registry.ollama.ai',
    hf: 'hf.co',
  });
  const others: Record<string, string[]> = {
    'docker.io': ['https://registry-1.docker.io'],
    'k8s.gcr.io': ['https://registry.k8s.io', 'https://k8s.gcr.io'],
    'cr.l5d.io': ['https://ghcr.io', 'https://cr.l5d.io'],
  };
  for (const row of seedRows()) expect(row.endpoints).toEqual(others[row.host] ?? [`https://${row.host}`]);
});

test('a first start orders few certificates, and none for what is seldom used or gone', () => {
  const aliases = seedRows().flatMap((row) => row.aliases);
  expect(aliases.filter(({ certificate }) => certificate)).toHaveLength(12);
  expect(aliases.filter(({ certificate }) => !certificate).map(({ name }) => name)).toEqual([
    'ollama',
    'hf',
    'jujucharms',
  ]);
});

test('the seed has the registries that are alive, and a pattern for those that are one to a region', () => {
  const hosts = seedRows().map(({ host }) => host);
  for (const host of [
    'lscr.io',
    'registry.access.redhat.com',
    'registry.redhat.io',
    'dhi.io',
    'xpkg.upbound.io',
    'cgr.dev',
  ])
    expect(hosts).toContain(host);
  for (const host of ['container-registry.oracle.com', 'code.forgejo.org', 'codeberg.org', '*.pkg.dev'])
    expect(hosts).toContain(host);
  expect(hosts.some((host) => /azurecr|amazonaws/.test(host))).toBe(false);
});

test('what is written reads the same', () => {
  const rows = [
    {
      host: 'registry.corp.example:5000',
      endpoints: ['http://10.0.0.5:5000', 'https://b.example/mirror'],
      proxy: 'socks5h://127.0.0.1:1080',
      public: true,
      realms: ['auth.example.com:8443'],
      aliases: [
        { name: 'corp', certificate: true },
        { name: 'hub.corp.example', certificate: false },
      ],
    },
    { host: '[::1]:5000', endpoints: ['http://[::1]:5000'], aliases: [] },
    { host: 'quay.io', endpoints: ['https://quay.io'], aliases: [{ name: '123', certificate: true }] },
  ];
  const text = writeAliasYaml(rows);
  expect(text).toContain('aliases: ["123"]');
  expect(text).toMatch(/^# .*Passwords are not exported/ms);
  expect(readAliasYaml(text, 'x.yaml')).toEqual(rows.map((row) => ({ ...row })));
});

test('the export of a table has no secret in it', async () => {
  const table = await AliasTable.open({
    store: new MemoryAliasStore(),
    domain: 'localhost',
    seed: seedRows,
    log: silentLog(),
  });
  await table.setRegistry('quay.io', {
    credentials: { username: 'bot', password: 'hunter2' },
    proxy: 'http://u:hunter3@proxy:1',
  });
  expect(writeAliasYaml(table.exportRows())).not.toMatch(/hunter/);
});

describe('reading', () => {
  test('takes credentials, short forms and empty entries', () => {
    const text = 'registries:\n  quay.io:\n  ghcr.io: {credentials: {username: a, password: b}, aliases: [g]}\n';
    expect(readAliasYaml(text, 'x')).toEqual([
      { host: 'quay.io', aliases: [] },
      { host: 'ghcr.io', credentials: { username: 'a', password: 'b' }, aliases: [{ name: 'g', certificate: true }] },
    ]);
  });

  test('reports everything at once, each with its line', () => {
    const text = `registries:
  quay:
    aliases: []
  quay.io:
    endpoint: [https://quay.io]
    aliases:
      - a_b
      - 12
      - {name: x, certificate: maybe}
  ghcr.io:
    endpoints:
      - https://ghcr.io
      - ftp://ghcr.io
    public: perhaps
    proxy: socks4://x
    credentials: {username: a}
  gcr.io: nothing
registers: {}
`;
    const { message, usage } = refusal(() => readAliasYaml(text, 'my.yaml'));
    expect(usage).toBe(true);
    expect(
      message
        .split('\n')
        .map((line) => /^my\.yaml:(\d+): (.*)$/.exec(line)?.[1])
        .sort((a, b) => Number(a) - Number(b)),
    ).toEqual(['2', '5', '7', '8', '9', '13', '14', '15', '16', '17', '18']);
    expect(message).toContain('my.yaml:5: there is no key "endpoint" here; did you mean endpoints?');
    expect(message).toContain('my.yaml:7: the alias "a_b" contains an underscore');
  });

  test.each([
    ['- a\n', 1],
    ['registries: [a]\n', 1],
    ['registries:\n  quay.io: {}\n  quay.io: {}\n', 3],
    ['registries:\n\tquay.io: {}\n', 2],
    ['a: 1\n---\nb: 1\n', 2],
  ])('%j is refused at its line', (text, line) => {
    expect(refusal(() => readAliasYaml(text, 'f.yaml')).message).toContain(`f.yaml:${line}: `);
  });

  test('a file of nothing is refused', () => {
    expect(refusal(() => readAliasYaml('', 'f.yaml')).message).toContain('does not start with');
  });
});
