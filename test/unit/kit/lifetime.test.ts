import { getEventListeners } from 'node:events';
import { expect, it } from 'vitest';
import { Lifetime } from '../../../src/kit/async.ts';

it('gives each task a signal of its own, and ends them all', async () => {
  const lifetime = new Lifetime();
  const signals: AbortSignal[] = [];
  const never = (signal: AbortSignal) =>
    new Promise<never>((_, reject) => {
      signals.push(signal);
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  const waiting = Array.from({ length: 5_000 }, () => lifetime.run(never).catch((error: Error) => error.message));
  expect(Math.max(...signals.map((signal) => getEventListeners(signal, 'abort').length))).toBe(1);
  expect(await lifetime.run(async () => 7)).toBe(7);
  expect(lifetime.size).toBe(5_000);
  lifetime.end(new Error('it stops'));
  expect(new Set(await Promise.all(waiting))).toEqual(new Set(['it stops']));
  expect(lifetime.size).toBe(0);
  await expect(lifetime.run(never)).rejects.toThrow('it stops');
});
