import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import type { TagHistory } from '../../src/admin/contract.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { prepareGateway, showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, type Received, send } from '../support/http-client.ts';

// A whole gateway of two processes, with a cooldown that a test can wait for.

const COOLDOWN = 3_000;
const TAG = '/v2/docker.io/library/app/manifests/1';
let upstream: FakeRegistry;
let gateway: TestGateway;
let ca: string;

beforeAll(async () => {
  upstream = await FakeRegistry.start();
  gateway = await startGateway({
    config: { listen: { workers: 2 }, cache: { tagTtl: '100ms' }, policy: { cooldown: `${COOLDOWN}ms` } },
  });
  await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
  ca = caOf(gateway);
});
afterAll(async () => {
  await gateway?.close();
  await upstream?.close();
});
showLogOfFailures(() => gateway);

const get = (path: string): Promise<Received> => send({ port: gateway.httpsPort, path, ca, keep: true, agent: false });
const history = async (image: string): Promise<TagHistory> =>
  JSON.parse(await gateway.ok('tag', 'history', image, '--json')) as TagHistory;

test('a tag passes once it is old enough, and what it moves to once that is, over a restart too', async () => {
  const repository = upstream.repository('library/app');
  const old = repository.addImage('1', [generated(50_000, 'old')]);
  const asked = performance.now();
  const first = await get(TAG);
  expect([first.status, first.text]).toEqual([403, expect.stringContaining('too young')]);
  const { detail } = (JSON.parse(first.text) as { errors: [{ detail: Record<string, string> }] }).errors[0];
  expect(Date.parse(detail.passesFrom ?? '') - Date.parse(detail.firstSeen ?? '')).toBe(COOLDOWN);
  await eventually('the image is old enough', async () => (await get(TAG)).status === 200);
  expect(performance.now() - asked).toBeGreaterThanOrEqual(COOLDOWN);
  for (const { digest } of [old.config, ...old.layers]) {
    const blob = await get(`/v2/docker.io/library/app/blobs/${digest}`);
    expect([blob.status, blob.digest]).toEqual([200, digest]);
  }

  // On a machine that is busy enough an image gets old before anybody looks: then another one comes.
  let before = old.digest;
  let moved = old;
  let warned = false;
  for (let nth = 0; !warned; nth++) {
    moved = repository.addImage('1', [generated(50_000, `new ${nth}`)]);
    const since = performance.now();
    await eventually('the new image is old enough', async () => {
      const reply = await get(TAG);
      expect(reply.status).toBe(200);
      if (reply.digest === moved.digest) return true;
      expect(reply.digest).toBe(before);
      if (!String(reply.headers.warning ?? '').includes(moved.digest)) return false;
      warned = true;
      if (nth > 0) return false;
      // What it waits for, it waits for over a restart.
      nth = 1;
      await gateway.stop();
      // At rest its history is there as well.
      const { spans } = await history('docker.io/library/app:1');
      expect(spans.map(({ digest }) => digest)).toEqual([moved.digest, old.digest]);
      await gateway.start();
      return false;
    });
    expect(performance.now() - since).toBeGreaterThanOrEqual(COOLDOWN);
    before = moved.digest;
  }
  const [layer] = moved.layers;
  expect((await get(`/v2/docker.io/library/app/blobs/${layer?.digest}`)).status).toBe(200);
});

test('tag history says what a tag stood for, and what the tags of a repository stand for', async () => {
  const repository = upstream.repository('library/seen');
  const image = repository.addImage('1', ['one']);
  repository.tags.set('2', image.digest);
  for (const tag of ['1', '2']) expect((await get(`/v2/docker.io/library/seen/manifests/${tag}`)).status).toBe(403);
  const { image: name, spans } = await history('library/seen:1');
  expect(name).toBe('docker.io/library/seen:1');
  expect(spans).toMatchObject([{ tag: '1', digest: image.digest }]);
  const [{ from, firstSeen, passesFrom } = { from: '', firstSeen: null, passesFrom: null }] = spans;
  expect(Date.parse(firstSeen ?? '')).toBeLessThanOrEqual(Date.parse(from));
  expect(Date.parse(passesFrom ?? '') - Date.parse(firstSeen ?? '')).toBe(COOLDOWN);
  expect((await history('library/seen')).spans.map(({ tag }) => tag).toSorted()).toEqual(['1', '2']);
  const shown = await gateway.ok('tag', 'history', 'library/seen');
  expect(shown).toMatch(/^TAG +DIGEST +FROM +LAST SEEN +PASSES\n/);
  expect(shown).toContain(image.digest);
  expect(await gateway.ok('tag', 'history', 'library/none')).toMatch(
    /^nothing was seen of docker\.io\/library\/none yet/,
  );
  const refused = await gateway.cli(['tag', 'history', `library/seen@${image.digest}`]);
  expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('names a digest')]);
});

test('a drill knows what a pull would teach, where a cooldown was set after images were pulled', async () => {
  const later = await prepareGateway();
  onTestFinished(() => later.close());
  await later.start();
  await later.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
  const image = upstream.repository('library/later').addImage('1', [generated(50_000, 'later')]);
  const from = caOf(later);
  const pull = (path: string): Promise<Received> =>
    send({ port: later.httpsPort, path: `/v2/docker.io/library/later/${path}`, ca: from, keep: true, agent: false });
  for (const path of ['manifests/1', ...[image.config, ...image.layers].map(({ digest }) => `blobs/${digest}`)])
    expect((await pull(path)).status).toBe(200);
  await later.stop();
  later.configure({ policy: { cooldown: '1s' } });
  await setTimeout(1_100);
  expect((await later.cli(['drill'])).stdout).toContain('1 of 1 images could be pulled');
  await later.start();
  await later.ok('registry', 'set', 'docker.io', '--endpoint', 'http://127.0.0.1:9');
  for (let nth = 0; nth < 2; nth++)
    expect((await later.cli(['drill'])).stdout).toContain('1 of 1 images could be pulled');
  // What a drill was given taught the gateway nothing, and a pull does.
  const [layer] = image.layers;
  expect((await pull(`blobs/${layer?.digest}`)).status).toBe(403);
  for (const path of ['manifests/1', `blobs/${layer?.digest}`]) expect((await pull(path)).status).toBe(200);
});
