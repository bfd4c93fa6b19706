import { describe, expect, test } from 'vitest';
import { RegistryError } from '../../../src/oci/errors.ts';
import { DOCKER_MANIFEST, OCI_INDEX } from '../../../src/oci/media-types.ts';
import { Denials } from '../../../src/proxy/denials.ts';
import { ManifestCache } from '../../../src/proxy/manifest-cache.ts';
import { type Pull, type Reply, repliesTally, type VersionedCore } from '../../../src/proxy/reply.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

function pull(more: Partial<Pull> & { reference?: string; repository?: string; registry?: string } = {}): Pull {
  const { reference = 'v1', repository = 'org/app', registry = 'quay.io', ...rest } = more;
  return {
    target: { registry, repository, what: { kind: 'manifest', reference: { kind: 'tag', tag: reference } } },
    method: 'GET',
    accept: OCI_INDEX,
    authenticated: false,
    client: '192.0.2.1',
    base: '/v2/',
    signal: new AbortController().signal,
    ...rest,
  };
}

function reply(more: Partial<Reply> = {}): Reply {
  return {
    status: 200,
    headers: { 'docker-content-digest': DIGEST, etag: `"${DIGEST}"` },
    body: Buffer.from('{}'),
    from: 'upstream',
    freshUntil: 60_000,
    ...more,
  };
}

/** Answers what a test says; HEAD without a body. */
class TestCore implements VersionedCore {
  generation = 0;
  readonly denials = new Denials();
  asked: Pull[] = [];
  answer: (pull: Pull) => Reply | Promise<Reply> = () => reply();

  serve(asked: Pull): Reply | Promise<Reply> {
    this.asked.push(asked);
    const answer = this.answer(asked);
    return answer instanceof Promise || asked.method === 'GET' ? answer : { ...answer, body: null };
  }
}

function make(options: { readonly maxBytes?: number } = {}) {
  const core = new TestCore();
  const metrics = new Metrics();
  const clock = { now: 1_000 };
  const cache = new ManifestCache({
    core,
    replies: repliesTally(metrics),
    rowName: (host) => host,
    now: () => clock.now,
    ...options,
  });
  /** How often the core is asked by these pulls. */
  const asks = async (...pulls: Pull[]): Promise<number> => {
    const before = core.asked.length;
    for (const each of pulls) await cache.serve(each);
    return core.asked.length - before;
  };
  return { core, metrics, clock, cache, asks };
}

