import { afterEach, describe, expect, it } from 'vitest';
import { type Dockerd, startDockerd } from '../support/dockerd.ts';
import { eventually } from '../support/eventually.ts';
import {
  type Content,
  FakeRegistry,
  type FakeRegistryOptions,
  generated,
  generatedLayer,
  QUIRKS,
} from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, sendWhole } from '../support/http-client.ts';
import { type Namespace, openNamespace } from '../support/namespace.ts';
import { describeWith } from '../support/programs.ts';
import { skopeoPull } from '../support/skopeo.ts';

const MIB = 1024 * 1024;

/** Cold pulls of the demonstration with resets; a long run asks for 100: GATEWAY_TEST_PULLS=100. The last of five is Docker's. */
const PULLS = Number(process.env.GATEWAY_TEST_PULLS ?? 3);

let gateway: TestGateway;
const cleanups: (() => Promise<void>)[] = [];
showLogOfFailures(() => gateway);

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function fakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start(options);
  cleanups.push(() => fake.close());
  return fake;
}

/** A gateway that knows the registry `bad.test` by these endpoints. */
async function gatewayTo(endpoints: readonly string[], config: Record<string, unknown> = {}): Promise<TestGateway> {
  gateway = await startGateway({ config });
  cleanups.push(() => gateway.close());
  await gateway.ok('registry', 'set', 'bad.test', ...endpoints.flatMap((url) => ['--endpoint', url]));
  return gateway;
}

const ca = () => caOf(gateway);
const blob = (content: Content) =>
  sendWhole({ port: gateway.httpsPort, path: `/v2/bad.test/library/app/blobs/${content.digest}`, ca: ca() });

async function arrives(content: Content) {
  const pulled = await blob(content);
  expect(pulled.status).toBe(200);
  expect(pulled.digest).toBe(content.digest);
  return pulled;
}

/** A generator of the same numbers in [0, 1) each time (Lehmer, MINSTD). */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

describeWith(
  ['linux', 'root', 'skopeo', 'dockerd', 'docker', 'unshare', 'nsenter', 'mount'],
  'an upstream that resets every connection after 1 to 8 MiB',
  () => {
    it(
      `shows no error to skopeo and docker in ${PULLS} pulls of 256 MiB`,
      async () => {
        const random = randomNumbers(1);
        const fake = await fakeRegistry({
          ...QUIRKS.docker,
          pullLimit: { limit: 10_000 },
          faults: ({ kind }) => (kind === 'cdn' ? { resetAfter: Math.round((1 + 7 * random()) * MIB) } : undefined),
        });
        const image = fake
          .repository('library/app')
          .addImage('latest', [generatedLayer(128 * MIB - 2048, 'a'), generatedLayer(128 * MIB - 2048, 'b')]);
        const expected = new Set([image.digest, image.config.digest, ...image.layers.map(({ digest }) => digest)]);
        await gatewayTo([fake.url]);
        const space: Namespace = await openNamespace({ hosts: {}, network: false });
        cleanups.push(() => space.close());
        const docker: Dockerd = await startDockerd({ within: space });
        cleanups.push(() => docker.close());
        const name = `localhost:${gateway.httpsPort}/bad.test/library/app`;

        for (let i = 0; i < PULLS; i++) {
          if (i % 5 === 4 || i === PULLS - 1) {
            const pulled = await docker.docker('pull', `${name}:latest`);
            expect(pulled.code, pulled.stderr).toBe(0);
            expect(pulled.stdout).toContain(`Digest: ${image.digest}`);
            await docker.docker('image', 'rm', '--force', `${name}:latest`);
          } else {
            const { ran, digests } = await skopeoPull({ image: `${name}:latest`, ca: ca() });
            expect(ran.code, ran.stderr).toBe(0);
            expect(digests).toEqual(expected);
          }
          expect(await gateway.ok('cache', 'prune', '--yes', '--json')).toContain('blobs');
        }
        // Each pull was cold, and went through dozens of resets.
        expect(fake.log.count({ kind: 'cdn' })).toBeGreaterThan(PULLS * 30);
      },
      120_000 * PULLS,
    );
  },
);

