import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ReloadReport } from '../../src/admin/contract.ts';
import { eventually } from '../support/eventually.ts';
import { allServe, connected, everywhere, get, PROCESSES, statuses } from '../support/every-process.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { liveKeys } from '../support/live-keys.ts';
import { makeTestCa } from '../support/test-ca.ts';

// Each key that a running gateway takes, and what of it is seen from outside. Those of ACME are in reload-acme.test.ts.

const KIB = 1024;
const MIB = 1024 * KIB;
const folder = mkdtempSync(join(tmpdir(), 'reload-'));
const ca = makeTestCa();
let upstream: FakeRegistry;
let secure: FakeRegistry;
let gateway: TestGateway;

beforeAll(async () => {
  [upstream, secure] = await Promise.all([
    FakeRegistry.start(),
    FakeRegistry.start({ tls: ca.issue(['127.0.0.1', 'localhost']) }),
  ]);
  gateway = await startGateway({ config: { listen: { workers: PROCESSES }, cache: { tagTtl: 0 }, ...BASE } });
  await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
  await gateway.ok('registry', 'set', 'quay.io', '--endpoint', secure.url);
  await allServe(gateway);
});
afterAll(async () => {
  await gateway.close();
  await Promise.all([upstream.close(), secure.close()]);
  rmSync(folder, { recursive: true });
});
showLogOfFailures(() => gateway);

/** One connection for a blob, so that what is asked for twice was taken up again, and not helped. */
const BASE = { upstream: { connections: 1 } };

/** As it was at the start, with this laid over it; what the gateway says that has changed. */
async function reload(more: Readonly<Record<string, unknown>> = {}): Promise<string[]> {
  const listen = { https: `127.0.0.1:${gateway.httpsPort}`, http: `127.0.0.1:${gateway.httpPort}`, workers: PROCESSES };
  gateway.configure({ ...BASE, ...more, listen });
  const report = JSON.parse(await gateway.ok('reload', '--json')) as ReloadReport;
  expect(report.restart).toEqual([]);
  return report.changed.map(({ key }) => key);
}

let seed = 0;
/** Of content that nobody has asked for. */
function newBlob(size = 16 * KIB, registry = upstream): string {
  const { digest } = registry.repository('library/app').addBlob(generated(size, `reload ${++seed}`));
  return `/v2/${registry === upstream ? 'docker.io/library' : 'quay.io/library'}/app/blobs/${digest}`;
}
function newTag(): string {
  const tag = `t${++seed}`;
  upstream.repository('library/app').addImage(tag, [generated(KIB, tag)]);
  return `/v2/library/app/manifests/${tag}`;
}

const ping = async (headers: Record<string, string> = {}) =>
  statuses(await everywhere(gateway, '/v2/', { headers: { ...headers } }));
const cacheOf = async (path: string) => (await get(gateway, path)).headers['x-cache'];
/** Where it is asked for the second time. */
async function keeps(): Promise<boolean> {
  const path = newBlob();
  await get(gateway, path);
  return (await cacheOf(path)) === 'HIT';
}

/** What comes of a key is waited for; what does not come without it, for so long, ms. */
const patience = (wanted: boolean): number => (wanted ? 50_000 : 3_000);

async function comes(wanted: boolean, found: () => boolean): Promise<boolean> {
  for (const end = Date.now() + patience(wanted); !found() && Date.now() < end; )
    await new Promise((go) => setTimeout(go, 100));
  return found();
}

/** What is set; then what is seen with it, true, and without it, false. */
const CASES: Readonly<
  Record<string, readonly [set: Readonly<Record<string, unknown>>, seen: (wanted: boolean) => Promise<boolean>]>
