import { afterEach, describe, expect, test } from 'vitest';
import type { NamedCredentials } from '../../src/oci/credentials.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, type FakeRegistryOptions, generated, sha256 } from '../support/fake-registry/index.ts';
import { type BedOptions, RegistryBed, refusalOf } from '../support/registry-bed.ts';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const REFUSED = /^(upstreamUnauthorized|upstreamDenied|blobUnknown)$/;
const HOST = 'docker.io';
const USERS = { alice: 'secret of alice', bob: 'secret of bob', ops: 'secret of ops' };

const ALICE: NamedCredentials = { name: 'a', id: 11, for: ['team-a/*'], username: 'alice', password: USERS.alice };
const BOB: NamedCredentials = { name: 'b', id: 12, for: ['team-b/*'], username: 'bob', password: USERS.bob };
const OPS = { username: 'ops', password: USERS.ops };
const USER = { authenticated: true };

/** One registry with private repositories of two owners, each opened by that owner's account alone, and public ones. */
async function startFake(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const repositories = ['team-a/app', 'team-a/tool', 'team-b/app', 'team-b/tool'];
  const owners = { 'team-a': 'alice', 'team-b': 'bob' };
  const fake = await FakeRegistry.start({
    auth: { scheme: 'bearer', private: repositories, owners, users: USERS },
    ...options,
  });
  closers.push(() => fake.close());
  return fake;
}

async function startBed(
  fake: FakeRegistry,
  more: Partial<BedOptions> = {},
  named = [ALICE, BOB],
): Promise<RegistryBed> {
  const bed = await RegistryBed.start({ registries: { [HOST]: { fake, named } }, ...more });
  closers.push(() => bed.stop());
  return bed;
}

const descriptorOf = ({ digest, size }: { digest: string; size: number }) => ({
  mediaType: 'application/octet-stream',
  digest,
  size,
});

/** Which accounts asked for tokens, in order, each once. */
function accounts(fake: FakeRegistry): string[] {
  return [
    ...new Set(fake.log.of({ kind: 'token' }).map(({ query }) => new URLSearchParams(query).get('account') ?? '-')),
  ];
}

