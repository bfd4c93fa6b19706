import { describe, expect, it } from 'vitest';
import { Budget, type Spending } from '../../../src/upstream/budget.ts';
import { BudgetError } from '../../../src/upstream/failures.ts';
import type { RateLimit } from '../../../src/upstream/rate-limit-headers.ts';

const HOUR = 3_600_000;
const signal = new AbortController().signal;
const NEW: Spending = { repository: 'app', sparing: false };
const MOVED: Spending = { repository: 'app', sparing: true };

function said(remaining: number, more: Partial<RateLimit> = {}): RateLimit {
  return { limit: 100, remaining, windowMs: 6 * HOUR, resetMs: null, source: null, ...more };
}

function bed(): { budget: Budget; clock: { at: number } } {
  const clock = { at: 0 };
  return { budget: new Budget({ host: 'hub.test', account: null }, () => clock.at), clock };
}

/** Why a pull is not allowed, and in how many seconds one is; `allowed` where it is. */
async function verdictOf(pull: Promise<unknown>): Promise<string | [kind: string, retryAfter: number | undefined]> {
  try {
    await pull;
    return 'allowed';
  } catch (error) {
    if (!(error instanceof BudgetError)) throw error;
    return [error.spent.kind, error.retryAfter];
  }
}

/** A pull from beginning to end. */
async function pulls(budget: Budget, status: number, limit: RateLimit | null, spending = NEW): Promise<void> {
  const pull = await budget.take(spending, signal);
  pull.sends();
  pull.answered(status, limit);
  pull.close();
}

