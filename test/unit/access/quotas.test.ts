import { describe, expect, test } from 'vitest';
import type { Counter } from '../../../src/access/counters.ts';
import type { Clocks } from '../../../src/access/period.ts';
import { Quotas } from '../../../src/access/quotas.ts';
import { RegistryError, renderError } from '../../../src/oci/errors.ts';
import { MemoryCounterStore } from '../../support/access-stores.ts';

/** A clock that goes by `pass`; `put` is somebody who sets it. */
class TestClocks implements Clocks {
  #now: number;
  #monotonic = 0;

  constructor(text: string) {
    this.#now = Date.parse(text);
  }

  now = (): number => this.#now;
  monotonic = (): number => this.#monotonic;

  put(text: string): void {
    this.#now = Date.parse(text);
  }

  pass(ms: number): void {
    this.#now += ms;
    this.#monotonic += ms;
  }

  passUntil(text: string): void {
    this.pass(Date.parse(text) - this.#now);
  }
}

const HOUR = 3_600_000;

async function open(
  clocks: Clocks,
  store = new MemoryCounterStore(),
  limits: { day: number | null; month: number | null } = { day: 100, month: 1000 },
): Promise<Quotas> {
  const one = await Quotas.open({ bytesPerDay: limits.day, bytesPerMonth: limits.month, store, clocks });
  return one;
}

/** A whole reply. @throws where it is refused */
function send(one: Quotas, client: string, bytes: number, fetched = false): void {
  const reservation = one.reserve(client, { bytes, fetched });
  reservation.sent(bytes);
  reservation.close();
}

/** Why it was refused: `Retry-After` and the words. */
function refusal(run: () => unknown): { retryAfter: number; message: string } {
  try {
    run();
  } catch (error) {
    if (!(error instanceof RegistryError) || error.kind !== 'tooManyRequests') throw error;
    return { retryAfter: Number(renderError(error).headers['retry-after']), message: error.message };
  }
  throw new Error('nothing was refused');
}

describe('bytes', () => {
  test('a day for each client, until midnight UTC', async () => {
    const clocks = new TestClocks('2026-11-22T23:00:00Z');
    const one = await open(clocks);
    send(one, 'a', 99);
    one.check('a');
    send(one, 'a', 1);
    expect(refusal(() => one.check('a'))).toEqual({
      retryAfter: 3600,
      message:
        'this client may have 100 bytes a day (UTC); 0 of them are left; they begin anew at 2026-11-23T00:00:00.000Z',
    });
    one.check('b');
    clocks.pass(HOUR);
    one.check('a');
    send(one, 'a', 100);
  });

  test('a month for all, over the end of the year', async () => {
    const clocks = new TestClocks('2026-12-31T00:00:00Z');
    const one = await open(clocks);
    for (let client = 0; client < 10; client++) send(one, `c${client}`, 100);
    const { retryAfter, message } = refusal(() => one.check('new'));
    expect(retryAfter).toBe(86_400);
    expect(message).toContain('1000 bytes a month');
    clocks.passUntil('2027-01-01T00:00:00Z');
    one.check('new');
  });

  test('survive a restart, within their day and month only', async () => {
    const clocks = new TestClocks('2026-11-22T12:00:00Z');
    const store = new MemoryCounterStore();
    const first = await open(clocks, store);
    send(first, 'a', 60);
    await first.flush();
    send(first, 'a', 40);
    send(first, 'b', 10);
    await first.flush();
    const second = await open(clocks, store);
    refusal(() => second.check('a'));
    second.check('b');
    clocks.passUntil('2026-11-23T12:00:00Z');
    const next = await open(clocks, store);
    next.check('a');
    for (const client of ['c', 'd', 'e', 'f', 'g', 'h', 'i', 'j']) send(next, client, 99);
    next.check('z');
    send(next, 'k', 98);
    expect(refusal(() => next.check('z')).message).toContain('a month');
    await next.flush();
    // Yesterday is kept for a holder whose clock is a little behind; the day before it is not.
    expect(await store.load(['2026-11-22'])).not.toEqual([]);
    clocks.pass(24 * HOUR);
    next.fetched('l', 1);
    await next.flush();
    expect(await store.load(['2026-11-22'])).toEqual([]);
  });

  test('what could not be written is written the next time', async () => {
    const clocks = new TestClocks('2026-11-22T12:00:00Z');
    const store = new MemoryCounterStore();
    const one = await open(clocks, store);
    send(one, 'a', 100);
    const add = store.add.bind(store);
    store.add = async () => {
      throw new Error('disk full');
    };
    await expect(one.flush()).rejects.toThrow('disk full');
    store.add = add;
    await one.flush();
    const again = await open(clocks, store);
    refusal(() => again.check('a'));
  });

  test('with no limit set nothing is kept or read', async () => {
    const store = new MemoryCounterStore();
    store.load = async () => {
      throw new Error('read');
    };
    const quotas = await Quotas.open({ bytesPerDay: null, bytesPerMonth: null, store });
    expect(quotas.areLimited).toBe(false);
    quotas.fetched('one', 5);
    await quotas.flush();
  });

  test('a flood of clients is bounded, and forgets the longest idle', async () => {
    const clocks = new TestClocks('2026-11-22T12:00:00Z');
    const store = new MemoryCounterStore();
    const one = await open(clocks, store, { day: 1, month: 1e9 });
    for (let client = 0; client <= 100_000; client++) send(one, `c${client}`, 1);
    one.check('c0');
    refusal(() => one.check('c1'));
    await one.flush();
    expect(await store.load(['2026-11-22'])).toHaveLength(100_000);
  });

  /** Holds each `add` of the store up until `settle` is called for it: with an error it fails, without it goes through. */
  function heldUp(store: MemoryCounterStore): () => Promise<(error?: Error) => void> {
    const add = store.add.bind(store);
    const calls: ((error?: Error) => void)[] = [];
    store.add = (deltas: readonly Counter[]) =>
      new Promise((resolve, reject) => {
        calls.push((error) => (error === undefined ? resolve(add(deltas)) : reject(error)));
      });
    return async () => {
      await expect.poll(() => calls.length).toBe(1);
      return calls.pop()!;
    };
  }

  test('what is counted while the store writes counts at once, and is written the next time', async () => {
    const clocks = new TestClocks('2026-11-22T12:00:00Z');
    const store = new MemoryCounterStore();
    const nextAdd = heldUp(store);
    const one = await open(clocks, store);
    send(one, 'a', 40);
    const flushing = one.flush();
    const settle = await nextAdd();
    send(one, 'a', 50);
    one.check('a');
    send(one, 'a', 10);
    refusal(() => one.check('a'));
    settle();
    await flushing;
    refusal(() => one.check('a'));
    const total = async () => (await store.load(['2026-11-22'])).map(({ bytes }) => bytes);
    expect(await total()).toEqual([40]);
    const again = one.flush();
    (await nextAdd())();
    await again;
    await one.flush();
    expect(await total()).toEqual([100]);
    expect((await store.load(['2026-11'])).map(({ bytes }) => bytes)).toEqual([100]);
  });

  test('a flush that fails, with another waiting behind it and bytes counted meanwhile, loses and doubles nothing', async () => {
    const clocks = new TestClocks('2026-11-22T12:00:00Z');
    const store = new MemoryCounterStore();
    const nextAdd = heldUp(store);
    const one = await open(clocks, store, { day: 1e6, month: 1e6 });
    send(one, 'a', 1);
    const failing = one.flush();
    const settle = await nextAdd();
    send(one, 'a', 20);
    send(one, 'b', 300);
    const waiting = one.flush();
    settle(new Error('disk full'));
    await expect(failing).rejects.toThrow('disk full');
    (await nextAdd())();
    await waiting;
    const stored = await store.load(['2026-11-22', '2026-11']);
    expect(Object.fromEntries(stored.map(({ client, bytes }) => [client, bytes]))).toEqual({ a: 21, b: 300, '*': 321 });
  });

  test('a day that ends while the store writes starts from nothing, and the month goes on', async () => {
    const clocks = new TestClocks('2026-11-22T23:59:59Z');
    const store = new MemoryCounterStore();
    const nextAdd = heldUp(store);
    const one = await open(clocks, store);
    send(one, 'a', 100);
    const flushing = one.flush();
    const settle = await nextAdd();
    clocks.pass(1000);
    send(one, 'a', 30);
    settle();
    await flushing;
    one.check('a');
    const again = one.flush();
    (await nextAdd())();
    await again;
    expect(new Set(await store.load(['2026-11-22', '2026-11-23', '2026-11']))).toEqual(
      new Set([
        { period: '2026-11-22', client: 'a', bytes: 100 },
        { period: '2026-11-23', client: 'a', bytes: 30 },
        { period: '2026-11', client: '*', bytes: 130 },
      ]),
    );
  });

  test('several holders count together', async () => {
    const clocks = new TestClocks('2026-11-22T12:00:00Z');
    const store = new MemoryCounterStore();
    const one = await open(clocks, store);
    const other = await open(clocks, store.another());
    send(one, 'a', 60);
    send(other, 'a', 60);
    await one.flush();
    other.check('a');
    await other.flush();
    refusal(() => other.check('a'));
    // One learns of it at its next flush, even with nothing of its own to add.
    one.check('a');
    await one.flush();
    refusal(() => one.check('a'));
    expect((await store.load(['2026-11'])).map(({ bytes }) => bytes)).toEqual([120]);
  });
});

describe('what replies are going to cost', () => {
  const noon = () => new TestClocks('2026-11-22T12:00:00Z');
  const reply = (bytes: number) => ({ bytes, fetched: false });

  test('is set aside, so that pulls at the same time have no more than one after the other', async () => {
    const one = await open(noon());
    const first = one.reserve('a', reply(60));
    expect(refusal(() => one.reserve('a', reply(41)))).toEqual({
      retryAfter: 12 * 3600,
      message:
        'this client may have 100 bytes a day (UTC); 40 of them are left, too few for the 41 of this answer; they begin anew at 2026-11-23T00:00:00.000Z',
    });
    const second = one.reserve('a', reply(40));
    // Nothing has been sent: whoever asks for no body is not refused.
    one.check('a');
    one.reserve('b', reply(100));
    first.sent(60);
    first.close();
    second.sent(40);
    refusal(() => one.check('a'));
  });

  test('is given back where less was sent, once', async () => {
    const one = await open(noon());
    const left = one.reserve('a', reply(100));
    left.sent(30);
    left.close();
    left.close();
    left.sent(70);
    refusal(() => one.reserve('a', reply(71)));
    send(one, 'a', 70);
    refusal(() => one.check('a'));
  });

  test('is set aside of the month of all, too', async () => {
    const one = await open(noon(), undefined, { day: null, month: 100 });
    const first = one.reserve('a', reply(40));
    const { message } = refusal(() => one.reserve('b', reply(61)));
    expect(message).toContain('send and fetch 100 bytes a month (UTC); 60 of them are left');
    first.close();
    send(one, 'b', 61);
  });

  test('counts twice in the month where it is fetched for that client alone', async () => {
    const one = await open(noon(), undefined, { day: 100, month: 100 });
    refusal(() => one.reserve('a', { bytes: 51, fetched: true }));
    send(one, 'a', 50, true);
    refusal(() => one.check('b'));
  });

  test('of a body without a known length is what is left, at most', async () => {
    const one = await open(noon());
    const step = { bytes: 70, fetched: false, partly: true };
    const first = one.reserve('a', step);
    expect(first.bytes).toBe(70);
    const second = one.reserve('a', step);
    expect(second.bytes).toBe(30);
    refusal(() => one.reserve('a', step));
    second.close();
    expect(one.reserve('a', step).bytes).toBe(30);
  });

  test('goes on over midnight, and what is sent after it counts for the new day', async () => {
    const clocks = new TestClocks('2026-11-22T23:59:00Z');
    const one = await open(clocks);
    const reservation = one.reserve('a', reply(100));
    reservation.sent(60);
    clocks.pass(HOUR);
    refusal(() => one.reserve('a', reply(61)));
    reservation.sent(40);
    refusal(() => one.reserve('a', reply(61)));
    send(one, 'a', 60);
  });
});

describe('a month of which much is set aside', () => {
  const month = () => open(new TestClocks('2026-11-22T12:00:00Z'), undefined, { day: null, month: 1000 });
  const reply = (bytes: number) => ({ bytes, fetched: false });

  test('is there for others: nobody keeps them out by asking for much and reading nothing', async () => {
    const one = await month();
    const lazy = one.reserve('lazy', reply(1000));
    for (let pull = 0; pull < 2; pull++) send(one, 'honest', 300);
    // No more than half of what is left, beside one who has so much set aside.
    refusal(() => one.reserve('another', reply(201)));
    send(one, 'another', 200);
    lazy.close();
    send(one, 'honest', 200);
    refusal(() => one.check('anybody'));
  });

  test('is not there for those who have the most set aside themselves', async () => {
    const one = await month();
    one.reserve('a', reply(600));
    refusal(() => one.reserve('a', reply(401)));
    refusal(() => one.reserve('b', reply(501)));
    one.reserve('b', reply(500));
    refusal(() => one.reserve('b', reply(1)));
  });

  test('ends for all where its bytes do, should all be read in the end', async () => {
    const one = await month();
    const lazy = one.reserve('lazy', reply(1000));
    const honest = one.reserve('honest', reply(400));
    expect(honest.sent(300)).toBe(true);
    expect(lazy.sent(690)).toBe(true);
    // Whole is whole.
    expect(honest.sent(100)).toBe(true);
    expect(lazy.sent(1)).toBe(false);
    lazy.close();
    honest.close();
    refusal(() => one.check('lazy'));
  });

  test('cuts no body that was set aside while there was room for it', async () => {
    const one = await month();
    const reservation = one.reserve('a', reply(800));
    one.fetched('a', 800);
    for (let piece = 0; piece < 8; piece++) expect(reservation.sent(100)).toBe(true);
  });
});

describe('what is fetched for a client', () => {
  const noon = () => new TestClocks('2026-11-22T12:00:00Z');

  test('counts where it is more than the client was sent', async () => {
    const one = await open(noon());
    send(one, 'a', 1);
    one.fetched('a', 90);
    one.check('a');
    // Of what was fetched 99 may still be sent.
    send(one, 'a', 89);
    expect(one.mayFetch('a')).toBe(true);
    one.fetched('a', 10);
    expect(one.mayFetch('a')).toBe(false);
    refusal(() => one.check('a'));
    // It was asked for before, and is a part of what was fetched; nothing beyond that is.
    one.reserve('a', { bytes: 1, fetched: false }).close();
    one.fetched('a', 1);
    expect(refusal(() => one.reserve('a', { bytes: 1, fetched: false })).message).toContain('0 of them are left');
    expect(one.mayFetch('b')).toBe(true);
  });

  test('counts in the month beside what was sent', async () => {
    const one = await open(noon(), undefined, { day: null, month: 100 });
    one.fetched('a', 50);
    send(one, 'a', 49);
    one.check('b');
    one.fetched('b', 1);
    refusal(() => one.check('a'));
  });

  test('outlives a restart', async () => {
    const [clocks, store] = [noon(), new MemoryCounterStore()];
    const first = await open(clocks, store);
    first.fetched('a', 100);
    send(first, 'b', 60);
    first.fetched('b', 50);
    await first.flush();
    const second = await open(clocks, store);
    refusal(() => second.check('a'));
    refusal(() => second.reserve('b', { bytes: 41, fetched: false }));
    send(second, 'b', 40);
    expect(await store.load(['2026-11'])).toEqual([{ period: '2026-11', client: '*', bytes: 210 }]);
  });
});

describe('a clock that is put', () => {
  test('forward or back gives nobody a new day or month', async () => {
    const clocks = new TestClocks('2026-11-22T12:00:00Z');
    const one = await open(clocks);
    send(one, 'a', 100);
    for (const wrong of ['2027-03-01T00:00:00Z', '2026-11-21T00:00:00Z', '1970-01-01T00:00:00Z']) {
      clocks.put(wrong);
      clocks.pass(HOUR);
      expect(refusal(() => one.check('a')).retryAfter).toBeLessThanOrEqual(12 * 3600);
    }
  });

  test('back keeps nobody out for longer than the day had left', async () => {
    const clocks = new TestClocks('2026-11-23T12:00:00Z');
    const one = await open(clocks);
    send(one, 'a', 100);
    clocks.put('2026-11-22T09:00:00Z');
    clocks.pass(12 * HOUR);
    one.check('a');
    // The day that it is by then has three hours left.
    send(one, 'a', 100);
    expect(refusal(() => one.check('a')).retryAfter).toBe(3 * 3600);
  });

  test('back to a day that was counted before finds what was counted', async () => {
    const [clocks, store] = [new TestClocks('2026-11-22T23:00:00Z'), new MemoryCounterStore()];
    const one = await open(clocks, store);
    send(one, 'a', 100);
    await one.flush();
    clocks.pass(2 * HOUR);
    send(one, 'b', 1);
    await one.flush();
    clocks.put('2026-11-22T12:00:00Z');
    clocks.pass(23 * HOUR);
    clocks.put('2026-11-22T12:00:00Z');
    one.check('b');
    await one.flush();
    refusal(() => one.check('a'));
  });

  test('before a restart: what another day had counted, which lies ahead, is forgotten', async () => {
    const [clocks, store] = [new TestClocks('2026-12-22T12:00:00Z'), new MemoryCounterStore()];
    const ahead = await open(clocks, store);
    send(ahead, 'a', 100);
    await ahead.flush();
    clocks.put('2026-11-22T12:00:00Z');
    const right = await open(clocks, store);
    send(right, 'a', 100);
    await right.flush();
    expect(await store.load(['2026-12-22'])).toEqual([]);
  });

  test('a day apart of two holders: neither forgets what the other counts', async () => {
    const store = new MemoryCounterStore();
    const one = await open(new TestClocks('2026-11-30T23:59:50Z'), store);
    const other = await open(new TestClocks('2026-12-01T00:00:10Z'), store.another());
    send(one, 'a', 100);
    await one.flush();
    send(other, 'b', 100);
    await other.flush();
    send(one, 'c', 1);
    await one.flush();
    const kept = await store.load(['2026-11-30', '2026-12-01', '2026-11', '2026-12']);
    expect(new Set(kept.map(({ period, client, bytes }) => `${period} ${client} ${bytes}`))).toEqual(
      new Set(['2026-11-30 a 100', '2026-11-30 c 1', '2026-12-01 b 100', '2026-11 * 101', '2026-12 * 100']),
    );
  });
});

describe('a fill', () => {
  test('sets aside what it is going to fetch, and what its client is going to be sent must fit beside it', async () => {
    const one = await open(new TestClocks('2026-11-22T00:00:00Z'), undefined, { day: null, month: 1000 });
    const first = one.fill('a');
    first.promise(400, 400);
    const reply = one.reserve('a', { bytes: 400, fetched: false });
    // Two hundred are left.
    const second = one.fill('b');
    expect(refusal(() => second.promise(300, 300)).message).toContain(
      '200 of them are left, too few for the 600 of fetching and sending this',
    );
    second.promise(100, 100);
    first.fetched(400);
    first.close();
    reply.sent(400);
    reply.close();
    second.close();
    second.close();
    one.fill('b').promise(100, 100);
    expect(refusal(() => one.fill('c').promise(150, 150)).message).toContain('100 of them are left');
  });

  test('of all that a client may have a day can be sent to it, too', async () => {
    const one = await open(new TestClocks('2026-11-22T00:00:00Z'), undefined, { day: 100, month: null });
    const fill = one.fill('a');
    fill.promise(100, 100);
    expect(refusal(() => one.fill('a').promise(1, 0)).message).toContain('0 of them are left, too few for the 1');
    const reply = one.reserve('a', { bytes: 100, fetched: false });
    fill.fetched(100);
    fill.close();
    expect(reply.sent(100)).toBe(true);
    reply.close();
    expect(refusal(() => one.check('a')).message).toContain('0 of them are left');
  });

  test('that is slow, or lies about its length, keeps nobody else from the month', async () => {
    const one = await open(new TestClocks('2026-11-22T00:00:00Z'), undefined, { day: null, month: 1000 });
    const slow = one.fill('a');
    slow.promise(900, 0);
    const honest = one.fill('b');
    honest.promise(200, 200);
    honest.fetched(200);
    honest.close();
    send(one, 'b', 200);
    // Where it comes all the same, it ends with the month.
    expect(slow.fetched(500)).toBe(true);
    expect(slow.fetched(100)).toBe(false);
    expect(slow.fetched(1)).toBe(false);
  });
});
