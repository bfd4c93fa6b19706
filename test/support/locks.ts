import { setTimeout as timer } from 'node:timers/promises';
import { type Fence, FencedError, type LeaseOptions, type Lock, type Locks } from '../../src/kit/locks.ts';

interface Lease {
  readonly fence: number;
  readonly note: string | null;
  until: number;
}

/** What several `MemoryLocks` share, as nodes share a database. */
export class LockTable {
  readonly leases = new Map<string, Lease>();
  /** By name: the number of its last grant. */
  readonly granted = new Map<string, number>();
  fence = 0;

  /** @throws {FencedError} */
  check(under: Fence | undefined): void {
    if (under !== undefined && (this.granted.get(under.name) ?? 0) > under.fence) throw new FencedError(under.name);
  }
}

/** How often a waiting node looks whether a lock is free, ms. */
const POLL = 5;

/** Locks with real leases: one holder that is cut off loses them to another. */
export class MemoryLocks implements Locks {
  readonly #table: LockTable;
  #reachable = true;

  constructor(table: LockTable) {
    this.#table = table;
  }

  /** From now on nothing of this node reaches the table: no renewal, and no release. */
  cutOff(): void {
    this.#reachable = false;
  }

  async acquire(name: string, options: LeaseOptions & { readonly signal?: AbortSignal }): Promise<Lock> {
    for (;;) {
      options.signal?.throwIfAborted();
      const lock = await this.tryAcquire(name, options);
      if (lock !== null) return lock;
      await timer(POLL);
    }
  }

  async tryAcquire(name: string, { leaseMs, note }: LeaseOptions): Promise<Lock | null> {
    const { leases } = this.#table;
    const held = leases.get(name);
    if (held !== undefined && performance.now() < held.until) return null;
    const lease: Lease = { fence: ++this.#table.fence, note: note ?? null, until: performance.now() + leaseMs };
    leases.set(name, lease);
    this.#table.granted.set(name, lease.fence);
    const lost = new AbortController();
    const renew = () => {
      if (this.#reachable && leases.get(name) === lease) lease.until = performance.now() + leaseMs;
      else if (performance.now() >= lease.until) lost.abort(new Error(`the lock ${name} was lost`));
    };
    const renewal = setInterval(renew, leaseMs / 4);
    return {
      name,
      fence: lease.fence,
      lost: lost.signal,
      release: async () => {
        clearInterval(renewal);
        if (this.#reachable && leases.get(name) === lease) leases.delete(name);
      },
    };
  }

  async holder(name: string): Promise<string | null> {
    const lease = this.#table.leases.get(name);
    return lease === undefined || performance.now() >= lease.until ? null : lease.note;
  }
}
