import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { RegistryError } from '../../src/oci/errors.ts';
import type { Route } from '../../src/upstream/upstream.ts';
import { FakeRegistry, type FakeRegistryOptions, generated } from '../support/fake-registry/index.ts';
import { startGateway } from '../support/gateway.ts';
import { MemorySink } from '../support/memory-sink.ts';
import { httpProxy } from '../support/proxy-servers.ts';
import { makeTestCa } from '../support/test-ca.ts';
import { startUpstream } from '../support/upstream.ts';

// Certificates of private authorities: `--ca` of one registry, upstream.caFile, the machine's store; and the words where none knows them.

const signal = new AbortController().signal;
const KEY = { registry: 'r.test', repository: 'library/app' };
const LAYER = generated(100_000, 5);
const ca = makeTestCa('Corp Root');
const other = makeTestCa('Another Root');
const tls = ca.issue(['localhost', '127.0.0.1']);
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function fakeOf(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start({ tls, ...options });
  cleanups.push(() => fake.close());
  fake.repository('library/app').addImage('latest', [LAYER]);
  return fake;
}

const named = (fake: FakeRegistry) => `https://localhost:${fake.port}`;

function file(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'authorities-'));
  cleanups.push(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'ca.pem'), text);
  return join(folder, 'ca.pem');
}

async function pull(route: Partial<Route> & { endpoints: readonly string[] }, options: { caFile?: string } = {}) {
  const upstream = startUpstream({ 'r.test': route }, options);
  cleanups.push(() => upstream.close());
  const reference = { kind: 'tag', tag: 'latest' } as const;
  try {
    await upstream.manifest(KEY, reference, { method: 'GET', accept: undefined, signal });
    const sink = new MemorySink();
    await upstream.download({ ...KEY, digest: LAYER.digest }, sink, signal);
    return sink.digest === LAYER.digest ? 'served' : 'wrong';
  } catch (error) {
    const { kind, message, next } = error as RegistryError;
    return `${kind}: ${message}; ${next}`;
  }
}