describe('an upstream that stalls for ever after 10 MiB on every other connection', () => {
  it('costs a pull one stall each, and only what had not come is asked for again', async () => {
    let connections = 0;
    const fake = await fakeRegistry({
      faults: ({ kind }) => (kind === 'blob' && connections++ % 2 === 0 ? { stallAfter: 10 * MIB } : undefined),
    });
    const contents = [generated(64 * MIB, 1), generated(64 * MIB, 2)];
    for (const content of contents) fake.repository('library/app').addBlob(content);
    // One connection: several would go around the stalls.
    await gatewayTo([fake.url], { upstream: { stallTimeout: '1500ms', connections: 1 } });
    for (const content of contents) {
      const before = fake.log.all.length;
      await arrives(content);
      const [stalled, resumed, ...others] = fake.log.all.slice(before).filter(({ kind }) => kind === 'blob');
      expect(stalled?.sent).toBe(10 * MIB);
      expect(resumed?.range?.from).toBeGreaterThan(8 * MIB);
      expect(others).toEqual([]);
    }
  });

  it('is not even noticed where several connections may be used', async () => {
    let connections = 0;
    const fake = await fakeRegistry({
      faults: ({ kind }) => (kind === 'blob' && connections++ % 2 === 0 ? { stallAfter: 10 * MIB } : undefined),
    });
    const content = generated(64 * MIB, 6);
    fake.repository('library/app').addBlob(content);
    // Longer than the test may take: a stall that is waited for fails it.
    await gatewayTo([fake.url], { upstream: { stallTimeout: '1h' } });
    await arrives(content);
  });
});

describe('a redirect whose signature expires after 1.5 s', () => {
  it('is asked for anew, and the pull completes', async () => {
    const fake = await fakeRegistry({
      redirect: { to: 'signed', lifetime: 1_500, status: 307 },
      bytesPerSecond: 8 * MIB,
      // The link breaks when the signature of its URL is long gone.
      faults: ({ kind }) => (kind === 'cdn' ? { resetAfter: 14 * MIB } : undefined),
    });
    const content = generated(48 * MIB, 5);
    fake.repository('library/app').addBlob(content);
    await gatewayTo([fake.url], { upstream: { connections: 1 } });
    await arrives(content);
    expect(fake.log.count({ kind: 'blob', status: 307 })).toBeGreaterThan(3);
    expect(fake.log.count({ kind: 'cdn', status: 403 })).toBe(0);
  });
});

describe('a first endpoint that fails', () => {
  it('refusing, with 500, with 429, without the image: the second serves, and the first again when it has recovered', async () => {
    const first = await FakeRegistry.start();
    const { port } = first;
    await first.close();
    const second = await fakeRegistry();
    const contents = Array.from({ length: 40 }, (_, i) => generated(100_000, `endpoint-${i}`));
    for (const content of contents) second.repository('library/app').addBlob(content);
    await gatewayTo([`http://127.0.0.1:${port}`, second.url]);
    let next = 0;
    const pull = async () => arrives(contents[next++ % contents.length] as Content);

    await pull();
    const back = await fakeRegistry({ port });
    for (const faults of [
      () => ({ status: 500 }),
      () => ({ status: 429, headers: { 'retry-after': '1' } }),
      () => ({ status: 404 }),
    ]) {
      back.faults = faults;
      const before = second.log.count({ kind: 'blob' });
      await pull();
      expect(second.log.count({ kind: 'blob' })).toBe(before + 1);
    }
    const shown = JSON.parse(await gateway.ok('registry', 'show', 'bad.test', '--json')) as Record<string, unknown>;
    expect(JSON.stringify(shown)).toContain(`127.0.0.1:${port}`);

    back.faults = () => undefined;
    for (const content of contents) back.repository('library/app').addBlob(content);
    await eventually('the first endpoint to serve again', async () => {
      await gateway.ok('cache', 'prune', '--yes');
      await pull();
      return back.log.count({ kind: 'blob', status: 200 }) > 0;
    });
  });
});

describe('SIGKILL at half of a download of 512 MiB', () => {
  it('costs only the other half after the start', async () => {
    const content = generated(512 * MIB, 7);
    const fake = await fakeRegistry({ bytesPerSecond: 64 * MIB });
    fake.repository('library/app').addBlob(content);
    // Computed once, before the clock runs.
    expect(content.digest).toMatch(/^sha256:/);
    await gatewayTo([fake.url]);
    const broken = blob(content).catch((error: Error) => error);
    await eventually('half of it to be fetched', () => fake.log.bytes({ kind: 'blob' }) > 256 * MIB);
    await gateway.kill();
    expect(await broken).toBeInstanceOf(Error);
    const before = fake.log.bytes({ kind: 'blob' });
    fake.log.clear();
    await gateway.start();
    await arrives(content);
    const after = fake.log.bytes({ kind: 'blob' });
    // Nothing that reached the disk is fetched again: what was in sockets and buffers at the kill is.
    expect(fake.log.of({ kind: 'blob' })[0]?.range?.from).toBeGreaterThan(200 * MIB);
    expect(before + after).toBeLessThan(content.size + 48 * MIB);
  });
});