describe('a budget of pulls', () => {
  it('of which nothing is known is found out by one, while the others wait for its answer', async () => {
    const { budget } = bed();
    const first = await budget.take(NEW, signal);
    let admitted = 0;
    const others = [1, 2, 3].map(() => budget.take(NEW, signal).then(() => admitted++));
    await Promise.resolve();
    expect(admitted).toBe(0);
    first.sends();
    first.answered(200, said(2));
    first.close();
    const outcomes = await Promise.allSettled(others);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected']);
  });

  it('of a mirror that has nothing is not waited for again and again', async () => {
    const { budget } = bed();
    for (let turn = 0; turn < 4; turn++) await pulls(budget, 404, null);
    await Promise.all(Array.from({ length: 1000 }, () => budget.take(NEW, signal)));
    // What it says then counts all the same.
    budget.heard(said(500), 0);
    expect(await verdictOf(budget.take(NEW, signal))).toEqual(['used up', 1]);
  });

  it('that was small is waited for, whatever is not there', async () => {
    const { budget, clock } = bed();
    budget.heard(said(0), 0);
    clock.at += 7 * HOUR;
    for (let turn = 0; turn < 8; turn++) await pulls(budget, 404, null);
    await budget.take(NEW, signal);
    let admitted = false;
    const second = budget.take(NEW, signal).then(() => {
      admitted = true;
    });
    second.catch(() => {});
    await Promise.resolve();
    expect(admitted).toBe(false);
  });

  it('that there is not holds nobody up', async () => {
    const { budget } = bed();
    await pulls(budget, 200, null);
    await Promise.all(Array.from({ length: 1000 }, () => budget.take(NEW, signal)));
    expect(budget.known).toBeNull();
  });

  it('is never overrun by a burst: what is under way counts', async () => {
    const { budget } = bed();
    budget.heard(said(10), 0);
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => verdictOf(budget.take(NEW, signal))));
    expect(outcomes.filter((outcome) => outcome === 'allowed')).toHaveLength(10);
    // Nobody knows yet whether those will count: soon it is clear.
    expect(outcomes[10]).toEqual(['used up', 1]);
  });

  it('loses nothing by what was not counted, and one by what may have been', async () => {
    const { budget } = bed();
    budget.heard(said(10), 0);
    await pulls(budget, 404, null);
    expect(budget.known?.remaining).toBe(10);
    await pulls(budget, 200, null);
    expect(budget.known?.remaining).toBe(9);
    const lost = await budget.take(NEW, signal);
    lost.sends();
    lost.close();
    expect(budget.known?.remaining).toBe(8);
    const neverSent = await budget.take(NEW, signal);
    neverSent.close();
    neverSent.close();
    expect(budget.known?.remaining).toBe(8);
  });

  it('counts a request that was sent once more beside as two', async () => {
    const { budget } = bed();
    budget.heard(said(2), 0);
    const pull = await budget.take(NEW, signal);
    pull.sends();
    expect([pull.again(), pull.again()]).toEqual([true, false]);
    expect(await verdictOf(budget.take(NEW, signal))).toEqual(['used up', 1]);
    pull.answered(200, said(1));
    pull.close();
    expect(budget.known?.remaining).toBe(0);
  });

  it('believes no older answer that says more', async () => {
    const { budget, clock } = bed();
    budget.heard(said(50), 0);
    clock.at = 10;
    const late = await budget.take(NEW, signal);
    late.sends();
    clock.at = 20;
    budget.heard(said(20), 15);
    late.answered(200, said(49));
    late.close();
    expect(budget.known?.remaining).toBe(20);
    budget.heard(said(49), 21);
    expect(budget.known?.remaining).toBe(49);
  });

  it('that is used up rests until its window ends; then one alone tries', async () => {
    const { budget, clock } = bed();
    budget.heard(said(1), 0);
    clock.at = HOUR;
    await pulls(budget, 200, said(0));
    expect(await verdictOf(budget.take(NEW, signal))).toEqual(['used up', 5 * 3600]);
    clock.at = 6 * HOUR;
    expect(budget.isScarce).toBe(true);
    const trial = await budget.take(NEW, signal);
    const waits = budget.take(NEW, signal);
    trial.sends();
    clock.at += 5;
    trial.answered(200, said(99));
    trial.close();
    await waits;
    expect(budget.known).toMatchObject({ remaining: 99, endsInMs: 6 * HOUR });
  });

  it('whose trial is not answered is tried by another, and by nobody beside it', async () => {
    const { budget, clock } = bed();
    budget.heard(said(0), 0);
    clock.at = 6 * HOUR;
    const trial = await budget.take(NEW, signal);
    const next = budget.take(NEW, signal);
    const last = verdictOf(budget.take(NEW, signal));
    trial.sends();
    trial.close();
    await next;
    clock.at += 2_000;
    expect(await last).toEqual(['used up', 1]);
  });

  it('is new as soon as a HEAD says so', async () => {
    const { budget, clock } = bed();
    budget.usedUp(3600);
    expect(await verdictOf(budget.take(NEW, signal))).toEqual(['used up', 3600]);
    clock.at = 1000;
    budget.heard(said(7), 900);
    expect(await verdictOf(budget.take(NEW, signal))).toBe('allowed');
  });

  it('rests for as long as a 429 asks, else for its window', async () => {
    const { budget, clock } = bed();
    expect(budget.usedUp(90).retryAfter).toBe(90);
    budget.heard(said(5), 1);
    clock.at = HOUR;
    expect(budget.usedUp(undefined).retryAfter).toBe(5 * 3600);
  });

  it('keeps half of its limit for what is not here, while something kept can be served', async () => {
    const { budget } = bed();
    budget.heard(said(51), 0);
    const moved = await budget.take(MOVED, signal);
    expect(await verdictOf(budget.take(MOVED, signal))).toEqual(['reserved', 6 * 3600]);
    const other = await budget.take(NEW, signal);
    moved.close();
    other.close();
    budget.heard(said(50), 1);
    expect(await verdictOf(budget.take(MOVED, signal))).toEqual(['reserved', 6 * 3600]);
    for (let i = 0; i < 50; i++) await budget.take(NEW, signal);
  });

  it('keeps less towards the end of the window, with which what is left is lost', async () => {
    const { budget, clock } = bed();
    budget.heard(said(40), 0);
    clock.at = HOUR;
    expect(await verdictOf(budget.take(MOVED, signal))).toEqual(['reserved', 5 * 3600]);
    clock.at = 3 * HOUR;
    for (let i = 0; i < 15; i++) await budget.take(MOVED, signal);
    expect(await verdictOf(budget.take(MOVED, signal))).toEqual(['reserved', 3 * 3600]);
  });

  it('sets pulls aside for what an index names, and for nobody else', async () => {
    const { budget, clock } = bed();
    budget.heard(said(3), 0);
    expect(budget.setAside(NEW, 'sha256:a', 2)).toBeNull();
    // Said again it is for the same.
    expect(budget.setAside(NEW, 'sha256:a', 2)).toBeNull();
    const other: Spending = { repository: 'other', sparing: false };
    expect(budget.setAside(other, 'sha256:b', 2)?.spent.kind).toBe('used up');
    await budget.take(other, signal);
    expect(await verdictOf(budget.take(other, signal))).toEqual(['used up', 1]);
    for (let i = 0; i < 2; i++) await budget.take(NEW, signal);
    expect(await verdictOf(budget.take(NEW, signal))).toEqual(['used up', 1]);
    clock.at = 60_001;
    expect(budget.setAside(other, 'sha256:b', 1)?.spent.kind).toBe('used up');
  });

  it('does not keep for long what nobody came for', async () => {
    const { budget, clock } = bed();
    budget.heard(said(2), 0);
    budget.setAside(NEW, 'sha256:a', 2);
    const other: Spending = { repository: 'other', sparing: false };
    expect(await verdictOf(budget.take(other, signal))).not.toBe('allowed');
    clock.at = 60_001;
    expect(await verdictOf(budget.take(other, signal))).toBe('allowed');
  });

  it('by the minute is not economised on, and is whole again after it', async () => {
    const { budget, clock } = bed();
    budget.heard(said(3, { windowMs: 60_000 }), 0);
    expect([budget.isScarce, budget.setAside(MOVED, 'sha256:a', 90)]).toEqual([false, null]);
    expect(await verdictOf(budget.take(MOVED, signal))).toBe('allowed');
    budget.heard(said(0, { windowMs: 60_000 }), 1);
    expect(await verdictOf(budget.take(NEW, signal))).toEqual(['used up', 60]);
    clock.at = 60_000;
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => verdictOf(budget.take(NEW, signal))));
    expect(new Set(outcomes)).toEqual(new Set(['allowed']));
  });

  it('ends the wait of who leaves', async () => {
    const { budget } = bed();
    await budget.take(NEW, signal);
    const leaving = new AbortController();
    const waits = budget.take(NEW, leaving.signal);
    leaving.abort(new Error('gone'));
    await expect(waits).rejects.toThrow('gone');
  });

  it('holds nobody up for long where the first is not answered and no limit was ever told of', async () => {
    const { budget, clock } = bed();
    await budget.take(NEW, signal);
    const waits = budget.take(NEW, signal);
    clock.at = 2_000;
    await waits;
  });
});

describe('1,000 random pulls', () => {
  it('never cost more than there was, whatever comes late, is lost or moves beside them', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      let state = seed;
      const random = (below: number): number => {
        state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
        return (state >>> 8) % below;
      };
      const { budget, clock } = bed();
      budget.heard(said(100), 0);
      let served = 0;
      const running: { finish: () => void }[] = [];
      for (let step = 0; step < 1_000; step++) {
        clock.at += random(50);
        if (random(10) === 0) budget.heard(said(100 - served), clock.at);
        const pull = await budget
          .take({ repository: `r${random(5)}`, sparing: random(2) === 0 }, signal)
          .catch(() => null);
        if (pull !== null) {
          pull.sends();
          served += 1;
          const limit = random(4) === 0 ? null : said(100 - served);
          const isLost = random(8) === 0;
          const finish = (): void => {
            if (!isLost) pull.answered(200, limit);
            pull.close();
          };
          running.push({ finish });
        }
        while (running.length > 0 && random(3) === 0) running.splice(random(running.length), 1)[0]?.finish();
        expect(served).toBeLessThanOrEqual(100);
      }
      expect(served).toBeGreaterThan(90);
    }
  });
});
