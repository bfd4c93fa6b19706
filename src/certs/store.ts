import type { ChallengeType } from '../config/config.ts';
import type { Fence } from '../kit/locks.ts';
import type { CertificateMaterial } from './x509.ts';

/**
 * Port: what must never be lost about certificates; several holders may share one store. Every method is atomic, and what it changed is
 * durable when its promise resolves. test/conformance/cert-store.ts is its contract. Times in epoch milliseconds.
 *
 * `under`: the lock that the writer holds. Where that name was granted to another since, the write rejects with a `FencedError` and nothing is written.
 */
export interface CertStore {
  certificates(): Promise<StoredCertificate[]>;
  certificate(source: StoredCertificate['source'], name: string): Promise<StoredCertificate | null>;
  /** Replaces the one of the same source and name; one from an issuer ends that host's orders with it. */
  putCertificate(certificate: StoredCertificate, under?: Fence): Promise<void>;

  /** Does nothing where there is none. */
  removeCertificate(source: StoredCertificate['source'], name: string): Promise<void>;

  records(): Promise<HostRecord[]>;
  record(host: string): Promise<HostRecord | null>;
  putRecord(record: HostRecord, under?: Fence): Promise<void>;

  /**
   * Calls `listener` after another holder has changed a certificate or a host's record, which holders keep in memory; it may also be
   * called after one's own change. What else changes is read when it is needed, and is not announced. The function returned ends that.
   */
  watch(listener: () => void): () => void;

  /** Oldest first; the store keeps the newest `EVENTS_KEPT` of a host. */
  events(host: string): Promise<CertificateEvent[]>;
  addEvent(host: string, event: CertificateEvent): Promise<void>;

  account(directory: string): Promise<AccountRecord | null>;
  putAccount(account: AccountRecord, under?: Fence): Promise<void>;

  order(host: string, directory: string): Promise<OrderRecord | null>;
  putOrder(order: OrderRecord, under?: Fence): Promise<void>;
  removeOrder(host: string, directory: string, under?: Fence): Promise<void>;

  /** What counts against a CA's limits, since then, oldest first. */
  ledger(directory: string, since: number): Promise<LedgerEntry[]>;
  /** Adds one and forgets what is older than `LEDGER_KEPT`. */
  addLedger(directory: string, entry: LedgerEntry, under?: Fence): Promise<void>;
}

export const EVENTS_KEPT = 60;
/** The longest period that a CA's documented limit looks back on: 7 days. */
export const LEDGER_KEPT = 7 * 24 * 3_600_000;

export interface StoredCertificate extends CertificateMaterial {
  readonly source: 'acme' | 'import';
  /** The host it was ordered for; of an imported one, its names joined by commas. */
  readonly name: string;
  /** The CA's directory URL; null for an imported one. */
  readonly directory: string | null;
  readonly obtainedAt: number;
  /** Of an imported one that the operator has taken back: since then it is shown only where there is no other. Left out of all others. */
  readonly releasedAt?: number;
}

/** What a CA said that was asked before the one that issued. */
export interface Refusal {
  readonly directory: string;
  readonly type: string;
  readonly detail: string;
  readonly at: number;
}

/** What the self-check saw: a sentence, and what to do about it. */
export interface Finding {
  readonly what: string;
  /** Empty where the name leads to this gateway. */
  readonly next: string;
  readonly leadsHere: boolean;
}

/** How the attempts to get a certificate for one host went. */
export interface HostRecord {
  readonly host: string;
  /** Failures in a row. */
  readonly failures: number;
  readonly failingSince: number | null;
  /** Not before this, whatever else; null where nothing has failed. */
  readonly nextAttempt: number | null;
  readonly lastError: {
    readonly type: string;
    readonly detail: string;
    readonly at: number;
    readonly directory: string | null;
    /** What this gateway saw of the way to it before the CA was asked; left out or null where it did not look. */
    readonly found?: Finding | null;
  } | null;
  /** By directory URL: that CA must not be asked before. */
  readonly holds: Readonly<Record<string, number>>;
  /** The last time a CA was asked although the self-check had failed. */
  readonly uncheckedAt: number | null;
  /** The challenge that worked last. */
  readonly challenge: ChallengeType | null;
  readonly renewal: RenewalRecord | null;
  /** By whom the certificate there is was refused before another CA issued it; left out where by none. */
  readonly refused?: readonly Refusal[];
}

/** What the CA last said about the renewal of one certificate (RFC 9773). */
export interface RenewalRecord {
  /** Of the certificate it speaks of. */
  readonly fingerprint: string;
  readonly windowStart: number;
  readonly windowEnd: number;
  /** The moment chosen within the window. */
  readonly renewAt: number;
  readonly explanation: string | null;
  /** When to ask again. */
  readonly checkAt: number;
}

export interface CertificateEvent {
  readonly at: number;
  readonly event: string;
}

export interface AccountRecord {
  readonly directory: string;
  /** PKCS#8 PEM; kept before the CA hears of it. */
  readonly key: string;
  /** Null until the CA has registered it. */
  readonly url: string | null;
}

/** An order on its way, so that a kill at any moment loses neither it nor the key of a certificate that the CA may already have signed. */
export interface OrderRecord {
  readonly host: string;
  readonly directory: string;
  readonly url: string;
  /** PKCS#8 PEM of the certificate to be. */
  readonly key: string;
  readonly createdAt: number;
}

export interface LedgerEntry {
  readonly at: number;
  readonly kind: 'order' | 'certificate' | 'failedValidation';
  readonly host: string;
}

export function emptyRecord(host: string): HostRecord {
  return {
    host,
    failures: 0,
    failingSince: null,
    nextAttempt: null,
    lastError: null,
    holds: {},
    uncheckedAt: null,
    challenge: null,
    renewal: null,
  };
}
