import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { type Moment, moment } from '../../../src/kit/freshness.ts';
import { KnownUntil } from '../../../src/postgres/known-until.ts';
import { Uptake } from '../../../src/postgres/uptake.ts';

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance', 'Date', 'setTimeout', 'clearTimeout'] }));
afterEach(() => void vi.useRealTimers());

/** A node, and the database as its feed sees it. */
function node() {
  let told: (asked: Moment, answered: boolean) => void = () => {};
  let revision = 0;
  const revisions = { revision: () => revision };
  const uptake = new Uptake(revisions);
  uptake.watch(
    'users',
    () => {},
    () => {},
  );
  const feed = {
    ...revisions,
    onAttempt(listener: typeof told) {
      told = listener;
      return () => {};
    },
  };
  const published = vi.fn(async () => {});
  const warn = vi.fn();
  const { freshness } = new KnownUntil({ feed, uptake, published, log: { warn } });
  return {
    freshness,
    warn,
    published,
    isOver: () => freshness.isOver(performance.now()),
    tell: (asked: Moment, answered: boolean) => told(asked, answered),
    change: () => {
      revision++;
    },
    load: () => uptake.load('users', async () => {}),
  };
}

/** How it went so far. */
async function settled(promise: Promise<void>): Promise<boolean> {
  let is = false;
  void promise.then(() => {
    is = true;
  });
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  return is;
}

it('serves for some seconds after each answer of the database', () => {
  const { tell, isOver } = node();
  for (let poll = 0; poll < 10; poll++) {
    vi.advanceTimersByTime(2_000);
    tell(moment(), true);
    expect(isOver()).toBe(false);
  }
  vi.advanceTimersByTime(11_000);
  expect(isOver()).toBe(true);
});

it('goes on while the database is found to be away, however long', () => {
  const { tell, isOver } = node();
  for (let attempt = 0; attempt < 1_000; attempt++) {
    const asked = moment();
    vi.advanceTimersByTime(5_000);
    tell(asked, false);
    vi.advanceTimersByTime(9_000);
    expect(isOver()).toBe(false);
  }
});

it('counts from the answer once the database is back', () => {
  const { tell, isOver } = node();
  tell(moment(), false);
  vi.advanceTimersByTime(1_000);
  tell(moment(), true);
  vi.advanceTimersByTime(11_000);
  expect(isOver()).toBe(true);
});

it('serves nobody after it stood still, until what had changed is loaded and every process has it', async () => {
  const { tell, isOver, freshness, change, load, published } = node();
  const before = moment();
  vi.advanceTimersByTime(27_000);
  expect(isOver()).toBe(true);
  const waiting = freshness.renewed();
  // What was asked before says nothing of now: neither an answer that lay in the socket, nor a timeout that is long over.
  tell(before, true);
  tell(before, false);
  expect(await settled(waiting)).toBe(false);
  change();
  tell(moment(), true);
  expect(await settled(waiting)).toBe(false);
  expect(published).toHaveBeenCalledTimes(1);
  await load();
  expect(await settled(waiting)).toBe(true);
  expect(published).toHaveBeenCalledTimes(2);
  expect(isOver()).toBe(false);
});

it('finds that the machine slept, through which its steady clock stood', () => {
  const { isOver } = node();
  vi.setSystemTime(Date.now() + 60_000);
  expect(isOver()).toBe(true);
});

it('keeps nobody waiting for a database that neither answers nor fails', async () => {
  const { freshness, warn, isOver } = node();
  vi.advanceTimersByTime(27_000);
  const waiting = freshness.renewed();
  await vi.advanceTimersByTimeAsync(7_900);
  expect(await settled(waiting)).toBe(false);
  await vi.advanceTimersByTimeAsync(200);
  expect(await settled(waiting)).toBe(true);
  expect(isOver()).toBe(false);
  expect(warn).toHaveBeenCalledOnce();
});
