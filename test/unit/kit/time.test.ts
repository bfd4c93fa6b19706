import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { elapsed, shareSteadyClock, steadyClock, steadyNow, throttled } from '../../../src/kit/time.ts';

afterEach(() => vi.restoreAllMocks());

describe('the clock for times that are compared', () => {
  it('goes on evenly while the machine’s clock is set back or forward', () => {
    const before = steadyNow();
    for (const leap of [-86_400_000, 86_400_000]) {
      vi.spyOn(Date, 'now').mockReturnValue(before + leap);
      expect(steadyNow()).toBeGreaterThanOrEqual(before);
      expect(steadyNow()).toBeLessThan(before + 3_600_000);
    }
  });

  it('takes a time that is still to come for one that is long ago', () => {
    expect(elapsed(1_000, 1_500)).toBe(500);
    expect(elapsed(1_500, 1_500)).toBe(0);
    expect(elapsed(1_501, 1_500)).toBe(Number.POSITIVE_INFINITY);
  });

  it('is the same in another process of the gateway, even where the machine’s clock was set between their starts', () => {
    const time = fileURLToPath(new URL('../../../src/kit/time.ts', import.meta.url));
    const program = `
      const wrong = Date.now() - 86_400_000;
      Date.now = () => wrong;
      const { shareSteadyClock, steadyNow } = await import(${JSON.stringify(time)});
      shareSteadyClock(${steadyClock()});
      console.log(steadyNow());`;
    const before = steadyNow();
    const ran = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
    const there = Number(ran.stdout);
    expect(there).toBeGreaterThanOrEqual(before);
    expect(there).toBeLessThanOrEqual(steadyNow());
    shareSteadyClock(steadyClock());
  });
});

describe('values that come often', () => {
  it('are handed on after a pause, the first and the last in any case', () => {
    const now = vi.spyOn(performance, 'now');
    const told: number[] = [];
    const tell = throttled<number>(100, (value) => told.push(value));
    for (const [at, value] of [
      [5, 1],
      [50, 2],
      [104, 3],
      [105, 4],
      [150, 5],
      [206, 6],
    ] as const) {
      now.mockReturnValue(at);
      tell(value, false);
    }
    expect(told).toEqual([1, 4, 6]);
    tell(7, true);
    expect(told).toEqual([1, 4, 6, 7]);
  });
});
