import { describe, expect, test } from 'vitest';
import { readRegistryConfig } from '../../../../src/admin/import/registry-config.ts';
import { planAdditions } from '../../../../src/aliases/additions.ts';
import type { RegistryDeclaration } from '../../../../src/aliases/import-export.ts';
import { newRegistry } from '../../../../src/aliases/names.ts';
import { fromRows } from '../../../../src/aliases/snapshot.ts';

const read = (text: string, env: NodeJS.ProcessEnv = {}) => {
  const { rows, leftOut, storages, notes } = readRegistryConfig(text, 'config.yml', env);
  return { rows, left: leftOut.map(({ what }) => what), storages, notes };
};

describe('the configuration of a registry', () => {
  test('as a pull-through cache with credentials, which served all who could reach it', () => {
    const { rows, left, storages } = read(`
      version: 0.1
      log: {level: info}
      storage: {cache: {blobdescriptor: inmemory}, filesystem: {rootdirectory: /srv/r}, delete: {enabled: true}}
      http: {addr: ":5000", headers: {X: [y]}}
      proxy: {remoteurl: "https://registry-1.docker.io", username: bot, password: pw, ttl: 168h}
    `);
    const credentials = { username: 'bot', password: 'pw' };
    expect(rows).toEqual([
      { host: 'docker.io', endpoints: ['https://registry-1.docker.io'], credentials, public: true, aliases: [] },
    ]);
    expect(storages).toEqual([
      { from: 'config.yml', root: '/srv/r', remote: 'https://registry-1.docker.io', hasCredentials: true },
    ]);
    expect(left).toEqual([]);
  });

  test('where it asked for logins, what its credentials open stays closed', () => {
    const { rows, left } = read(
      'proxy: {remoteurl: "https://quay.io", username: a, password: b}\nauth: {htpasswd: {realm: r, path: p}}',
    );
    expect(rows).toMatchObject([{ host: 'quay.io', public: false }]);
    expect(left).toEqual([expect.stringMatching(/^config\.yml: auth: who may pull/)]);
  });

  test('by the variables of its image, which win', () => {
    const { rows, storages } = read('proxy: {remoteurl: "https://quay.io"}', {
      REGISTRY_PROXY_REMOTEURL: 'https://gcr.io',
      REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: '/data',
    });
    expect(rows).toEqual([{ host: 'gcr.io', endpoints: ['https://gcr.io'], aliases: [] }]);
    expect(storages).toMatchObject([{ root: '/data', remote: 'https://gcr.io' }]);
  });

  test('without a proxy: nobody knows whose images it has', () => {
    expect(read('storage: {filesystem: {}}')).toMatchObject({
      rows: [],
      storages: [{ root: '/var/lib/registry', remote: null }],
    });
  });

  test.each([
    ['layers elsewhere', 'storage: {s3: {bucket: b}}', /its layers are in s3/],
    ['a driver of another kind', 'storage: {plan9: {}}', /storage\.plan9 was not understood/],
    ['an unknown section', 'frobnicate: 1', /frobnicate was not understood/],
    ['a URL that is none', 'proxy: {remoteurl: "quay"}', /remoteurl is no http or https URL: quay/],
    ['a URL of a file', 'proxy: {remoteurl: "file:///etc/passwd"}', /remoteurl is no http or https URL: file:/],
    ['a URL that is a list', 'proxy: {remoteurl: ["https://quay.io"]}', /proxy\.remoteurl is no text/],
    [
      'a user name that is a list',
      'proxy: {remoteurl: "https://quay.io", username: [a]}',
      /proxy\.username is no text/,
    ],
    ['half of the credentials', 'proxy: {remoteurl: "https://quay.io", username: a}', /without the other/],
    ['certificates of clients', 'http: {tls: {clientcas: [a]}}', /certificates of clients/],
    ['webhooks', 'notifications: {endpoints: []}', /notifications has no counterpart/],
  ])('lists %s', (_, text, reason) => {
    expect(read(text).left.join('\n')).toMatch(reason);
  });
});