describe('a manifest’s reply', () => {
  test('is given again for as long as the core said, at once, the same each time, and counted', async () => {
    const { cache, clock, core, metrics } = make();
    expect(await cache.serve(pull())).toMatchObject({ status: 200, from: 'upstream' });
    const again = cache.serve(pull());
    expect(again).not.toBeInstanceOf(Promise);
    expect(again).toMatchObject({ status: 200, from: 'cache', headers: { etag: `"${DIGEST}"` } });
    clock.now = 59_999;
    expect(cache.serve(pull())).toBe(again);
    expect(core.asked).toHaveLength(1);
    expect(await metrics.total('registry_replies_total', { kind: 'manifest', from: 'cache' })).toBe(2);
    clock.now = 60_000;
    expect(await cache.serve(pull())).toMatchObject({ from: 'upstream' });
  });

  test('is asked for anew where it may not be given again, is a stream, or is no manifest', async () => {
    const { core, asks } = make();
    const { freshUntil: _, ...once } = reply();
    core.answer = () => once;
    expect(await asks(pull(), pull())).toBe(2);
    core.answer = () => reply({ body: { length: 1, pull: async () => 0, close: async () => {} } });
    expect(await asks(pull(), pull())).toBe(2);
    core.answer = () => reply();
    const tags = { ...pull(), target: { ...pull().target, what: { kind: 'tags' } } } as Pull;
    expect(await asks(tags, tags)).toBe(2);
  });

  test('is dropped when its repository is denied, and others are not; what was asked before is not kept after it', async () => {
    const { core, asks } = make();
    const [one, other, late] = ['org/app', 'org/other', 'org/late'].map((repository) => pull({ repository }));
    if (one === undefined || other === undefined || late === undefined) throw new Error('no pulls');
    await asks(one, other);
    core.denials.add('quay.io/org/app');
    expect(await asks(other)).toBe(0);
    expect([await asks(one), await asks(one)]).toEqual([1, 0]);
    core.answer = async () => {
      core.denials.add('quay.io/org/late');
      return reply();
    };
    expect([await asks(late), await asks(late), await asks(one)]).toEqual([1, 1, 0]);
  });

  test('by digest is the same for every Accept', async () => {
    const { asks } = make();
    const reference = DIGEST;
    expect(await asks(pull({ reference, accept: 'a/b' }), pull({ reference, accept: 'c/d' }))).toBe(1);
  });

  test('is dropped when the core’s generation changes; what was asked before the change is not kept after it', async () => {
    const { core, cache, asks } = make();
    await asks(pull());
    core.generation++;
    expect(await asks(pull(), pull())).toBe(1);
    const late = Promise.withResolvers<Reply>();
    core.answer = () => late.promise;
    const answered = cache.serve(pull({ reference: 'v2' }));
    core.generation++;
    late.resolve(reply());
    await answered;
    expect(await asks(pull({ reference: 'v2' }))).toBe(1);
  });

  test('is kept within a bound of bytes', async () => {
    const { core, asks } = make({ maxBytes: 4 * 1024 * 1024 });
    core.answer = () => reply({ body: Buffer.alloc(1024 * 1024) });
    const pulls = Array.from({ length: 10 }, (_, index) => pull({ reference: `v${index}` }));
    await asks(...pulls);
    expect(await asks(...pulls.slice(-3))).toBe(0);
    expect(await asks(...pulls.slice(0, 7))).toBe(7);
  });

  test('has its body as a text too, byte for byte, where it is short', async () => {
    const { core, cache } = make();
    // A view into a larger buffer, as those that come over a channel are.
    const whole = Uint8Array.from({ length: 512 }, (_, n) => n % 256);
    for (const body of [whole.subarray(100, 400), whole, new Uint8Array(0)]) {
      core.answer = () => reply({ body });
      core.generation++;
      await cache.serve(pull());
      const kept = await cache.serve(pull());
      expect(Buffer.from(kept.text ?? 'none', 'latin1')).toEqual(Buffer.from(body));
      expect(Buffer.from(kept.body as Uint8Array)).toEqual(Buffer.from(body));
    }
    core.answer = () => reply({ body: new Uint8Array(64 * 1024) });
    core.generation++;
    await cache.serve(pull());
    expect(await cache.serve(pull())).not.toHaveProperty('text');
  });

  test('hangs on no memory but its own', async () => {
    const { core, cache } = make();
    const message = Buffer.alloc(100_000);
    core.answer = () => reply({ body: message.subarray(10, 20_010) });
    await cache.serve(pull());
    const { body } = await cache.serve(pull());
    expect((body as Uint8Array).buffer.byteLength).toBeLessThan(30_000);
  });

  test('answers only the very same question, in whatever words', async () => {
    const { asks } = make();
    const questions = [
      pull(),
      pull({ authenticated: true }),
      pull({ audience: 'rules.1' }),
      pull({ audience: 'rules.0' }),
      pull({ audience: 'rules.1', authenticated: true }),
      pull({ accept: undefined }),
      pull({ accept: DOCKER_MANIFEST }),
      pull({ accept: 'application/xml' }),
      pull({ reference: 'v2' }),
      pull({ reference: DIGEST }),
      pull({ repository: 'org/other' }),
      pull({ registry: 'ghcr.io' }),
    ];
    expect(await asks(...questions)).toBe(questions.length);
    expect(await asks(...questions)).toBe(0);
    expect(await asks(pull({ base: '/v2/quay.io/', ns: 'quay.io' }))).toBe(0);
    expect(await asks(pull({ accept: `${OCI_INDEX};q=0.5 , ${OCI_INDEX.toUpperCase()}` }))).toBe(0);
  });
});

describe('HEAD and GET', () => {
  test('of one reference share a reply, as far as it goes', async () => {
    const { cache, asks } = make();
    expect(await asks(pull({ method: 'HEAD' }), pull({ method: 'HEAD' }))).toBe(1);
    expect(await asks(pull(), pull())).toBe(1);
    expect(await asks(pull({ method: 'HEAD' }))).toBe(0);
    expect(cache.serve(pull({ method: 'HEAD' }))).toMatchObject({ status: 200, body: null });
  });

  test('where HEAD comes back later than GET, the body is still there', async () => {
    const { core, cache, asks } = make();
    const late = Promise.withResolvers<Reply>();
    core.answer = () => late.promise;
    const head = cache.serve(pull({ method: 'HEAD' }));
    core.answer = () => reply();
    await asks(pull());
    late.resolve(reply({ body: null }));
    await head;
    expect(await asks(pull())).toBe(0);
  });

  test.each(['manifestUnknown', 'upstreamDenied'] as const)(
    'where GET fails with %s, HEAD asks again',
    async (kind) => {
      const { core, cache, asks } = make();
      await asks(pull({ method: 'HEAD' }));
      core.answer = () => Promise.reject(new RegistryError(kind));
      await expect(cache.serve(pull())).rejects.toThrow(RegistryError);
      core.answer = () => reply();
      expect(await asks(pull({ method: 'HEAD' }))).toBe(1);
    },
  );
});

test('who has the manifest already is answered 304, from one reply for all', async () => {
  const { core, cache, asks } = make();
  const first = await cache.serve(pull({ ifNoneMatch: `"${DIGEST}"` }));
  expect(first).toMatchObject({ status: 304, body: null, from: 'upstream' });
  expect(core.asked[0]?.ifNoneMatch).toBeUndefined();
  expect(cache.serve(pull({ ifNoneMatch: '"other", *' }))).toMatchObject({ status: 200 });
  expect(cache.serve(pull({ ifNoneMatch: '*' }))).toMatchObject({ status: 304, from: 'cache' });
  expect(await asks(pull())).toBe(0);
});