> = {
  publicUrl: [
    { publicUrl: 'https://mirror.test:9999' },
    async () => {
      const host = { host: 'mirror.test' };
      const to = await fetch(`http://127.0.0.1:${gateway.httpPort}/x`, { redirect: 'manual' });
      const isTold = to.headers.get('location')?.endsWith(':9999/x') === true;
      expect(statuses(await everywhere(gateway, '/v2/', { headers: host }))).toEqual([isTold ? 200 : 404]);
      const shown = (await everywhere(gateway, '/client/podman')).map(({ text }) => text.includes('mirror.test:9999'));
      expect(new Set(shown)).toEqual(new Set([isTold]));
      return isTold;
    },
  ],
  trustedProxies: [
    { trustedProxies: ['127.0.0.0/8'], access: { deny: ['198.51.100.0/24'] } },
    async () => (await ping({ 'x-forwarded-for': '198.51.100.7' })).join() === '403',
  ],
  'access.anonymous': [{ access: { anonymous: false } }, async () => (await ping()).join() === '401'],
  'access.allow': [{ access: { allow: ['192.0.2.0/24'] } }, async () => (await ping()).join() === '403'],
  'access.deny': [{ access: { deny: ['127.0.0.0/8'] } }, async () => (await ping()).join() === '403'],
  'limits.requestsPerMinute': [{ limits: { requestsPerMinute: 1 } }, async () => (await ping()).includes(429)],
  'limits.bytesPerDay': [{ limits: { bytesPerDay: 1 } }, async () => (await get(gateway, newBlob())).status === 429],
  'limits.bytesPerMonth': [
    { limits: { bytesPerMonth: 1 } },
    async () => (await get(gateway, newBlob())).status === 429,
  ],
  'limits.connections': [
    { limits: { connections: 1 } },
    async () => {
      const path = newBlob();
      // So that all of them are open at a time.
      upstream.faults = () => ({ delay: 500 });
      const asked = await Promise.all(Array.from({ length: 8 }, () => get(gateway, path, { agent: false })));
      upstream.faults = () => undefined;
      return asked.some(({ status }) => status === 0);
    },
  ],
  'cache.maxSize': [{ cache: { maxSize: 0 } }, async () => !(await keeps())],
  'cache.minFree': [{ cache: { minFree: '1000TiB' } }, async () => !(await keeps())],
  'cache.tagTtl': [
    { cache: { tagTtl: '1h' } },
    async () => {
      const path = newTag();
      await get(gateway, path);
      const before = upstream.log.count({ kind: 'manifest' });
      await get(gateway, path);
      return upstream.log.count({ kind: 'manifest' }) === before;
    },
  ],
  'cache.staleFor': [
    { cache: { tagTtl: 0, staleFor: 0 } },
    async () => {
      const path = newTag();
      await get(gateway, path);
      upstream.faults = () => ({ status: 500 });
      const { status } = await get(gateway, path);
      upstream.faults = () => undefined;
      return status >= 500;
    },
  ],
  'cache.scrub': [
    { cache: { scrub: '1s' } },
    async (wanted) => {
      const path = newBlob();
      await get(gateway, path);
      const digest = path.slice(path.lastIndexOf('/') + 1);
      const hex = digest.slice('sha256:'.length);
      const blobs = join(gateway.dataDir, 'blobs');
      const find = () => readdirSync(blobs, { recursive: true, encoding: 'utf8' }).find((name) => name.endsWith(hex));
      await eventually('its file', () => find() !== undefined);
      writeFileSync(join(blobs, find() ?? ''), Buffer.alloc(16 * KIB));
      const found = () =>
        gateway.logLines().some((line) => line.msg !== 'request' && JSON.stringify(line).includes(digest));
      return await comes(wanted, found);
    },
  ],
  'cache.prefetch': [
    { cache: { tagTtl: 0, prefetch: 'manifest' } },
    async (wanted) => {
      const before = upstream.log.count({ kind: 'blob' });
      await get(gateway, newTag());
      return await comes(wanted, () => upstream.log.count({ kind: 'blob' }) > before);
    },
  ],
  'upstream.proxy': [
    { upstream: { proxy: 'http://127.0.0.1:1' } },
    async () => (await get(gateway, newBlob())).status === 502,
  ],
  'upstream.caFile': [
    { upstream: { caFile: join(folder, 'ca.pem') } },
    async () => (await get(gateway, newBlob(KIB, secure))).status === 200,
  ],
  'upstream.stallTimeout': [
    { upstream: { ...BASE.upstream, stallTimeout: '100ms' } },
    async (wanted) => {
      const path = newBlob(512 * KIB);
      upstream.faults = ({ kind, nth }) => (kind === 'blob' && nth === 0 ? { stallAfter: 64 * KIB } : undefined);
      const pulled = get(gateway, path);
      const reference = path.slice(path.lastIndexOf('/') + 1);
      const isTakenUp = () => upstream.log.count({ kind: 'blob', reference }) > 1;
      for (const end = Date.now() + patience(wanted); !isTakenUp() && Date.now() < end; ) {
        await new Promise((go) => setTimeout(go, 50));
      }
      const taken = isTakenUp();
      upstream.faults = () => undefined;
      upstream.cut();
      expect((await pulled).digest).toBe(reference);
      return taken;
    },
  ],
  'upstream.connections': [
    { upstream: { connections: 4 } },
    async () => {
      const path = newBlob(64 * MIB);
      const reference = path.slice(path.lastIndexOf('/') + 1);
      upstream.faults = () => ({ bytesPerSecond: MIB });
      const pulled = get(gateway, path);
      const requests = () => upstream.log.of({ kind: 'blob', reference });
      // One that could be helped by others has been by now.
      await eventually('others help', () => requests().length > 1 || (requests()[0]?.sent ?? 0) > 4 * MIB);
      const areSeveral = requests().length > 1;
      upstream.faults = () => undefined;
      upstream.cut();
      expect((await pulled).digest).toBe(reference);
      return areSeveral;
    },
  ],
  'policy.images': [
    { policy: { images: ['!docker.io/library/app'] } },
    async () => statuses(await everywhere(gateway, newBlob())).join() === '403',
  ],
  'policy.cooldown': [
    { policy: { cooldown: '1d' } },
    async () => statuses(await everywhere(gateway, newTag())).join() === '403',
  ],
  'policy.cooldownImages': [
    { policy: { cooldown: '1d', cooldownImages: ['!docker.io/library/app'] } },
    async () => {
      const tag = `t${++seed}`;
      upstream.repository('library/other').addImage(tag, [generated(KIB, tag)]);
      const excepted = statuses(await everywhere(gateway, newTag())).join();
      const others = statuses(await everywhere(gateway, `/v2/docker.io/library/other/manifests/${tag}`)).join();
      return excepted === '200' && others === '403';
    },
  ],
  'log.level': [
    { log: { level: 'warn' } },
    async () => {
      const path = `/quiet-${++seed}`;
      await fetch(`http://127.0.0.1:${gateway.httpPort}${path}`, { redirect: 'manual' });
      await reload({ log: { level: 'info' } });
      await everywhere(gateway, '/v2/');
      return !gateway.log().includes(path);
    },
  ],
  'log.format': [
    { log: { format: 'pretty' } },
    async () => {
      const path = `/words-${++seed}`;
      await Promise.all(Array.from({ length: 12 }, () => get(gateway, path)));
      const lines = () =>
        gateway
          .log()
          .split('\n')
          .filter((line) => line.includes(path));
      await eventually('a line for each', () => lines().length === 12);
      return lines().every((line) => /^\[\d\d:\d\d:\d\d\] GET {2}404 /.test(line));
    },
  ],
};