describe('what is added to a table', () => {
  const registry = (host: string, more: object = {}) => ({ ...newRegistry(host), ...more });
  const table = fromRows({ domain: 'cr.example.com' } as Parameters<typeof fromRows>[0], {
    registries: [
      registry('quay.io'),
      registry('gcr.io', { endpoints: ['https://mirror.example.com'] }),
      registry('ghcr.io', { credentials: { username: 'mine', password: 'x' } }),
      registry('*.pkg.dev', { endpoints: ['https://*.pkg.dev'] }),
    ],
    aliases: [{ name: 'quay', registry: 'quay.io', certificate: true }],
  });
  const credentials = { username: 'bot', password: 'pw' };
  const plan = (host: string, more: Partial<RegistryDeclaration> = {}, ...aliases: string[]) => {
    const { change, result } = planAdditions(
      [{ host, ...more, aliases: aliases.map((name) => ({ name, certificate: true })) }],
      table,
    );
    return { ...result, put: change.putRegistries ?? [], aliases: change.putAliases ?? [] };
  };

  test('a registry and aliases that are new', () => {
    const { put, aliases, leftOut } = plan(
      'nvcr.io',
      { endpoints: ['https://nvcr.io'] },
      'nvcr.cr.example.com',
      'nv.corp.example',
    );
    expect(put).toMatchObject([{ host: 'nvcr.io', endpoints: ['https://nvcr.io'] }]);
    expect(aliases.map(({ name }) => name)).toEqual(['nvcr', 'nv.corp.example']);
    expect(leftOut).toEqual([]);
  });

  test('nothing where it is there, under a pattern too', () => {
    for (const [host, alias] of [['quay.io', 'quay.cr.example.com'], ['x.pkg.dev'], ['quay.io:443']] as const) {
      const planned = plan(host, {}, ...(alias === undefined ? [] : [alias]));
      expect(planned, host).toMatchObject({ put: [], aliases: [], leftOut: [], differences: [] });
    }
  });

  test('credentials, where there are none', () => {
    const { put, differences } = plan('quay.io', { credentials, public: true });
    expect(put).toMatchObject([{ host: 'quay.io', endpoints: ['https://quay.io'], credentials, public: true }]);
    expect(differences.join()).toMatch(/with the credentials of bot, what they open is for all clients/);
    expect(differences.join()).not.toContain('pw');
  });

  test.each([
    [
      'other endpoints',
      () => plan('gcr.io', { endpoints: ['https://gcr.io'] }),
      /gcr\.io stays as it is, fetched from https:\/\/mirror\.example\.com/,
    ],
    ['other credentials', () => plan('ghcr.io', { credentials }), /keeps the credentials that it has, of mine/],
    ['an alias of another registry', () => plan('gcr.io', {}, 'quay'), /the alias quay stays with quay\.io/],
    ['a name that no alias can have', () => plan('gcr.io', {}, 'a.b.cr.example.com'), /more than one label/],
    ['the domain itself', () => plan('gcr.io', {}, 'cr.example.com'), /is the domain of this gateway itself/],
    ['a host that is none', () => plan('not a host'), /not a host/],
    ['an endpoint that is none', () => plan('new.example', { endpoints: ['ftp://x'] }), /does not start with https/],
  ])('never %s: the table stays, and it is listed', (_, planned, reason) => {
    const { put, aliases, leftOut } = planned();
    expect([put, aliases]).toEqual([[], []]);
    expect(leftOut.map(({ what }) => what).join('\n')).toMatch(reason);
    for (const { next } of leftOut) expect(next).not.toBe('');
  });

  test('a row with a fault keeps no others out', () => {
    const rows = [
      { host: 'not a host', aliases: [] },
      {
        host: 'nvcr.io',
        aliases: [
          { name: 'quay', certificate: true },
          { name: 'nv', certificate: true },
        ],
      },
    ];
    const { change, result } = planAdditions(rows, table);
    expect(change.putAliases?.map(({ name }) => name)).toEqual(['nv']);
    expect(result.leftOut).toHaveLength(2);
  });
});
