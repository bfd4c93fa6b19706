import { describe, expect, it } from 'vitest';
import { GIVEN_UP_AFTER, nextWait, WAITS } from '../../../src/certs/schedule.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** Without jitter. */
const middle = () => 0.5;
const first = { failures: 1, failingFor: 0, lifetime: null };

describe('nextWait', () => {
  it('goes through the table, then waits six hours', () => {
    const waits = Array.from({ length: 30 }, (_, n) => nextWait({ ...first, failures: n + 1 }, middle) / MINUTE);
    expect(waits.slice(0, 8)).toEqual([1, 2, 2, 5, 10, 10, 10, 20]);
    expect(waits[WAITS.length - 1]).toBe(180);
    expect(waits.slice(WAITS.length)).toEqual(waits.slice(WAITS.length).map(() => 360));
  });

  it('takes most of a day for the table, so that an outage of a day is bridged with few questions', () => {
    const total = WAITS.reduce((sum, wait) => sum + wait, 0);
    expect(total).toBeGreaterThan(16 * HOUR);
    expect(WAITS.length).toBeLessThan(30);
  });

  it('never gives up, but asks once a day after a month', () => {
    expect(nextWait({ ...first, failures: 200, failingFor: GIVEN_UP_AFTER + 1 }, middle)).toBe(DAY);
  });

  it('spreads waits by a fifth, both ways', () => {
    expect(nextWait(first, () => 0)).toBe(48_000);
    expect(nextWait(first, () => 1)).toBe(72_000);
  });

  it('waits no longer than a twentieth of the life of a certificate that runs out', () => {
    expect(nextWait({ ...first, failures: 9, lifetime: MINUTE }, middle)).toBe(3_000);
    expect(nextWait({ ...first, failures: 9, lifetime: 10_000 }, middle)).toBe(2_000);
    expect(nextWait({ ...first, failures: 9, lifetime: 90 * DAY }, middle)).toBe(20 * MINUTE);
    expect(nextWait({ ...first, failures: 99, lifetime: 4 * HOUR }, middle)).toBe(12 * MINUTE);
  });
});
