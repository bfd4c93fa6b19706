import { expect, it } from 'vitest';
import { Account } from '../../../src/acme/account.ts';
import type { Lock, Locks } from '../../../src/kit/locks.ts';
import { MemoryCertStore } from '../../support/cert-store.ts';

const CA = { directory: 'https://ca.example/dir', caFile: null, eab: null, profile: null };

it('registers once for all hosts that start together, which share a failure too', async () => {
  let acquired = 0;
  const acquire = async (): Promise<Lock> => {
    acquired++;
    throw new Error('the CA hangs');
  };
  const locks: Locks = { acquire, tryAcquire: acquire, holder: async () => null };
  const account = new Account(CA, null, new MemoryCertStore(), locks);
  const { signal } = new AbortController();
  const outcomes = await Promise.allSettled([1, 2, 3].map(() => account.client(signal)));
  expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
  expect(acquired).toBe(1);
  await expect(account.client(signal)).rejects.toThrow('the CA hangs');
  expect(acquired).toBe(2);
});