describe('private repositories of two owners at one registry', () => {
  test('are each opened by their own account, public ones by none, and what opened one is no token of the other', async () => {
    const fake = await startFake();
    const bed = await startBed(fake);
    const layers = ['team-a/app', 'team-b/app', 'library/app'].map((name) => {
      const layer = generated(70_000, name);
      fake.repository(name).addImage('1', [layer], { label: name });
      return [name, layer.digest] as const;
    });
    for (let round = 0; round < 2; round++) {
      for (const [name, digest] of layers) {
        const answered = await bed.manifest(HOST, name, '1', USER);
        expect([name, answered.status]).toEqual([name, 200]);
        expect(sha256((await bed.blob(HOST, name, digest, USER)).body)).toBe(digest);
      }
      bed.clock += 61_000;
    }
    expect(accounts(fake)).toEqual(['alice', 'bob', '-']);
    // Each token was asked for in the name of the owner of its repository alone.
    for (const { query } of fake.log.of({ kind: 'token' })) {
      const [account, scope] = [
        new URLSearchParams(query).get('account'),
        new URLSearchParams(query).get('scope') ?? '',
      ];
      const owner = scope.includes('team-a/') ? 'alice' : scope.includes('team-b/') ? 'bob' : null;
      expect([scope, account]).toEqual([scope, owner]);
    }
  });

  test('are for logged-in clients; the rest of the registry stays open to all', async () => {
    const fake = await startFake();
    const bed = await startBed(fake);
    fake.repository('team-a/app').addImage('1', ['private']);
    fake.repository('library/app').addImage('1', ['open']);
    expect(await refusalOf(bed.manifest(HOST, 'team-a/app', '1'))).toBe('privateContent');
    expect((await bed.manifest(HOST, 'library/app', '1')).status).toBe(200);
    expect((await bed.manifest(HOST, 'team-a/app', '1', USER)).status).toBe(200);
    expect(await refusalOf(bed.manifest(HOST, 'team-a/app', '1'))).toBe('privateContent');
  });

  test.each(['GET', 'HEAD', 'a range', 'while it grows', 'half of it'] as const)(
    "a layer that one owner's manifest names, and the other's account opened, is not given (%s)",
    async (how) => {
      const fake = await startFake();
      const bed = await startBed(fake);
      const secret = fake
        .repository('team-a/app')
        .addBlob(generated(how === 'GET' ? 90_000 : 9_000_000, 'secret of a'));
      // The other owner writes a manifest that names it, and their registry takes that.
      fake
        .repository('team-b/app')
        .addManifest(
          { schemaVersion: 2, mediaType: OCI_MANIFEST, layers: [descriptorOf(secret)] },
          OCI_MANIFEST,
          'steal',
        );
      const range = 'bytes=0-99';
      if (how === 'half of it' || how === 'while it grows') {
        const first = await bed.blob(HOST, 'team-a/app', secret.digest, { ...USER, range });
        expect(first.body.length).toBe(100);
      } else {
        await bed.blob(HOST, 'team-a/app', secret.digest, USER);
        await eventually('the layer is kept', () => bed.rig.index.blob(secret.digest) !== null);
      }
      await bed.manifest(HOST, 'team-b/app', 'steal', USER);
      const ask = { ...USER, ...(how === 'HEAD' ? { method: 'HEAD' as const } : how === 'GET' ? {} : { range }) };
      // To HEAD the manifest's own word is enough, which gives nothing away.
      for (const name of [...(how === 'HEAD' ? [] : ['team-b/app']), 'team-b/tool', 'library/app']) {
        expect([name, await refusalOf(bed.blob(HOST, name, secret.digest, ask))]).toEqual([
          name,
          expect.stringMatching(REFUSED),
        ]);
      }
      // The owner's other repository has shown nothing; its own has it still.
      expect(await refusalOf(bed.blob(HOST, 'team-a/tool', secret.digest, ask))).toMatch(REFUSED);
      expect((await bed.blob(HOST, 'team-a/app', secret.digest, { ...USER, range })).body.length).toBe(100);
    },
  );

  test('a manifest that one account opened is not given by its digest through a repository of the other', async () => {
    const fake = await startFake();
    const bed = await startBed(fake);
    const image = fake.repository('team-a/app').addImage('1', ['secret']);
    await bed.manifest(HOST, 'team-a/app', '1', USER);
    // An index of the other owner names it.
    const index = {
      schemaVersion: 2,
      manifests: [{ ...descriptorOf({ digest: image.digest, size: image.body.length }), mediaType: OCI_MANIFEST }],
    };
    fake.repository('team-b/app').addManifest(index, 'application/vnd.oci.image.index.v1+json', 'steal');
    await bed.manifest(HOST, 'team-b/app', 'steal', USER);
    for (const method of ['GET', 'HEAD'] as const) {
      expect(await refusalOf(bed.manifest(HOST, 'team-b/app', image.digest, { ...USER, method }))).toBe(
        'manifestUnknown',
      );
    }
    expect((await bed.manifest(HOST, 'team-a/app', image.digest, USER)).body).toEqual(image.body);
  });

  test('what both accounts opened is kept once, and given to both', async () => {
    const fake = await startFake();
    const bed = await startBed(fake);
    const layer = generated(90_000, 'shared');
    for (const name of ['team-a/app', 'team-b/app']) fake.repository(name).addImage('1', [layer], { label: name });
    for (const name of ['team-a/app', 'team-b/app']) {
      await bed.manifest(HOST, name, '1', USER);
      expect(sha256((await bed.blob(HOST, name, layer.digest, USER)).body)).toBe(layer.digest);
      await eventually('the layer is kept', () => bed.rig.index.blob(layer.digest) !== null);
    }
    const before = fake.log.count({ kind: 'blob' });
    for (const name of ['team-a/app', 'team-b/app']) {
      expect((await bed.blob(HOST, name, layer.digest, USER)).from).toBe('cache');
    }
    expect(fake.log.count({ kind: 'blob' })).toBe(before);
  });

  test('--public opens to all what any account opened', async () => {
    const fake = await startFake();
    const bed = await RegistryBed.start({ registries: { [HOST]: { fake, named: [ALICE, BOB], public: true } } });
    closers.push(() => bed.stop());
    const layer = generated(90_000, 'open by the operator');
    fake.repository('team-a/app').addImage('1', [layer]);
    fake.repository('team-b/app').addManifest({ schemaVersion: 2, layers: [descriptorOf(layer)] }, OCI_MANIFEST, '1');
    await bed.manifest(HOST, 'team-a/app', '1');
    await bed.blob(HOST, 'team-a/app', layer.digest);
    await eventually('the layer is kept', () => bed.rig.index.blob(layer.digest) !== null);
    await bed.manifest(HOST, 'team-b/app', '1');
    expect((await bed.blob(HOST, 'team-b/app', layer.digest)).from).toBe('cache');
  });

  test('no password of either account is in what a client is told', async () => {
    const fake = await startFake({
      auth: { scheme: 'basic', users: { nobody: 'x' } },
      faults: () => ({
        status: 403,
        body: JSON.stringify({
          errors: [
            {
              code: 'DENIED',
              message: `not with ${USERS.alice} nor ${USERS.bob} nor ${encodeURIComponent(USERS.bob)}`,
            },
          ],
        }),
      }),
    } as FakeRegistryOptions);
    const bed = await startBed(fake);
    const error = await bed.manifest(HOST, 'team-a/app', '1', USER).catch((reason: unknown) => reason);
    if (!(error instanceof RegistryError)) throw new Error('it was not refused');
    const { cause: _, ...told } = error.options;
    expect(told.says?.message).toBe('not with *** nor *** nor ***');
    expect(JSON.stringify([told, error.message, error.logged])).not.toMatch(/secret( |%20|\+)of/);
  });
});

