import { beforeEach, describe, expect, it } from 'vitest';
import {
  type CertStore,
  EVENTS_KEPT,
  emptyRecord,
  LEDGER_KEPT,
  type StoredCertificate,
} from '../../src/certs/store.ts';

export interface CertStoreHarness {
  readonly store: CertStore;
  /** The same store, opened anew: what was durable is there. */
  reopen(): CertStore;
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
export function certStoreConformance(name: string, open: () => CertStoreHarness): void {
  describe(`CertStore: ${name}`, () => {
    let harness: CertStoreHarness;
    let store: CertStore;
    beforeEach(() => {
      harness = open();
      store = harness.store;
    });

    it('starts empty', () => {
      expect(store.certificates()).toEqual([]);
      expect(store.records()).toEqual([]);
      expect(store.events('a.example.com')).toEqual([]);
      expect(store.account('https://ca.example/dir')).toBeNull();
      expect(store.order('a.example.com', 'https://ca.example/dir')).toBeNull();
      expect(store.ledger('https://ca.example/dir', 0)).toEqual([]);
    });

    it('keeps certificates whole, and replaces by source and name', () => {
      store.putCertificate(certificate());
      store.putCertificate(
        certificate({ source: 'import', name: '*.example.com', names: ['*.example.com'], directory: null }),
      );
      store.putCertificate(certificate({ serial: 'FF', names: ['a.example.com', '10.0.0.1'] }));
      const held = harness.reopen().certificates();
      expect(held).toHaveLength(2);
      expect(held).toContainEqual(certificate({ serial: 'FF', names: ['a.example.com', '10.0.0.1'] }));
      expect(held).toContainEqual(
        certificate({ source: 'import', name: '*.example.com', names: ['*.example.com'], directory: null }),
      );
    });

    it('removes exactly one', () => {
      store.putCertificate(certificate());
      store.putCertificate(certificate({ source: 'import', directory: null }));
      store.removeCertificate('import', 'a.example.com');
      expect(store.certificates()).toEqual([certificate()]);
    });

    it('ends the orders of a host with its certificate, and no other', () => {
      const order = {
        host: 'a.example.com',
        directory: 'https://ca.example/dir',
        url: 'https://ca.example/o/1',
        key: 'K',
        createdAt: 5,
      };
      store.putOrder(order);
      store.putOrder({ ...order, host: 'b.example.com' });
      store.putOrder({ ...order, directory: 'https://other.example/dir' });
      store.putCertificate(certificate({ source: 'import', directory: null }));
      expect(store.order('a.example.com', order.directory)).toEqual(order);
      store.putCertificate(certificate());
      expect(store.order('a.example.com', order.directory)).toBeNull();
      expect(store.order('a.example.com', 'https://other.example/dir')).toBeNull();
      expect(harness.reopen().order('b.example.com', order.directory)).toEqual({ ...order, host: 'b.example.com' });
    });

    it('replaces and removes orders', () => {
      const order = { host: 'a', directory: 'd', url: 'u', key: 'K', createdAt: 5 };
      store.putOrder(order);
      store.putOrder({ ...order, url: 'v' });
      expect(store.order('a', 'd')?.url).toBe('v');
      store.removeOrder('a', 'other');
      expect(store.order('a', 'd')?.url).toBe('v');
      store.removeOrder('a', 'd');
      expect(store.order('a', 'd')).toBeNull();
    });

    it('keeps how things stand with a host', () => {
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
      store.putRecord(record);
      store.putRecord(emptyRecord('b.example.com'));
      expect(harness.reopen().records()).toEqual(expect.arrayContaining([record, emptyRecord('b.example.com')]));
      store.putRecord(emptyRecord('a.example.com'));
      expect(store.records()).toHaveLength(2);
      expect(store.records()).toContainEqual(emptyRecord('a.example.com'));
    });

    it('keeps the newest events of each host, oldest first', () => {
      store.addEvent('b', { at: 1, event: 'other' });
      for (let n = 0; n < EVENTS_KEPT + 10; n++) store.addEvent('a', { at: n, event: `event ${n}` });
      const events = harness.reopen().events('a');
      expect(events).toHaveLength(EVENTS_KEPT);
      expect(events[0]).toEqual({ at: 10, event: 'event 10' });
      expect(events.at(-1)).toEqual({ at: EVENTS_KEPT + 9, event: `event ${EVENTS_KEPT + 9}` });
      expect(store.events('b')).toEqual([{ at: 1, event: 'other' }]);
    });

    it('keeps an account a directory', () => {
      store.putAccount({ directory: 'd', key: 'K', url: null });
      expect(store.account('d')).toEqual({ directory: 'd', key: 'K', url: null });
      store.putAccount({ directory: 'd', key: 'K', url: 'u' });
      expect(harness.reopen().account('d')).toEqual({ directory: 'd', key: 'K', url: 'u' });
    });

    it('counts against limits as far back as they reach, a directory each', () => {
      store.addLedger('d', { at: 1_000, kind: 'order', host: 'a' });
      store.addLedger('d', { at: 2_000, kind: 'certificate', host: 'a' });
      store.addLedger('e', { at: 3_000, kind: 'order', host: 'b' });
      expect(store.ledger('d', 0).map(({ at }) => at)).toEqual([1_000, 2_000]);
      expect(store.ledger('d', 1_500)).toEqual([{ at: 2_000, kind: 'certificate', host: 'a' }]);
      store.addLedger('d', { at: 1_500 + LEDGER_KEPT, kind: 'failedValidation', host: 'a' });
      expect(
        harness
          .reopen()
          .ledger('d', 0)
          .map(({ at }) => at),
      ).toEqual([2_000, 1_500 + LEDGER_KEPT]);
      expect(store.ledger('e', 0)).toHaveLength(1);
    });
  });
}
