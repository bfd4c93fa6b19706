/**
 * Port: locks by name, for what at most one process of a fleet may do at a time (one order per host name).
 * src/sqlite/locks.ts is the implementation for a single machine; test/conformance/locks.ts is the contract.
 *
 * A lock is a lease: it is renewed by the implementation until it is released, and it passes to the next one who asks when a holder
 * vanishes without releasing it. No two holders are ever granted the same name at once; but a holder that was suspended may go on for a
 * moment after its lease ended. What must not happen even then is guarded by the fence.
 */
export interface Locks {
  /**
   * Waits until the lock is free.
   * @throws the signal's reason once it is aborted; the lock is then not held
   */
  acquire(name: string, options: LeaseOptions & { readonly signal?: AbortSignal }): Promise<Lock>;
  /** Null where another holds it now. */
  tryAcquire(name: string, options: LeaseOptions): Promise<Lock | null>;
  /** The `note` of whoever holds the lock now; null where nobody does, or where the holder left none. */
  holder(name: string): Promise<string | null>;
}

export interface LeaseOptions {
  /** How long the lock outlives a holder that vanished, ms. It bounds nothing else: a living holder keeps the lock as long as it likes. */
  readonly leaseMs: number;
  /** What others may read of the holder, at most 200 characters: the id of its node, where they have to ask it. */
  readonly note?: string;
}

/**
 * What a holder shows to a store with a write that only the holder of that lock may make. The store refuses it with a `FencedError`, in the same
 * transaction, where the name was granted to another since.
 */
export interface Fence {
  readonly name: string;
  /**
   * Grows with each grant of the name, whoever holds it and across restarts, so that storage can refuse a write with an older number.
   * An implementation keeps the counter in the storage that the locks belong to.
   */
  readonly fence: number;
}

/** Nothing was written: the lock under which it was to be written was granted to another, who goes on with the work. */
export class FencedError extends Error {
  override readonly name = 'FencedError';
  readonly lock: string;

  /** @param lock its name */
  constructor(lock: string) {
    super(`another node has taken over the lock "${lock}": nothing was written under it`);
    this.lock = lock;
  }
}

export interface Lock extends Fence {
  /** Aborted with a reason when the lease could not be renewed in time: another may hold the lock by then. */
  readonly lost: AbortSignal;
  /** May be called more than once, and after the lock was lost. Never rejects: what cannot be given back ends with its lease. */
  release(): Promise<void>;
}

/** Runs a task under a lock, unless another holds it now. `ended` is aborted with `signal`, and when the lock is lost. */
export async function unlessHeld(
  locks: Pick<Locks, 'tryAcquire'>,
  name: string,
  options: LeaseOptions & { readonly signal: AbortSignal },
  task: (lock: Lock, ended: AbortSignal) => Promise<void>,
): Promise<void> {
  const { signal, ...lease } = options;
  const lock = await locks.tryAcquire(name, lease);
  if (lock === null) return;
  try {
    await task(lock, AbortSignal.any([signal, lock.lost]));
  } finally {
    await lock.release();
  }
}
