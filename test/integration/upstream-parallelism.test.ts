import { describe, expect, it } from 'vitest';
import { cleanups, downloads, fakeRegistry, fetchInto, layer, MIB, upstreamOf } from '../support/downloads.ts';
import { eventually } from '../support/eventually.ts';
import type { Content, FakeRegistry } from '../support/fake-registry/index.ts';
import type { FaultPlan } from '../support/fake-registry/options.ts';
import { MemorySink } from '../support/memory-sink.ts';
import { slowLink } from '../support/slow-link.ts';
import type { TestUpstream } from '../support/upstream.ts';

/** What `upstream.connections: auto` allows. */
const MOST = 16;

/** More than this are there only after several steps. */
const MANY = 8;

/** Bytes a second: slow, and little work for a machine that is busy with other tests. */
const SLOW = MIB / 4;

/** What rates that are disturbed may take to be seen for what they are, ms; an undisturbed machine is done in ten seconds. */
const SETTLING = 180_000;

/** Bodies that are under way. */
const running = (fake: FakeRegistry): number => fake.log.of({ kind: 'blob' }).filter(({ done }) => !done).length;

/** True once that has come about and the first body has gone on for a while, so that what came of it has been noted. */
function andNoted(fake: FakeRegistry, come: () => boolean): () => boolean {
  let since: number | undefined;
  return () => {
    if (!come()) return false;
    const sent = fake.log.of({ kind: 'blob' })[0]?.sent ?? 0;
    since ??= sent;
    return sent > since + SLOW;
  };
}

/** Begins a download and ends it when that has come about; the log is of this download alone. */
async function until(
  upstream: TestUpstream,
  fake: FakeRegistry,
  content: Content,
  what: string,
  come: (sink: MemorySink) => boolean,
) {
  fake.log.clear();
  const stop = new AbortController();
  const over = new Error('seen enough');
  const sink = new MemorySink();
  const download = fetchInto(upstream, content.digest, sink, stop.signal);
  const ended = download.catch((error: unknown) => error);
  try {
    await eventually(what, () => come(sink), SETTLING);
  } finally {
    stop.abort(over);
    expect(await ended).toBe(over);
  }
  await eventually('all its connections are gone', () => fake.connections === 0);
}

describe('a link that gives each connection little', () => {
  it('is used by ever more; the next blob starts as one plain GET', async () => {
    const fake = await fakeRegistry({ bytesPerSecond: SLOW });
    const content = layer(128 * MIB, fake);
    const upstream = upstreamOf([fake.url], { connections: MOST });
    await until(upstream, fake, content, 'many', () => running(fake) > MANY);
    await until(upstream, fake, content, 'as many again', () => running(fake) > MANY);
    expect(fake.log.of({ kind: 'blob' })[0]?.range).toBeUndefined();
    // A small one is not worth several.
    fake.log.clear();
    await downloads(upstream, layer(MIB, fake));
    expect(fake.log.count({ kind: 'blob' })).toBe(1);
  });

  it('is shared by several downloads', async () => {
    const fake = await fakeRegistry({ bytesPerSecond: SLOW });
    const [one, other] = [layer(128 * MIB, fake), layer(127 * MIB, fake)];
    const upstream = upstreamOf([fake.url], { connections: MOST });
    const of = (content: Content): number =>
      fake.log.of({ kind: 'blob' }).filter(({ path, done }) => !done && path.includes(content.digest)).length;
    const stop = new AbortController();
    const both = [one, other].map(({ digest }) => fetchInto(upstream, digest, new MemorySink(), stop.signal));
    const ended = Promise.allSettled(both);
    await eventually('each has several', () => of(one) > 4 && of(other) > 4);
    stop.abort();
    await ended;
  });
});

it(
  'a link that one connection fills goes back to it',
  async () => {
    const fake = await fakeRegistry();
    const link = await slowLink({ to: fake.port, roundTripMs: 4, bytesPerSecond: 4 * MIB, shared: true });
    cleanups.push(() => link.close());
    const upstream = upstreamOf([link.url], { connections: MOST });
    let requests = 0;
    /** What had come when there was a request last. */
    let since = 0;
    // Large enough to settle while other work disturbs what is measured; it is left as soon as it has.
    await until(upstream, fake, layer(256 * MIB, fake), 'several were tried, and one goes on alone', ({ written }) => {
      const before = requests;
      requests = fake.log.count({ kind: 'blob' });
      if (requests !== before) since = written;
      // Several would have asked for their next segments meanwhile.
      return requests > 2 && written > since + 24 * MIB;
    });
  },
  SETTLING,
);

describe('a host that takes no more than four', () => {
  it.each([429, 403])(
    'and answers others with %i gets four, also for the next blob, and is not asked again',
    async (status) => {
      const fake = await fakeRegistry({
        bytesPerSecond: SLOW,
        faults: () => (running(fake) > 4 ? { status } : undefined),
      });
      const content = layer(128 * MIB, fake);
      const upstream = upstreamOf([fake.url], { connections: MOST });
      await until(
        upstream,
        fake,
        content,
        'it has refused one',
        andNoted(fake, () => fake.log.count({ status }) > 0),
      );
      expect(fake.log.count({ status })).toBe(1);
      await until(upstream, fake, content, 'four again', () => running(fake) === 4);
      expect(fake.log.count({ status })).toBe(0);
    },
  );
});

it.each<[string, number, (fake: FakeRegistry) => FaultPlan]>([
  [
    'breaks every additional connection gets one after two of them',
    2,
    (fake) => () => (running(fake) > 1 ? { refuse: true } : undefined),
  ],
  [
    'knows no ranges though it says so is asked for one once',
    1,
    () =>
      ({ range }) =>
        range === undefined ? undefined : { ignoreRange: true },
  ],
])('a host that %s, also for the next blob', async (_, tried, faultsOf) => {
  const fake: FakeRegistry = await fakeRegistry({
    bytesPerSecond: 2 * MIB,
    faults: (request) => faultsOf(fake)(request),
  });
  const upstream = upstreamOf([fake.url], { connections: MOST });
  await until(
    upstream,
    fake,
    layer(128 * MIB, fake),
    'they were tried',
    andNoted(fake, () => fake.log.of({ kind: 'blob' }).length > tried),
  );
  fake.log.clear();
  await downloads(upstream, layer(8 * MIB, fake));
  expect(fake.log.count({ kind: 'blob' })).toBe(1);
});

it.each<[string, FaultPlan]>([
  ['after every few MiB', () => ({ resetAfter: 2 * MIB })],
  ['before an answer now and then', ({ nth }) => (nth % 5 === 4 ? { refuse: true } : undefined)],
])('resets %s do not keep connections from growing', async (_, faults) => {
  const fake = await fakeRegistry({ bytesPerSecond: SLOW, faults });
  const upstream = upstreamOf([fake.url], { connections: MOST });
  await until(upstream, fake, layer(128 * MIB, fake), 'many', () => running(fake) > MANY);
});
