import type { Clock } from './clock.ts';
import { type CertStore, emptyRecord, type HostRecord } from './store.ts';

/** What is remembered of each host: how its attempts went, and what happened to it. Every change is stored at once. */
export class HostRecords {
  readonly #store: CertStore;
  readonly #clock: Clock;
  readonly #records = new Map<string, HostRecord>();

  constructor(store: CertStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
    for (const record of store.records()) this.#records.set(record.host, record);
  }

  get(host: string): HostRecord {
    return this.find(host) ?? emptyRecord(host);
  }

  find(host: string): HostRecord | null {
    return this.#records.get(host) ?? null;
  }

  put(record: HostRecord): void {
    this.#records.set(record.host, record);
    this.#store.putRecord(record);
  }

  /** For `cert explain`. */
  addEvent(host: string, event: string): void {
    this.#store.addEvent(host, { at: this.#clock.now(), event });
  }
}
