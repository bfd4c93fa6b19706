import { describe, expect, test } from 'vitest';
import { type Lock, unlessHeld } from '../../../src/kit/locks.ts';

function granting() {
  const lost = new AbortController();
  let released = 0;
  const lock: Lock = {
    name: 'work',
    fence: 1,
    lost: lost.signal,
    release: async () => {
      released += 1;
    },
  };
  return { lock, lost, locks: { tryAcquire: async () => lock }, released: () => released };
}

describe('unlessHeld', () => {
  const { signal } = new AbortController();

  test('does nothing where another holds the lock', async () => {
    let ran = false;
    await unlessHeld({ tryAcquire: async () => null }, 'work', { leaseMs: 1, signal }, async () => {
      ran = true;
    });
    expect(ran).toBe(false);
  });

  test('gives the lock back, also where the task fails', async () => {
    const { locks, lock, released } = granting();
    await unlessHeld(locks, 'work', { leaseMs: 1, signal }, async (held) => expect(held).toBe(lock));
    expect(released()).toBe(1);
    const failing = unlessHeld(locks, 'work', { leaseMs: 1, signal }, () => Promise.reject(new Error('no')));
    await expect(failing).rejects.toThrow('no');
    expect(released()).toBe(2);
  });

  test('ends the task when the lock is lost, or nobody wants it any more', async () => {
    const { locks, lost } = granting();
    await unlessHeld(locks, 'work', { leaseMs: 1, signal }, async (_, ended) => {
      expect(ended.aborted).toBe(false);
      lost.abort();
      expect(ended.aborted).toBe(true);
    });
    const closing = new AbortController();
    await unlessHeld(granting().locks, 'work', { leaseMs: 1, signal: closing.signal }, async (_, ended) => {
      closing.abort();
      expect(ended.aborted).toBe(true);
    });
  });
});
