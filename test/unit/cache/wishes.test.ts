import { describe, expect, it } from 'vitest';
import { ReadWishes } from '../../../src/cache/wishes.ts';
import { IntervalSet } from '../../../src/kit/interval-set.ts';

const MIB = 1024 * 1024;
const SIZE = 64 * MIB;
const lacking = (...held: [number, number][]) =>
  IntervalSet.complement(
    held.map(([from, to]) => ({ from, to })),
    SIZE,
  );
const asked = (from: number, to: number | undefined) => ({ from, to, openEnded: to === undefined });

function wishes(part?: { from: number; to: number | undefined; openEnded: boolean }, admit = true) {
  const made = new ReadWishes(part, () => admit);
  made.setSize(SIZE);
  return made;
}

describe('the wishes of a blob’s readers', () => {
  it('are all of it in order, as one, where nobody asked for a part', () => {
    const made = new ReadWishes(undefined, () => true);
    expect(made.next(IntervalSet.complement([]))).toEqual({ from: 0, to: Number.POSITIVE_INFINITY, urgent: false });
    made.setSize(SIZE);
    expect(made.next(lacking([0, 5]))).toEqual({ from: 5, to: SIZE, urgent: false });
    expect(made.next(lacking([0, SIZE]))).toBeNull();
  });

  it('are the part of the one who began, and nothing behind it', () => {
    const made = wishes(asked(MIB, 3 * MIB));
    expect(made.next(lacking())).toMatchObject({ from: MIB, to: 3 * MIB });
    expect(made.next(lacking([MIB, 2 * MIB]))).toMatchObject({ from: 2 * MIB, to: 3 * MIB });
    expect(made.next(lacking([MIB, 3 * MIB]))).toBeNull();
  });

  it('go by turn: who has least ahead comes first, and nobody gets more than a segment', () => {
    const made = wishes(asked(0, 10 * MIB));
    const one = made.add(asked(0, 10 * MIB));
    const two = made.add(asked(20 * MIB, 30 * MIB));
    const first = made.next(lacking());
    expect(first).toMatchObject({ from: 0, to: 2 * MIB });
    expect(made.next(lacking([0, 2 * MIB]))).toMatchObject({ from: 20 * MIB, to: 22 * MIB });
    one.moved(2 * MIB);
    expect(made.next(lacking([0, 2 * MIB], [20 * MIB, 21 * MIB]))).toMatchObject({ from: 2 * MIB });
    two.close();
    one.close();
    expect(made.next(lacking())).toBeNull();
  });

  it('are urgent where a reader waits for the first of the bytes, and not where it does not', () => {
    const made = wishes(asked(0, MIB));
    const want = made.add(asked(0, MIB));
    let changes = 0;
    made.onChange(() => changes++);
    expect(made.next(lacking())?.urgent).toBe(false);
    want.waits(0);
    expect([made.next(lacking())?.urgent, changes]).toEqual([true, 1]);
    expect(made.next(lacking([0, 100]))?.urgent).toBe(false);
  });

  it('of a range without an end go a little ahead of its reader, more as it takes more', () => {
    const made = wishes(asked(8 * MIB, undefined));
    const want = made.add(asked(8 * MIB, undefined));
    expect(made.next(lacking())).toMatchObject({ from: 8 * MIB, to: 9 * MIB });
    want.moved(12 * MIB);
    expect(made.next(lacking([8 * MIB, 12 * MIB]))).toMatchObject({ from: 12 * MIB, to: 16 * MIB });
    want.close();
    expect(made.next(lacking([8 * MIB, 12 * MIB]))).toBeNull();
  });

  it('become all of it once half was asked for, by earlier readers too', () => {
    const made = wishes(asked(0, 20 * MIB));
    made.held([{ from: 40 * MIB, to: 50 * MIB }]);
    expect(made.whole).toBe(false);
    made.add(asked(50 * MIB, 52 * MIB)).close();
    expect(made.whole).toBe(true);
    expect(made.next(lacking())).toMatchObject({ from: 0, to: SIZE });
  });

  it('stay parts where the cache has no room for all of it, until somebody needs it', () => {
    const asks: boolean[] = [];
    const made = new ReadWishes(asked(0, MIB), (required) => {
      asks.push(required);
      return required;
    });
    made.setSize(SIZE);
    made.add(asked(0, 40 * MIB)).close();
    expect([made.whole, asks.at(-1)]).toEqual([false, false]);
    made.add({ from: 0, to: undefined, openEnded: false });
    expect([made.whole, asks.at(-1)]).toEqual([true, true]);
  });

  it('give those who read all of it a turn beside those who want parts', () => {
    const made = wishes();
    const whole = made.add({ from: 0, to: undefined, openEnded: false });
    const part = made.add(asked(30 * MIB, 50 * MIB));
    part.waits(30 * MIB);
    whole.waits(0);
    expect(made.next(lacking())).toMatchObject({ from: 30 * MIB, urgent: true });
    part.moved(32 * MIB);
    part.waits(32 * MIB);
    expect(made.next(lacking([30 * MIB, 32 * MIB]))).toMatchObject({ from: 0, to: 2 * MIB, urgent: true });
  });

  it('that lie near each other are one, with what is between them; others are not', () => {
    const made = wishes(asked(MIB, MIB + 10));
    const near = 8 * 1024;
    for (const from of [MIB + 10 + near, MIB, MIB - near - 10]) made.add(asked(from, from + 10));
    made.add(asked(MIB - 3 * near, MIB - 3 * near + 10));
    made.add(asked(3 * MIB, 3 * MIB + 10)).waits(3 * MIB);
    expect(made.next(lacking())).toEqual({ from: 3 * MIB, to: 3 * MIB + 10, urgent: true });
    const rest = lacking([3 * MIB, 3 * MIB + 10]);
    expect(made.next(rest)).toEqual({ from: MIB - near - 10, to: MIB + near + 20, urgent: false });
    rest.remove(MIB - near - 10, MIB + near + 20);
    expect(made.next(rest)).toEqual({ from: MIB - 3 * near, to: MIB - 3 * near + 10, urgent: false });
  });

  it('that lie near each other are never more than one segment, in the same missing bytes', () => {
    const made = wishes(asked(4 * MIB, 4 * MIB + 10));
    for (let at = 0; at < 3 * MIB; at += 4000) made.add(asked(4 * MIB + at, 4 * MIB + at + 10));
    const wish = made.next(lacking());
    expect(wish).toMatchObject({ from: 4 * MIB });
    expect(wish?.to).toBeLessThanOrEqual(6 * MIB);
    expect(wish?.to).toBeGreaterThan(6 * MIB - 4010);
    expect(made.next(lacking([4 * MIB + 6000, 4 * MIB + 6001]))).toMatchObject({ from: 4 * MIB, to: 4 * MIB + 4010 });
  });

  it('of too many pieces become all of it', () => {
    const made = wishes(asked(0, 1));
    for (let at = 0; at < 5000; at++) made.add(asked(at * 1000, at * 1000 + 1)).close();
    expect(made.whole).toBe(true);
  });

  it('wait for a change, for so long', async () => {
    const made = wishes(asked(0, 1));
    const { signal } = new AbortController();
    expect(await made.changed(1, signal)).toBe(false);
    const waiting = made.changed(60_000, signal);
    made.add(asked(5, 6));
    expect(await waiting).toBe(true);
    expect(await made.changed(60_000, AbortSignal.abort())).toBe(true);
  });
});