/** Seen by the tests named: by one that has a shared store, or two minutes of a real reader. */
const ELSEWHERE = {
  'cache.s3.maxSize': 'test/unit/cache/store-keeper.test.ts',
  'cache.s3.redirect': 'test/e2e/s3-store.test.ts',
  'limits.minRate': 'test/unit/edge/slow-readers.test.ts',
};

test('every key that takes effect at once has its case', () => {
  const named = [...Object.keys(CASES), ...Object.keys(ELSEWHERE)].sort();
  expect(named).toEqual(
    liveKeys()
      .filter((key) => !key.startsWith('acme.'))
      .sort(),
  );
});

test.each(Object.entries(CASES))('%s takes effect, and is taken back', async (key, [set, seen]) => {
  writeFileSync(join(folder, 'ca.pem'), ca.pem);
  await reload();
  expect(await seen(false), 'before').toBe(false);
  expect(await reload(set)).toContain(key);
  expect(await seen(true), 'with it').toBe(true);
  await reload();
});

test('what minFree kept out is kept as soon as it is allowed', async () => {
  await reload({ cache: { minFree: '1000TiB' } });
  expect(await keeps()).toBe(false);
  await reload();
  expect(await keeps()).toBe(true);
});

test('a file of authorities with other content is named', async () => {
  const file = join(folder, 'authorities.pem');
  writeFileSync(file, ca.pem);
  await reload({ upstream: { caFile: file } });
  expect(await reload({ upstream: { caFile: file } })).toEqual([]);
  writeFileSync(file, makeTestCa('another one').pem);
  expect(await reload({ upstream: { caFile: file } })).toEqual(['upstream.caFile']);
  expect(await CASES['upstream.caFile']?.[1](false), 'the one before is trusted').toBe(false);
  await reload();
});

test('pulls that run while everything is read again get their bytes', async () => {
  const paths = Array.from({ length: 6 }, () => newBlob(2 * MIB));
  upstream.faults = () => ({ bytesPerSecond: 2 * MIB });
  const agents = await connected(gateway);
  const pulls = Promise.all(agents.map((agent, n) => get(gateway, paths[n % 6] ?? '', { agent })));
  for (const set of [{ cache: { maxSize: 0 } }, { upstream: { connections: 1, stallTimeout: '1s' } }, {}]) {
    await reload(set);
    process.kill(gateway.pid(), 'SIGHUP');
  }
  const pulled = await pulls;
  upstream.faults = () => undefined;
  for (const agent of agents) agent.destroy();
  expect(pulled.map(({ digest }) => digest)).toEqual(agents.map((_, n) => paths[n % 6]?.split('/').at(-1)));
});