describe('an authority of a registry', () => {
  it('is not trusted unless it is named; the error says how', async () => {
    const endpoints = [named(await fakeOf())];
    const told = await pull({ endpoints });
    expect(told).toContain('upstreamFailed');
    expect(told).toContain('signed by an authority that this machine does not trust');
    for (const way of ['registry set r.test --ca FILE', 'upstream.caFile', "store of the gateway's machine"])
      expect(told).toContain(way);
    expect(await pull({ endpoints, ca: other.pem })).toContain('--ca FILE');
    expect(await pull({ endpoints, ca: ca.pem })).toBe('served');
    expect(await pull({ endpoints, ca: other.pem + ca.pem })).toBe('served');
  });

  it('is that of all registries by upstream.caFile, beside that of one', async () => {
    const endpoints = [named(await fakeOf())];
    expect(await pull({ endpoints }, { caFile: file(ca.pem) })).toBe('served');
    expect(await pull({ endpoints, ca: other.pem }, { caFile: file(ca.pem) })).toBe('served');
    expect(() => startUpstream({}, { caFile: file('nothing') })).toThrow(/no certificate/);
    expect(() => startUpstream({}, { caFile: tmpdir() })).toThrow(`the file ${tmpdir()} cannot be read: EISDIR`);
  });

  it('may be one that another has signed, without its root', async () => {
    const issuing = other.intermediate('Issuing');
    const endpoints = [named(await fakeOf({ tls: issuing.issue(['localhost']) }))];
    expect(await pull({ endpoints, ca: ca.pem })).toContain('--ca FILE');
    expect(await pull({ endpoints, ca: issuing.pem })).toBe('served');
    expect(await pull({ endpoints }, { caFile: file(issuing.pem) })).toBe('served');
  });

  it('vouches for no proxy; upstream.caFile does', async () => {
    const fake = await FakeRegistry.start();
    cleanups.push(() => fake.close());
    fake.repository('library/app').addImage('latest', [LAYER]);
    const proxy = await httpProxy({ names: { 'registry.test': fake.host }, tls });
    cleanups.push(() => proxy.close());
    const route = { endpoints: ['http://registry.test'], proxy: `https://localhost:${proxy.port}` };
    const told = await pull({ ...route, ca: ca.pem });
    expect(told).toContain('the proxy on the way to it failed');
    expect(told).toContain('upstream.caFile');
    expect(told).not.toContain('--ca');
    expect(await pull(route, { caFile: file(ca.pem) })).toBe('served');
  });

  it('vouches for its own hosts alone: for tokens there, and not where a redirect leads out', async () => {
    const fake = await fakeOf({ auth: { scheme: 'bearer' } });
    expect(await pull({ endpoints: [named(fake)], ca: ca.pem })).toBe('served');
    // 127.0.0.2 is another host, and no name that the credentials may go to.
    const away = ca.issue(['localhost', '127.0.0.2']);
    const cdn = await fakeOf({ tls: away, host: '127.0.0.2' });
    const leading = await fakeOf({
      redirect: { to: (digest) => `https://127.0.0.2:${cdn.port}/v2/library/app/blobs/${digest}` },
    });
    const route = { endpoints: [named(leading)], ca: ca.pem };
    expect(await pull(route)).toContain('the host that it redirects to cannot be connected to');
    expect(await pull({ ...route, realms: ['127.0.0.2'] })).toBe('served');
  });

  it('mends no certificate that has expired or is for another host', async () => {
    const expired = await fakeOf({ tls: ca.issue(['localhost'], -1) });
    const told = await pull({ endpoints: [named(expired)], ca: ca.pem });
    expect(told).toContain('its certificate has expired');
    expect(told).not.toContain('--ca');
    const elsewhere = await fakeOf({ tls: ca.issue(['other.test']) });
    const wrong = await pull({ endpoints: [named(elsewhere)], ca: ca.pem });
    expect(wrong).toContain('its certificate is for another name');
    expect(wrong).not.toContain('--ca');
  });

  it('is that of the machine: its store is read where Node does not know the issuer', async () => {
    const fake = await fakeOf();
    const gateway = await startGateway({
      env: { ...process.env, SSL_CERT_FILE: file(ca.pem) },
      config: { tls: { mode: 'off' }, listen: { https: 'off' } },
    });
    cleanups.push(() => gateway.close());
    await gateway.ok('registry', 'set', 'r.test', '--endpoint', named(fake));
    // Several at once: each finds out that the store is needed while another has it read.
    const asked = ['manifests/latest', 'tags/list', `blobs/${LAYER.digest}`].map(async (what) => {
      const answer = await fetch(`http://127.0.0.1:${gateway.httpPort}/v2/r.test/library/app/${what}`);
      await answer.bytes();
      return answer.status;
    });
    expect(await Promise.all(asked)).toEqual([200, 200, 200]);
  });
});

describe('registry set --ca', () => {
  it('keeps the certificates alone, shows them, serves with them, and takes them away', async () => {
    const fake = await fakeOf();
    const gateway = await startGateway({ config: { tls: { mode: 'off' }, listen: { https: 'off' } } });
    cleanups.push(() => gateway.close());
    const ask = async () =>
      (await fetch(`http://127.0.0.1:${gateway.httpPort}/v2/r.test/library/app/manifests/latest`)).status;
    await gateway.ok('registry', 'set', 'r.test', '--endpoint', named(fake));
    expect(await ask()).toBe(502);
    await gateway.ok('registry', 'set', 'r.test', '--ca', file(`a note\n${ca.pem}${tls.key}`));
    expect(await ask()).toBe(200);
    expect(await gateway.ok('registry', 'show', 'r.test')).toContain('CN=Corp Root');
    const exported = await gateway.ok('alias', 'export');
    expect(exported).toContain('BEGIN CERTIFICATE');
    expect(exported).not.toContain('PRIVATE KEY');
    await gateway.ok('registry', 'set', 'r.test', '--ca', 'none');
    expect(await gateway.ok('registry', 'show', 'r.test')).toContain('those that this machine trusts');
    await gateway.ok('alias', 'import', file(exported));
    expect(await gateway.ok('registry', 'show', 'r.test')).toContain('CN=Corp Root');
    const refused = await gateway.cli(['registry', 'set', 'r.test', '--ca', file('x')]);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('no certificate in PEM')]);
  });
});
