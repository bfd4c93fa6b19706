import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type PacedBody, SlowReaderWatch } from '../../../src/edge/slow-readers.ts';

const OVER = 120_000;
const RATE = 1024;
const CHUNK = 64 * 1024;

class Body implements PacedBody {
  taken = 0;
  waiting = CHUNK;
  cuts = 0;
  cut(): void {
    this.cuts += 1;
  }
}

let watch: SlowReaderWatch;
let body: Body;
beforeEach(() => {
  vi.useFakeTimers();
  watch = new SlowReaderWatch(RATE, OVER);
  body = new Body();
});
afterEach(() => vi.useRealTimers());

/** Lets the reader take whole chunks at a rate, for so many minutes. */
function read(bytesPerSecond: number, minutes: number): void {
  let owed = 0;
  for (let second = 0; second < minutes * 60; second++) {
    vi.advanceTimersByTime(1_000);
    owed += bytesPerSecond;
    while (owed >= CHUNK) {
      owed -= CHUNK;
      body.taken += CHUNK;
    }
  }
}

test('a reader that takes nothing is cut after two minutes, not before', () => {
  watch.watch(body, () => true);
  read(0, 1.9);
  expect(body.cuts).toBe(0);
  read(0, 0.5);
  expect(body.cuts).toBeGreaterThan(0);
});

test.each([
  [1_100, 60, 0],
  [2_048, 60, 0],
  [900, 20, 1],
  [100, 3, 1],
])('at %i bytes a second, for %i minutes', (rate, minutes, cut) => {
  watch.watch(body, () => true);
  read(rate, minutes);
  expect(Math.min(1, body.cuts)).toBe(cut);
});

test('who took much at first and then nothing is cut', () => {
  watch.watch(body, () => true);
  read(10_000_000, 1);
  read(0, 5);
  expect(body.cuts).toBeGreaterThan(0);
});

test('a source that pauses is not its reader’s fault', () => {
  watch.watch(body, () => true);
  body.waiting = 0;
  read(0, 60);
  expect(body.cuts).toBe(0);
  body.waiting = CHUNK;
  read(0, 1.8);
  expect(body.cuts).toBe(0);
});

test('where it holds nobody up it may take its time, until it does', () => {
  let holdsUp = false;
  watch.watch(body, () => holdsUp);
  read(0, 30);
  expect(body.cuts).toBe(0);
  holdsUp = true;
  read(0, 1);
  expect(body.cuts).toBeGreaterThan(0);
});

test('what is watched no more is left alone, and no timer stays', () => {
  const end = watch.watch(body, () => true);
  end();
  read(0, 5);
  expect([body.cuts, vi.getTimerCount()]).toEqual([0, 0]);
});
