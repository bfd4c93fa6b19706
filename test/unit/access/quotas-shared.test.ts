import { describe, expect, test } from 'vitest';
import type { Counter, CounterStore } from '../../../src/access/counters.ts';
import type { Clocks } from '../../../src/access/period.ts';
import { Quotas } from '../../../src/access/quotas.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { MemoryCounterStore } from '../../support/access-stores.ts';

const MIB = 1024 * 1024;

class TestClocks implements Clocks {
  #now = Date.parse('2026-11-22T12:00:00Z');
  #monotonic = 0;
  now = (): number => this.#now;
  monotonic = (): number => this.#monotonic;
  pass(ms: number): void {
    this.#now += ms;
    this.#monotonic += ms;
  }
}

/** A store as a node sees it over a network: answers come later, stay out while it is paused, or fail while it is away. */
class RemoteStore implements CounterStore {
  readonly #inner: CounterStore;
  #paused: PromiseWithResolvers<void> | null = null;
  away = false;
  additions = 0;

  constructor(inner: CounterStore) {
    this.#inner = inner;
  }

  pause(): void {
    this.#paused ??= Promise.withResolvers();
  }

  resume(): void {
    this.#paused?.resolve();
    this.#paused = null;
  }

  async #trip(): Promise<void> {
    await new Promise(setImmediate);
    await this.#paused?.promise;
    if (this.away) throw new Error('the store does not answer');
  }

  async load(periods: readonly string[]): Promise<Counter[]> {
    await this.#trip();
    return this.#inner.load(periods);
  }

  async add(deltas: readonly Counter[]): Promise<Counter[]> {
    this.additions++;
    await this.#trip();
    return this.#inner.add(deltas);
  }

  async keepOnly(periods: readonly string[]): Promise<void> {
    await this.#trip();
    await this.#inner.keepOnly(periods);
  }

  watch(listener: () => void): () => void {
    return this.#inner.watch(listener);
  }
}

interface Bed {
  readonly clocks: TestClocks;
  readonly nodes: Quotas[];
  readonly stores: RemoteStore[];
  readonly backing: MemoryCounterStore;
}

async function open(count: number, limits: { day?: number; month?: number }): Promise<Bed> {
  const clocks = new TestClocks();
  const backing = new MemoryCounterStore();
  const stores = Array.from({ length: count }, () => new RemoteStore(backing.another()));
  const nodes = await Promise.all(
    stores.map((store) =>
      Quotas.open({
        bytesPerDay: limits.day ?? null,
        bytesPerMonth: limits.month ?? null,
        store,
        clocks,
        sharing: { nodes: () => count },
      }),
    ),
  );
  return { clocks, nodes, stores, backing };
}

/** Sends a whole reply; the bytes of it, 0 where it was refused. */
async function send(node: Quotas, client: string, bytes: number, fetched = false): Promise<number> {
  try {
    node.check(client);
    const reservation = await node.forBodies.reserve(client, { bytes, fetched });
    await new Promise(setImmediate);
    reservation.sent(bytes);
    reservation.close();
    return bytes;
  } catch (error) {
    if (error instanceof RegistryError && error.kind === 'tooManyRequests') return 0;
    throw error;
  }
}

async function stored(backing: CounterStore, client: string, period = '2026-11-22'): Promise<number> {
  return (await backing.load([period])).find((one) => one.client === client)?.bytes ?? 0;
}

function at<T>(list: readonly T[], index: number): T {
  const one = list[index];
  if (one === undefined) throw new Error(`there is no ${index}`);
  return one;
}

