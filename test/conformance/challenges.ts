import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { Challenge, Challenges, DnsChallenge } from '../../src/certs/challenges.ts';
import { FencedError, type Locks } from '../../src/kit/locks.ts';

export interface ChallengesHarness {
  readonly store: Challenges;
  /** Another holder of the same store. */
  readonly other: Challenges;
  /** The same store, opened anew: what was durable is there. */
  reopen(): Challenges | Promise<Challenges>;
  /** Whose fences the store knows. */
  readonly locks: Locks;
}

const NOW = 1_700_000_000_000;
const http = (change: Partial<Challenge> = {}) =>
  ({
    type: 'http-01',
    token: 'tok-1',
    keyAuthorization: 'tok-1.thumb',
    expiresAt: NOW + 60_000,
    ...change,
  }) as Challenge;
const alpn = (change: Partial<Challenge> = {}) =>
  ({
    type: 'tls-alpn-01',
    host: 'a.example.com',
    chain: '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n',
    key: '-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n',
    expiresAt: NOW + 60_000,
    ...change,
  }) as Challenge;

const dns = (change: Partial<Challenge> = {}) =>
  ({
    type: 'dns-01',
    host: '*.example.com',
    zone: 'example.com',
    provider: 'cloudflare',
    name: '_acme-challenge.example.com',
    value: 'digest-1',
    expiresAt: NOW + 60_000,
    ...change,
  }) as Challenge;

/** The contract of Challenges. */
export function challengesConformance(name: string, open: () => ChallengesHarness | Promise<ChallengesHarness>): void {
  describe(`Challenges: ${name}`, () => {
    let harness: ChallengesHarness;
    let store: Challenges;
    beforeEach(async () => {
      harness = await open();
      store = harness.store;
    });

    it('keeps challenges of every type whole, for every node and over a restart', async () => {
      expect(await store.list(NOW)).toEqual([]);
      await store.put(http());
      await store.put(alpn());
      await store.put(dns());
      const expected = expect.arrayContaining([http(), alpn(), dns()]);
      for (const holder of [store, harness.other, await harness.reopen()])
        expect(await holder.list(NOW)).toEqual(expected);
      expect(await store.list(NOW)).toHaveLength(3);
    });

    it('replaces by token and by host', async () => {
      await store.put(http());
      await store.put(http({ token: 'tok-2' }));
      await store.put(http({ keyAuthorization: 'tok-1.other' }));
      await store.put(alpn());
      await store.put(alpn({ key: 'another' }));
      const held = await harness.other.list(NOW);
      expect(held).toHaveLength(3);
      const expected = [http({ token: 'tok-2' }), http({ keyAuthorization: 'tok-1.other' }), alpn({ key: 'another' })];
      expect(held).toEqual(expect.arrayContaining(expected));
    });

    it('keeps several values of one TXT record side by side', async () => {
      await store.put(dns());
      await store.put(dns({ value: 'digest-2' }));
      await store.put(dns({ expiresAt: NOW + 90_000 }));
      const both = [dns({ expiresAt: NOW + 90_000 }), dns({ value: 'digest-2' })];
      expect(await harness.other.list(NOW)).toEqual(expect.arrayContaining(both));
      await harness.other.remove(dns());
      expect(await store.list(NOW)).toEqual([dns({ value: 'digest-2' })]);
      const { provider, ...older } = dns({ value: 'digest-2' }) as DnsChallenge;
      await store.put(older);
      expect(await harness.other.list(NOW)).toEqual([older]);
      await harness.other.remove({ ...older, provider: 'exec' });
      expect(await store.list(NOW)).toEqual([older]);
      await harness.other.remove(older);
      expect([await store.list(NOW), provider]).toEqual([[], 'cloudflare']);
    });

    it('removes from any node, and never what has taken the place', async () => {
      await store.put(http());
      await store.put(alpn());
      await harness.other.remove(alpn());
      expect(await store.list(NOW)).toEqual([http()]);
      await store.put(http({ keyAuthorization: 'tok-1.other' }));
      await store.remove(http());
      await store.remove(alpn());
      expect(await store.list(NOW)).toEqual([http({ keyAuthorization: 'tok-1.other' })]);
    });

    it('lists none that has expired', async () => {
      await store.put(http());
      await store.put(alpn({ expiresAt: NOW + 120_000 }));
      expect(await store.list(NOW + 60_000)).toEqual([alpn({ expiresAt: NOW + 120_000 })]);
      expect(await store.list(NOW + 120_000)).toEqual([]);
    });

    it('tells every other holder of a change, until it stops watching', async () => {
      let told = 0;
      const stop = harness.other.watch(() => told++);
      await store.put(http());
      await vi.waitFor(() => expect(told).toBe(1));
      expect(await harness.other.list(NOW)).toEqual([http()]);
      await store.remove(http());
      await vi.waitFor(() => expect(told).toBe(2));
      stop();
      await store.put(http());
      await harness.other.list(NOW);
      expect(told).toBe(2);
    });

    it('refuses one of an order whose lock another has by now', async () => {
      const first = await harness.locks.acquire('certificate a', { leaseMs: 60_000 });
      await store.put(http(), first);
      await first.release();
      const second = await harness.locks.acquire('certificate a', { leaseMs: 60_000 });
      await expect(store.put(alpn(), first)).rejects.toThrow(FencedError);
      expect(await harness.other.list(NOW)).toEqual([http()]);
      await store.put(alpn(), second);
      expect(await harness.other.list(NOW)).toHaveLength(2);
      await second.release();
    });
  });
}
