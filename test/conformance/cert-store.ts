import { beforeEach, describe, expect, it, vi } from 'vitest';
import {
  type CertStore,
  EVENTS_KEPT,
  emptyRecord,
  LEDGER_KEPT,
  type StoredCertificate,
} from '../../src/certs/store.ts';
import { type Fence, FencedError, type Locks } from '../../src/kit/locks.ts';

export interface CertStoreHarness {
  readonly store: CertStore;
  /** Another holder of the same store. */
  readonly other: CertStore;
  /** The same store, opened anew: what was durable is there. */
  reopen(): CertStore | Promise<CertStore>;
  /** Whose fences the store knows. */
  readonly locks: Locks;
}

const certificate = (change: Partial<StoredCertificate> = {}): StoredCertificate => ({
  source: 'acme',
  name: 'a.example.com',
  directory: 'https://ca.example/dir',
  obtainedAt: 1_700_000_000_000,
  names: ['a.example.com'],
  notBefore: 1_700_000_000_000,
  notAfter: 1_707_776_000_000,
  serial: '0102AB',
  issuer: 'Example CA 1',
  fingerprint: 'ab'.repeat(32),
  chain: '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n',
  key: '-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n',
  ...change,
});

/** The contract of CertStore. */
export function certStoreConformance(name: string, open: () => CertStoreHarness | Promise<CertStoreHarness>): void {
  describe(`CertStore: ${name}`, () => {
    let harness: CertStoreHarness;
    let store: CertStore;
    beforeEach(async () => {
      harness = await open();
      store = harness.store;
    });

    it('starts empty', async () => {
      expect(await store.certificates()).toEqual([]);
      expect(await store.certificate('acme', 'a.example.com')).toBeNull();
      expect(await store.records()).toEqual([]);
      expect(await store.record('a.example.com')).toBeNull();
      expect(await store.events('a.example.com')).toEqual([]);
      expect(await store.account('https://ca.example/dir')).toBeNull();
      expect(await store.order('a.example.com', 'https://ca.example/dir')).toBeNull();
      expect(await store.ledger('https://ca.example/dir', 0)).toEqual([]);
    });

    it('keeps certificates whole, and replaces by source and name', async () => {
      await store.putCertificate(certificate());
      await store.putCertificate(
        certificate({ source: 'import', name: '*.example.com', names: ['*.example.com'], directory: null }),
      );
      await store.putCertificate(certificate({ serial: 'FF', names: ['a.example.com', '10.0.0.1'] }));
      const held = await (await harness.reopen()).certificates();
      expect(held).toHaveLength(2);
      expect(held).toContainEqual(certificate({ serial: 'FF', names: ['a.example.com', '10.0.0.1'] }));
      expect(held).toContainEqual(
        certificate({ source: 'import', name: '*.example.com', names: ['*.example.com'], directory: null }),
      );
      expect(await store.certificate('acme', 'a.example.com')).toMatchObject({ serial: 'FF' });
      expect(await store.certificate('import', 'a.example.com')).toBeNull();
    });

    it('keeps since when a certificate is taken back, until it is put again without', async () => {
      const own = certificate({ source: 'import', directory: null });
      await store.putCertificate({ ...own, releasedAt: 1_700_000_000_001 });
      const [held] = await (await harness.reopen()).certificates();
      expect(held).toEqual({ ...own, releasedAt: 1_700_000_000_001 });
      await store.putCertificate(own);
      expect(await store.certificates()).toStrictEqual([own]);
    });

    it('keeps who refused a host before it had its certificate', async () => {
      const refused = [{ directory: 'https://ca.example/dir', type: 'caa', detail: 'not here', at: 1_700_000_000_000 }];
      await store.putRecord({ ...emptyRecord('a.example.com'), refused });
      expect(await (await harness.reopen()).record('a.example.com')).toEqual({
        ...emptyRecord('a.example.com'),
        refused,
      });
      await store.putRecord(emptyRecord('a.example.com'));
      expect(await store.records()).toStrictEqual([emptyRecord('a.example.com')]);
    });

    it('removes a certificate by source and name, and no other', async () => {
      await store.putCertificate(certificate());
      await store.putCertificate(certificate({ source: 'import', directory: null }));
      await store.putCertificate(certificate({ name: 'b.example.com' }));
      await store.removeCertificate('import', 'a.example.com');
      await store.removeCertificate('import', 'a.example.com');
      await store.removeCertificate('acme', 'never.example.com');
      const held = await (await harness.reopen()).certificates();
      expect(held.map(({ source, name }) => `${source} ${name}`).sort()).toEqual([
        'acme a.example.com',
        'acme b.example.com',
      ]);
    });

    it('tells other holders of a removal', async () => {
      await store.putCertificate(certificate());
      const heard = vi.fn();
      const unwatch = harness.other.watch(heard);
      await store.removeCertificate('acme', 'a.example.com');
      await vi.waitFor(() => expect(heard).toHaveBeenCalled(), { timeout: 20_000 });
      unwatch();
      expect(await harness.other.certificates()).toEqual([]);
    });

    it('ends the orders of a host with its certificate, and no other', async () => {
      const order = {
        host: 'a.example.com',
        directory: 'https://ca.example/dir',
        url: 'https://ca.example/o/1',
        key: 'K',
        createdAt: 5,
      };
      await store.putOrder(order);
      await store.putOrder({ ...order, host: 'b.example.com' });
      await store.putOrder({ ...order, directory: 'https://other.example/dir' });
      await store.putCertificate(certificate({ source: 'import', directory: null }));
      expect(await store.order('a.example.com', order.directory)).toEqual(order);
      await store.putCertificate(certificate());
      expect(await store.order('a.example.com', order.directory)).toBeNull();
      expect(await store.order('a.example.com', 'https://other.example/dir')).toBeNull();
      expect(await (await harness.reopen()).order('b.example.com', order.directory)).toEqual({
        ...order,
        host: 'b.example.com',
      });
    });

    it('replaces and removes orders', async () => {
      const order = { host: 'a', directory: 'd', url: 'u', key: 'K', createdAt: 5 };
      await store.putOrder(order);
      await store.putOrder({ ...order, url: 'v' });
      expect((await store.order('a', 'd'))?.url).toBe('v');
      await store.removeOrder('a', 'other');
      expect((await store.order('a', 'd'))?.url).toBe('v');
      await store.removeOrder('a', 'd');
      expect(await store.order('a', 'd')).toBeNull();
    });

    it("keeps a host's record", async () => {
      const record = {
        ...emptyRecord('a.example.com'),
        failures: 3,
        failingSince: 1,
        nextAttempt: 2,
        lastError: { type: 'urn:ietf:params:acme:error:dns', detail: 'no "A" record', at: 3, directory: null },
        holds: { 'https://ca.example/dir': 4 },
        uncheckedAt: 5,
        challenge: 'tls-alpn-01',
        renewal: { fingerprint: 'ab', windowStart: 1, windowEnd: 2, renewAt: 1, explanation: 'https://x/', checkAt: 9 },
      } as const;
      await store.putRecord(record);
      await store.putRecord(emptyRecord('b.example.com'));
      expect(await (await harness.reopen()).records()).toEqual(
        expect.arrayContaining([record, emptyRecord('b.example.com')]),
      );
      await store.putRecord(emptyRecord('a.example.com'));
      expect(await store.records()).toHaveLength(2);
      expect(await store.records()).toContainEqual(emptyRecord('a.example.com'));
      expect(await store.record('a.example.com')).toEqual(emptyRecord('a.example.com'));
    });

    it('tells every other holder of a change that it keeps in memory, until it stops watching', async () => {
      const seen: StoredCertificate[][] = [];
      const looks: Promise<void>[] = [];
      const stop = harness.other.watch(() => {
        looks.push(harness.other.certificates().then((held) => void seen.push(held)));
      });
      await store.putCertificate(certificate());
      await vi.waitFor(() => expect(looks).toHaveLength(1));
      await Promise.all(looks);
      expect(seen.at(-1)).toEqual([certificate()]);
      await store.putRecord(emptyRecord('a.example.com'));
      await vi.waitFor(() => expect(looks).toHaveLength(2));
      expect(await harness.other.record('a.example.com')).toEqual(emptyRecord('a.example.com'));
      stop();
      await store.putRecord(emptyRecord('b.example.com'));
      await harness.other.records();
      expect(looks).toHaveLength(2);
      await Promise.all(looks);
    });

    it('keeps the newest events of each host, oldest first', async () => {
      await store.addEvent('b', { at: 1, event: 'other' });
      for (let n = 0; n < EVENTS_KEPT + 10; n++) await store.addEvent('a', { at: n, event: `event ${n}` });
      const events = await (await harness.reopen()).events('a');
      expect(events).toHaveLength(EVENTS_KEPT);
      expect(events[0]).toEqual({ at: 10, event: 'event 10' });
      expect(events.at(-1)).toEqual({ at: EVENTS_KEPT + 9, event: `event ${EVENTS_KEPT + 9}` });
      expect(await store.events('b')).toEqual([{ at: 1, event: 'other' }]);
    });

    it('keeps an account a directory', async () => {
      await store.putAccount({ directory: 'd', key: 'K', url: null });
      expect(await store.account('d')).toEqual({ directory: 'd', key: 'K', url: null });
      await store.putAccount({ directory: 'd', key: 'K', url: 'u' });
      expect(await (await harness.reopen()).account('d')).toEqual({ directory: 'd', key: 'K', url: 'u' });
    });

    it('counts against limits as far back as they reach, a directory each', async () => {
      await store.addLedger('d', { at: 1_000, kind: 'order', host: 'a' });
      await store.addLedger('d', { at: 2_000, kind: 'certificate', host: 'a' });
      await store.addLedger('e', { at: 3_000, kind: 'order', host: 'b' });
      expect((await store.ledger('d', 0)).map(({ at }) => at)).toEqual([1_000, 2_000]);
      expect(await store.ledger('d', 1_500)).toEqual([{ at: 2_000, kind: 'certificate', host: 'a' }]);
      await store.addLedger('d', { at: 1_500 + LEDGER_KEPT, kind: 'failedValidation', host: 'a' });
      expect((await (await harness.reopen()).ledger('d', 0)).map(({ at }) => at)).toEqual([2_000, 1_500 + LEDGER_KEPT]);
      expect(await store.ledger('e', 0)).toHaveLength(1);
    });

    it('refuses what is written under a lock that another has by now, and writes nothing of it', async () => {
      const [host, directory] = ['a.example.com', 'https://ca.example/dir'];
      const order = { host, directory, url: 'u', key: 'K', createdAt: 5 };
      const account = { directory, key: 'K', url: null };
      const writes = (under: Fence, change: { url: string; failures: number }) => [
        () => store.putOrder({ ...order, url: change.url }, under),
        () => store.putCertificate(certificate({ name: 'b.example.com', serial: change.url }), under),
        () => store.putRecord({ ...emptyRecord(host), failures: change.failures }, under),
        () => store.putAccount({ ...account, url: change.url }, under),
        () => store.addLedger(directory, { at: change.failures, kind: 'order', host }, under),
      ];
      const state = async (at: CertStore) => [
        await at.order(host, directory),
        await at.certificates(),
        await at.records(),
        await at.account(directory),
        await at.ledger(directory, 0),
      ];
      const first = await harness.locks.acquire('certificate a', { leaseMs: 60_000 });
      for (const write of writes(first, { url: 'first', failures: 1 })) await write();
      await first.release();
      const second = await harness.locks.acquire('certificate a', { leaseMs: 60_000 });
      const before = await state(harness.other);
      for (const write of [
        ...writes(first, { url: 'late', failures: 2 }),
        () => store.removeOrder(host, directory, first),
      ]) {
        await expect(write()).rejects.toThrow(FencedError);
      }
      expect(await state(harness.other)).toEqual(before);
      for (const write of writes(second, { url: 'second', failures: 3 })) await write();
      expect((await store.order(host, directory))?.url).toBe('second');
      await store.removeOrder(host, directory, second);
      expect(await store.order(host, directory)).toBeNull();
      await second.release();
    });
  });
}
