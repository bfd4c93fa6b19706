import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { collectAfterStart } from '../../../src/kit/process.ts';

const gc = vi.fn();
/** ms that this process was at work, and had nothing to do, so far. */
const loop = { active: 0, idle: 0 };

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  vi.stubGlobal('gc', gc);
  Object.assign(loop, { active: 0, idle: 0 });
  vi.spyOn(performance, 'eventLoopUtilization').mockImplementation((now = { ...loop, utilization: 0 }, before) => {
    const active = now.active - (before?.active ?? 0);
    const idle = now.idle - (before?.idle ?? 0);
    return { active, idle, utilization: active + idle === 0 ? 0 : active / (active + idle) };
  });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
  gc.mockClear();
});

/** Five seconds pass, of which it was at work for so many. */
function pass(busy: number): void {
  loop.active += busy * 1000;
  loop.idle += (5 - busy) * 1000;
  vi.advanceTimersByTime(5_000);
}

test('a process that has nothing to do after its start is collected once', () => {
  collectAfterStart();
  expect(gc).not.toHaveBeenCalled();
  pass(0.1);
  pass(0.1);
  expect(gc).toHaveBeenCalledTimes(1);
});

test('nobody waits for it: where there is work, the first quiet moment is waited for', () => {
  collectAfterStart();
  pass(4);
  pass(0.5);
  expect(gc).not.toHaveBeenCalled();
  pass(0);
  expect(gc).toHaveBeenCalledTimes(1);
});

test('without the flag for it there is none', () => {
  vi.stubGlobal('gc', undefined);
  collectAfterStart();
  expect(vi.getTimerCount()).toBe(0);
});