describe('credentials that change', () => {
  test('a new password of the same account keeps what it opened', async () => {
    const fake = await startFake();
    const bed = await startBed(fake);
    const image = fake.repository('team-a/app').addImage('1', ['secret']);
    await bed.manifest(HOST, 'team-a/app', '1', USER);
    bed.put(HOST, { fake, named: [{ ...ALICE, password: 'another' }, BOB] });
    const before = fake.log.all.length;
    expect((await bed.manifest(HOST, 'team-a/app', image.digest, USER)).from).toBe('cache');
    expect(fake.log.all.length).toBe(before);
  });

  test.each([
    ['removed', [BOB], undefined, 'upstreamUnauthorized'],
    ['removed, with others for the rest', [BOB], OPS, 'upstreamUnauthorized'],
    ['given to another owner', [{ ...BOB, for: ['team-a/*', 'team-b/*'] }], undefined, 'upstreamUnauthorized'],
    ['made anew under their name', [{ ...ALICE, id: 21 }, BOB], undefined, 'served'],
  ] as const)('%s: what they opened is opened anew, or not given', async (_, named, credentials, outcome) => {
    const fake = await startFake();
    const bed = await startBed(fake);
    const layer = generated(90_000, 'secret');
    const image = fake.repository('team-a/app').addImage('1', [layer]);
    await bed.manifest(HOST, 'team-a/app', '1', USER);
    await bed.blob(HOST, 'team-a/app', layer.digest, USER);
    await eventually('the layer is kept', () => bed.rig.index.blob(layer.digest) !== null);
    bed.put(HOST, { fake, named, ...(credentials === undefined ? {} : { credentials }) });
    fake.log.clear();
    for (const ask of [
      () => bed.blob(HOST, 'team-a/app', layer.digest, USER),
      () => bed.blob(HOST, 'team-a/app', layer.digest, { ...USER, range: 'bytes=0-9' }),
      () => bed.manifest(HOST, 'team-a/app', image.digest, USER),
      () => bed.manifest(HOST, 'team-a/app', '1', USER),
    ]) {
      expect(await refusalOf(ask())).toBe(outcome);
    }
    expect(fake.log.count({ kind: 'blob' })).toBeGreaterThan(0);
    expect(fake.log.count({ kind: 'manifest' })).toBeGreaterThan(0);
  });

  test('removed while pulls run: those end with right bytes or none, and nothing is left for others', async () => {
    const fake = await startFake({ bytesPerSecond: 4_000_000 });
    const bed = await startBed(fake);
    const layer = generated(3_000_000, 'secret');
    fake.repository('team-a/app').addImage('1', [layer]);
    await bed.manifest(HOST, 'team-a/app', '1', USER);
    const running = Array.from({ length: 8 }, () => bed.blob(HOST, 'team-a/app', layer.digest, USER));
    await eventually('the layer comes', () => fake.log.bytes({ kind: 'blob' }) > 100_000);
    bed.put(HOST, { fake, named: [BOB] });
    const late = await refusalOf(bed.blob(HOST, 'team-a/app', layer.digest, USER));
    expect(late).toBe('upstreamUnauthorized');
    for (const answered of await Promise.allSettled(running)) {
      if (answered.status === 'fulfilled' && !answered.value.truncated) {
        expect(sha256(answered.value.body)).toBe(layer.digest);
      }
    }
    expect(await refusalOf(bed.blob(HOST, 'team-a/app', layer.digest, USER))).toBe('upstreamUnauthorized');
  });

  test('are told apart after a restart', async () => {
    const fake = await startFake();
    const first = await startBed(fake);
    const layer = generated(90_000, 'secret');
    fake.repository('team-a/app').addImage('1', [layer]);
    await first.manifest(HOST, 'team-a/app', '1', USER);
    await first.blob(HOST, 'team-a/app', layer.digest, USER);
    await eventually('the layer is kept', () => first.rig.index.blob(layer.digest) !== null);
    const { index, dataDir } = first.rig;
    await first.rig.cache.close();
    const bed = await startBed(fake, { cache: { index, dataDir } }, [ALICE, BOB]);
    fake.repository('team-b/app').addManifest({ schemaVersion: 2, layers: [descriptorOf(layer)] }, OCI_MANIFEST, '1');
    await bed.manifest(HOST, 'team-b/app', '1', USER);
    expect(await refusalOf(bed.blob(HOST, 'team-b/app', layer.digest, USER))).toMatch(REFUSED);
    expect((await bed.blob(HOST, 'team-a/app', layer.digest, USER)).from).toBe('cache');
  });

  test('first these, then those, then these again while an answer comes: nobody knows by which it was opened', async () => {
    const fake = await startFake();
    const reached = Promise.withResolvers<void>();
    const open = Promise.withResolvers<void>();
    const bed = await startBed(fake, {
      wrapUpstream: (upstream) =>
        new Proxy(upstream, {
          get: (target, key) => {
            const value: unknown = Reflect.get(target, key, target);
            if (key !== 'manifest') return typeof value === 'function' ? value.bind(target) : value;
            return async (...args: Parameters<typeof target.manifest>) => {
              reached.resolve();
              await open.promise;
              const answer = await target.manifest(...args);
              bed.put(HOST, { fake, named: [ALICE, BOB] });
              return answer;
            };
          },
        }),
    });
    const image = fake.repository('team-a/app').addImage('1', ['secret']);
    const asked = bed.manifest(HOST, 'team-a/app', '1', USER);
    await reached.promise;
    bed.put(HOST, { fake, named: [{ ...ALICE, id: 99 }, BOB] });
    open.resolve();
    await asked;
    expect(bed.rig.cache.facts.of({ registry: HOST, repository: 'team-a/app' }, image.digest)).toBeNull();
  });
});