/** Numbers that are the same for the same seed (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

describe('quotas of several nodes', () => {
  test.each([2, 3])(
    'hold for all %i together, whatever comes at once, and are used up to the last slices',
    async (count) => {
      for (let seed = 1; seed <= 20; seed++) {
        const limit = 100 * MIB;
        const { nodes } = await open(count, { day: limit });
        const next = random(seed);
        let sent = 0;
        const client = async (): Promise<void> => {
          for (let pull = 0; pull < 20; pull++) {
            const bytes = await send(at(nodes, Math.floor(next() * count)), 'user:ci', Math.ceil(next() * MIB * 2));
            sent += bytes;
          }
        };
        await Promise.all(Array.from({ length: 8 }, client));
        expect(sent, `seed ${seed}`).toBeLessThanOrEqual(limit);
        // What is left is smaller than a reply and what the other nodes hold.
        expect(sent, `seed ${seed}`).toBeGreaterThan(limit - 2 * MIB - count * (limit / 64));
      }
    },
  );

  test('a month is one for all clients and nodes, fetching included', async () => {
    const limit = 64 * MIB;
    const { nodes } = await open(3, { month: limit });
    let counted = 0;
    await Promise.all(
      nodes.flatMap((node, index) =>
        Array.from({ length: 20 }, async (_none, pull) => {
          const bytes = await send(node, `192.0.2.${index}${pull}`, MIB, true);
          counted += 2 * bytes;
        }),
      ),
    );
    expect(counted).toBeLessThanOrEqual(limit);
    expect(counted).toBeGreaterThanOrEqual(limit - 3 * (limit / 64) - 2 * MIB);
  });

  test('what one node has reserved and does not use goes back to the others after a while, and at its end', async () => {
    const { nodes, backing } = await open(2, { day: 64 * MIB });
    const [a, b] = [at(nodes, 0), at(nodes, 1)];
    expect(await send(a, 'user:ci', 10)).toBe(10);
    expect(await stored(backing, 'user:ci')).toBe(10 + MIB);
    await a.flush();
    expect(await stored(backing, 'user:ci')).toBe(10 + MIB);
    await a.flush();
    expect(await stored(backing, 'user:ci')).toBe(10);
    await send(b, 'user:ci', 10);
    b.close();
    await b.flush();
    expect(await stored(backing, 'user:ci')).toBe(20);
  });

  test('a node that is killed loses no more than its slice', async () => {
    const limit = 64 * MIB;
    const { nodes, backing } = await open(2, { day: limit });
    const [dead, other] = [at(nodes, 0), at(nodes, 1)];
    const used = await send(dead, 'user:ci', 5 * MIB);
    let sent = 0;
    for (let pull = 0; pull < 70; pull++) sent += await send(other, 'user:ci', MIB);
    expect(used + sent).toBeGreaterThan(limit - 2 * (limit / 64) - MIB);
    expect(used + sent).toBeLessThanOrEqual(limit);
    expect(await stored(backing, 'user:ci')).toBeLessThanOrEqual(limit);
  });

  test('a node that was paused in the middle of a question comes back to what the others have left', async () => {
    const limit = 32 * MIB;
    const { nodes, stores } = await open(2, { day: limit });
    const [paused, other] = [at(nodes, 0), at(nodes, 1)];
    await send(paused, 'user:ci', MIB);
    at(stores, 0).pause();
    const waiting = send(paused, 'user:ci', 8 * MIB);
    let sent = MIB;
    for (let pull = 0; pull < 40; pull++) sent += await send(other, 'user:ci', MIB);
    at(stores, 0).resume();
    sent += await waiting;
    for (let pull = 0; pull < 10; pull++) sent += await send(paused, 'user:ci', MIB / 4);
    expect(sent).toBeLessThanOrEqual(limit);
    expect(sent).toBeGreaterThan(limit - 2 * MIB);
  });

  test('while the store does not answer each goes on with what it has reserved and a slice more', async () => {
    const limit = 90 * MIB;
    const { nodes, stores, backing, clocks } = await open(3, { day: limit });
    let sent = 0;
    for (const bytes of [10 * MIB, 2 * MIB]) for (const node of nodes) sent += await send(node, 'user:ci', bytes);
    for (const store of stores) store.away = true;
    for (const node of nodes) for (let pull = 0; pull < 100; pull++) sent += await send(node, 'user:ci', MIB);
    const slice = limit / 64;
    expect(sent).toBeLessThanOrEqual(36 * MIB + 3 * 2 * slice);
    expect(sent).toBeGreaterThan(36 * MIB);
    expect(() => at(nodes, 0).check('nobody-yet')).not.toThrow();
    for (const store of stores) store.away = false;
    clocks.pass(2_000);
    for (const node of nodes) await node.flush();
    // All that was used meanwhile is in the store.
    expect(await stored(backing, 'user:ci')).toBeGreaterThanOrEqual(sent);
    for (const node of nodes) for (let pull = 0; pull < 400; pull++) sent += await send(node, 'user:ci', MIB / 4);
    expect(sent).toBeLessThanOrEqual(limit + 3 * slice);
    expect(sent).toBeGreaterThan(limit - 5 * MIB);
  });

  test('a refusal while the store is away says so, and may be tried again soon', async () => {
    const { nodes, stores } = await open(2, { day: 100 });
    at(stores, 0).away = true;
    const node = at(nodes, 0);
    const refused = await Promise.resolve(node.forBodies.reserve('user:ci', { bytes: 80, fetched: false })).catch(
      (error: unknown) => error,
    );
    expect(refused).toMatchObject({
      kind: 'tooManyRequests',
      message: expect.stringContaining('2 of them are left for this gateway while'),
    });
  });

  test('fills set aside at once, and end where the others have used up what is left', async () => {
    const limit = 64 * MIB;
    const { nodes } = await open(2, { day: limit });
    const fill = async (node: Quotas): Promise<number> => {
      const budget = node.fill('user:ci');
      budget.promise(48 * MIB, 0);
      let fetched = 0;
      for (let piece = 0; piece < 48; piece++) {
        await new Promise(setImmediate);
        fetched += MIB;
        if (!budget.fetched(MIB)) break;
      }
      budget.close();
      return fetched;
    };
    const [a = 0, b = 0] = await Promise.all(nodes.map(fill));
    expect(a + b).toBeGreaterThanOrEqual(48 * MIB);
    // Each may have fetched the piece with which it was told.
    expect(a + b).toBeLessThanOrEqual(limit + 2 * MIB);
    expect(Math.max(a, b)).toBe(48 * MIB);
  });

  test('many replies at once are one question, and a quota that is used up costs the store nothing', async () => {
    const { nodes, stores } = await open(2, { day: 64 * MIB });
    const [node, store] = [at(nodes, 0), at(stores, 0)];
    await Promise.all(Array.from({ length: 100 }, (_none, index) => send(node, `user:${index}`, 1000)));
    expect(store.additions).toBeLessThanOrEqual(3);
    const before = store.additions;
    await Promise.all(Array.from({ length: 100 }, (_none, index) => send(node, `user:${index}`, 1000)));
    expect(store.additions).toBe(before);
    await send(node, 'user:0', 64 * MIB);
    const spent = store.additions;
    for (let pull = 0; pull < 50; pull++) expect(await send(node, 'user:0', 64 * MIB)).toBe(0);
    expect(store.additions - spent).toBeLessThanOrEqual(2);
  });

  test('a new day begins for all, and what was reserved of the old one is forgotten', async () => {
    const { nodes, clocks } = await open(2, { day: 10 * MIB });
    const [a, b] = [at(nodes, 0), at(nodes, 1)];
    expect(await send(a, 'user:ci', 9 * MIB)).toBe(9 * MIB);
    expect(await send(b, 'user:ci', 9 * MIB)).toBe(0);
    clocks.pass(12 * 3_600_000);
    expect(await send(b, 'user:ci', 9 * MIB)).toBe(9 * MIB);
    expect(await send(a, 'user:ci', 9 * MIB)).toBe(0);
    await a.flush();
    await b.flush();
  });

  test('other limits are taken with what was used so far', async () => {
    const { nodes } = await open(2, { day: 10 * MIB });
    const [a, b] = [at(nodes, 0), at(nodes, 1)];
    await send(a, 'user:ci', 8 * MIB);
    await b.reconfigure({ bytesPerDay: 8 * MIB, bytesPerMonth: null });
    expect(await send(b, 'user:ci', MIB)).toBe(0);
    await a.reconfigure({ bytesPerDay: 20 * MIB, bytesPerMonth: null });
    expect(await send(a, 'user:ci', 10 * MIB)).toBe(10 * MIB);
    expect(a.usage().day?.clients).toEqual([{ client: 'user:ci', sent: expect.any(Number), fetched: 0 }]);
  });
});
