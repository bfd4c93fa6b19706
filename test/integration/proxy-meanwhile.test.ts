import { afterEach, describe, expect, test } from 'vitest';
import { OCI_MANIFEST } from '../../src/oci/media-types.ts';
import type { Upstream } from '../../src/upstream/upstream.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { RegistryBed, refusalOf } from '../support/registry-bed.ts';

// What is decided when an answer comes must hold then, and not only when the request was sent.

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const USER = { username: 'operator', password: 'secret' };
const REFUSED = /^upstream(Unauthorized|Denied)$/;

async function startFake(isPrivate = false): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start(
    isPrivate ? { auth: { scheme: 'bearer', private: true, users: { operator: 'secret' } } } : {},
  );
  closers.push(() => fake.close());
  return fake;
}

async function startBed(options: Parameters<typeof RegistryBed.start>[0]): Promise<RegistryBed> {
  const bed = await RegistryBed.start(options);
  closers.push(() => bed.stop());
  return bed;
}

/** Holds back one kind of call to the upstream, once: what it answered comes when the test lets it. */
function gate<N extends 'statBlob' | 'manifest' | 'download'>(
  name: N,
  when: (...args: Parameters<Upstream[N]>) => boolean,
) {
  const reached = Promise.withResolvers<void>();
  const open = Promise.withResolvers<void>();
  let isClosed = true;
  const wrapUpstream = (upstream: Upstream): Upstream => {
    const call = upstream[name].bind(upstream) as (...args: unknown[]) => Promise<unknown>;
    const held = async (...args: Parameters<Upstream[N]>) => {
      if (!isClosed || !when(...args)) return await call(...args);
      isClosed = false;
      // A download begins only then, everything else has been answered by then.
      const answer = name === 'download' ? null : call(...args).catch((error: unknown) => ({ error }));
      await answer;
      reached.resolve();
      await open.promise;
      const answered = await (answer ?? call(...args));
      if (typeof answered === 'object' && answered !== null && 'error' in answered) throw answered.error;
      return answered;
    };
    return new Proxy(upstream, {
      get: (target, key) => {
        const value: unknown = key === name ? held : Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  };
  return { wrapUpstream, reached: reached.promise, open: open.resolve };
}

describe('a repository that is closed while it is asked', () => {
  test('is not opened again by the HEAD of a blob that was answered before', async () => {
    const fake = await startFake();
    const held = gate('statBlob', ({ repository }) => repository === 'org/app');
    const bed = await startBed({ registries: { 'docker.io': { fake } }, wrapUpstream: held.wrapUpstream });
    const layer = fake.repository('org/other').addBlob(generated(5_000));
    fake.repository('org/app').addBlob(layer);
    fake.repository('org/app').addImage('1', ['other']);
    await bed.blob('docker.io', 'org/other', layer.digest);
    await eventually('the layer is kept', () => bed.rig.index.blob(layer.digest) !== null);
    await bed.manifest('docker.io', 'org/app', '1');
    const asked = refusalOf(bed.blob('docker.io', 'org/app', layer.digest));
    await held.reached;
    fake.faults = ({ repository }) => (repository === 'org/app' ? { status: 403 } : undefined);
    expect(await refusalOf(bed.manifest('docker.io', 'org/app', 'absent'))).toBe('upstreamDenied');
    held.open();
    expect(await asked).toMatch(REFUSED);
    expect(await refusalOf(bed.blob('docker.io', 'org/app', layer.digest))).toMatch(REFUSED);
  });

  test.each(['HEAD', 'GET'] as const)(
    'is not opened again by the %s of a manifest that was answered before',
    async (method) => {
      const fake = await startFake();
      const held = gate('manifest', ({ repository }, reference) => repository === 'org/app' && 'digest' in reference);
      const bed = await startBed({ registries: { 'docker.io': { fake } }, wrapUpstream: held.wrapUpstream });
      const image = fake.repository('org/other').addImage('1', ['layer']);
      fake.repository('org/app').addImage('1', ['layer']);
      fake.repository('org/app').addImage('2', ['another']);
      await bed.manifest('docker.io', 'org/other', '1');
      await bed.manifest('docker.io', 'org/app', '2');
      const asked = refusalOf(bed.manifest('docker.io', 'org/app', image.digest, { method }));
      await held.reached;
      fake.faults = ({ repository }) => (repository === 'org/app' ? { status: 403 } : undefined);
      expect(await refusalOf(bed.manifest('docker.io', 'org/app', 'absent'))).toBe('upstreamDenied');
      held.open();
      await asked;
      expect(await refusalOf(bed.manifest('docker.io', 'org/app', image.digest, { method }))).toMatch(REFUSED);
    },
  );

  test('is not served stale to those who waited', async () => {
    const fake = await startFake();
    let failing = false;
    const held = gate('manifest', (_, reference) => failing && 'tag' in reference && reference.tag === '1');
    const bed = await startBed({ registries: { 'docker.io': { fake } }, wrapUpstream: held.wrapUpstream });
    fake.repository('org/app').addImage('1', ['layer']);
    await bed.manifest('docker.io', 'org/app', '1');
    bed.clock += 61_000;
    failing = true;
    fake.faults = () => ({ status: 500 });
    const asked = refusalOf(bed.manifest('docker.io', 'org/app', '1'));
    await held.reached;
    fake.faults = () => ({ status: 403 });
    expect(await refusalOf(bed.manifest('docker.io', 'org/app', '2'))).toBe('upstreamDenied');
    held.open();
    expect(await asked).toBe('upstreamFailed');
  });
});

describe('a registry whose credentials', () => {
  test('come while a blob is being fetched has not given it to everybody', async () => {
    const [closed, hostile] = [await startFake(true), await startFake()];
    const held = gate('download', ({ registry }) => registry === 'private.example');
    const registries = { 'private.example': { fake: closed }, 'evil.example': { fake: hostile } };
    const bed = await startBed({ registries, wrapUpstream: held.wrapUpstream });
    const layer = closed.repository('org/secret').addBlob(generated(5_000, 'secret'));
    const asked = bed.blob('private.example', 'org/secret', layer.digest);
    await held.reached;
    bed.put('private.example', { fake: closed, credentials: USER });
    held.open();
    await asked.catch(() => {});
    await bed.blob('private.example', 'org/secret', layer.digest, { authenticated: true });
    await eventually('the layer is kept', () => bed.rig.index.blob(layer.digest) !== null);
    hostile.faults = ({ method }) =>
      method === 'HEAD' ? { status: 200, headers: { 'content-length': String(layer.size) } } : { status: 404 };
    expect(await refusalOf(bed.blob('evil.example', 'any/app', layer.digest))).toBe('blobUnknown');
  });

  test.each(['manifest by tag', 'manifest by digest', 'HEAD of a blob'])(
    'are used for the answer to one client (%s) do not answer another who came when they were gone',
    async (what) => {
      const [closed, other] = [await startFake(true), await startFake()];
      const held = gate(what === 'HEAD of a blob' ? 'statBlob' : 'manifest', () => true);
      const registries = { 'private.example': { fake: closed, credentials: USER } };
      const bed = await startBed({ registries, wrapUpstream: held.wrapUpstream });
      const image = closed.repository('org/secret').addImage('1', ['secret']);
      const ask = (authenticated: boolean) => {
        const layer = image.layers[0]?.digest ?? '';
        if (what === 'HEAD of a blob')
          return bed.blob('private.example', 'org/secret', layer, { authenticated, method: 'HEAD' });
        return bed.manifest('private.example', 'org/secret', what.endsWith('tag') ? '1' : image.digest, {
          authenticated,
        });
      };
      const first = ask(true);
      await held.reached;
      bed.put('private.example', { fake: other });
      const second = refusalOf(ask(false));
      held.open();
      await first;
      expect(await second).toMatch(/Unknown$/);
    },
  );

  test.each(['is still growing', 'was left half-fetched'])(
    'opened a blob that %s does not give it to others once they are gone',
    async (how) => {
      const [closed, other] = [await startFake(true), await startFake()];
      const first = await startBed({ registries: { 'private.example': { fake: closed, credentials: USER } } });
      const layer = closed.repository('org/secret').addBlob(generated(9_000_000, 'secret'));
      const range = 'bytes=0-99';
      const asked = { range, authenticated: true };
      expect((await first.blob('private.example', 'org/secret', layer.digest, asked)).body.length).toBe(100);
      // A repository of the same host that needs no credentials names it.
      const descriptor = { mediaType: 'application/octet-stream', digest: layer.digest, size: layer.size };
      other.repository('evil/app').addManifest({ schemaVersion: 2, layers: [descriptor] }, OCI_MANIFEST, '1');
      let bed = first;
      if (how === 'is still growing') bed.put('private.example', { fake: other });
      else {
        const { index, dataDir } = first.rig;
        await first.rig.cache.close();
        bed = await startBed({ registries: { 'private.example': { fake: other } }, cache: { index, dataDir } });
      }
      await bed.manifest('private.example', 'evil/app', '1');
      expect(await refusalOf(bed.blob('private.example', 'evil/app', layer.digest, { range }))).toBe('blobUnknown');
    },
  );
});
