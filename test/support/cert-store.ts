import {
  type AccountRecord,
  type CertificateEvent,
  type CertStore,
  EVENTS_KEPT,
  type HostRecord,
  LEDGER_KEPT,
  type LedgerEntry,
  type OrderRecord,
  type StoredCertificate,
} from '../../src/certs/store.ts';
import type { Fence } from '../../src/kit/locks.ts';
import { LockTable } from './locks.ts';
import { SharedBacking } from './store-harness.ts';

/** What several holders share. */
class Shared extends SharedBacking {
  readonly certificates = new Map<string, StoredCertificate>();
  readonly records = new Map<string, HostRecord>();
  readonly events = new Map<string, CertificateEvent[]>();
  readonly accounts = new Map<string, AccountRecord>();
  readonly orders = new Map<string, OrderRecord>();
  readonly ledgers = new Map<string, LedgerEntry[]>();
  readonly locks: LockTable;

  constructor(locks: LockTable) {
    super();
    this.locks = locks;
  }
}

/** A certificate store that lives as long as the test. */
export class MemoryCertStore implements CertStore {
  readonly #shared: Shared;

  /** @param beside another holder of the same store; or the locks that its writes may be made under */
  constructor(beside: MemoryCertStore | LockTable = new LockTable()) {
    this.#shared = beside instanceof MemoryCertStore ? beside.#shared : new Shared(beside);
  }

  async certificates(): Promise<StoredCertificate[]> {
    return [...this.#shared.certificates.values()];
  }

  async certificate(source: StoredCertificate['source'], name: string): Promise<StoredCertificate | null> {
    return this.#shared.certificates.get(`${source} ${name}`) ?? null;
  }

  async putCertificate(certificate: StoredCertificate, under?: Fence): Promise<void> {
    this.#shared.locks.check(under);
    const { certificates, orders } = this.#shared;
    certificates.set(`${certificate.source} ${certificate.name}`, certificate);
    if (certificate.source === 'acme') {
      for (const [key, { host }] of orders) if (host === certificate.name) orders.delete(key);
    }
    this.#shared.changedBy(this);
  }

  async removeCertificate(source: StoredCertificate['source'], name: string): Promise<void> {
    this.#shared.certificates.delete(`${source} ${name}`);
    this.#shared.changedBy(this);
  }

  async records(): Promise<HostRecord[]> {
    return [...this.#shared.records.values()];
  }

  async record(host: string): Promise<HostRecord | null> {
    return this.#shared.records.get(host) ?? null;
  }

  async putRecord(record: HostRecord, under?: Fence): Promise<void> {
    this.#shared.locks.check(under);
    this.#shared.records.set(record.host, record);
    this.#shared.changedBy(this);
  }

  watch(listener: () => void): () => void {
    return this.#shared.watch(this, listener);
  }

  async events(host: string): Promise<CertificateEvent[]> {
    return this.#shared.events.get(host) ?? [];
  }

  async addEvent(host: string, event: CertificateEvent): Promise<void> {
    this.#shared.events.set(host, [...(this.#shared.events.get(host) ?? []), event].slice(-EVENTS_KEPT));
  }

  async account(directory: string): Promise<AccountRecord | null> {
    return this.#shared.accounts.get(directory) ?? null;
  }

  async putAccount(account: AccountRecord, under?: Fence): Promise<void> {
    this.#shared.locks.check(under);
    this.#shared.accounts.set(account.directory, account);
  }

  async order(host: string, directory: string): Promise<OrderRecord | null> {
    return this.#shared.orders.get(`${host} ${directory}`) ?? null;
  }

  async putOrder(order: OrderRecord, under?: Fence): Promise<void> {
    this.#shared.locks.check(under);
    this.#shared.orders.set(`${order.host} ${order.directory}`, order);
  }

  async removeOrder(host: string, directory: string, under?: Fence): Promise<void> {
    this.#shared.locks.check(under);
    this.#shared.orders.delete(`${host} ${directory}`);
  }

  async ledger(directory: string, since: number): Promise<LedgerEntry[]> {
    return (this.#shared.ledgers.get(directory) ?? []).filter(({ at }) => at >= since);
  }

  async addLedger(directory: string, entry: LedgerEntry, under?: Fence): Promise<void> {
    this.#shared.locks.check(under);
    const kept = (this.#shared.ledgers.get(directory) ?? []).filter(({ at }) => at >= entry.at - LEDGER_KEPT);
    this.#shared.ledgers.set(directory, [...kept, entry]);
  }
}
