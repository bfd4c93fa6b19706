import type { Digest } from '../oci/digest.ts';
import type { BlobKey } from '../oci/transfer.ts';
import type { Logger } from '../telemetry/log.ts';
import { CacheError } from './cache-error.ts';
import { type Fetch, Fill, type FillContext } from './fill.ts';
import type { InUse } from './in-use.ts';
import type { Resident } from './resident.ts';

/** Digests remembered as too large to keep, so that only their first pull starts in vain. */
const TOO_LARGE_KEPT = 1_000;

export interface FillsOptions {
  readonly context: FillContext;
  readonly inUse: InUse;
  readonly log: Logger;
  /** Whether the blob is in the index. */
  readonly isKept: (digest: Digest) => boolean;
  readonly ended: (outcome: string) => void;
}

/** Fills under way, one a digest, and what is to be remembered of those that ended. */
export class Fills {
  readonly #options: FillsOptions;
  readonly #running = new Map<Digest, { readonly fill: Fill; readonly ended: Promise<void> }>();
  readonly #tooLarge = new Set<Digest>();
  /** Those that nobody has found yet. */
  readonly #missed = new Set<Digest>();

  constructor(options: FillsOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#running.size;
  }

  isTooLarge(digest: Digest): boolean {
    return this.#tooLarge.has(digest);
  }

  /** True once for each fill: for the client that caused it, and that has been counted as a miss. */
  takeMiss(digest: Digest): boolean {
    return this.#missed.delete(digest);
  }

  /** The fill is a user of what it grows: it keeps the descriptor open when every client has left. */
  start(key: BlobKey, fetch: Fetch): Resident {
    const fill = new Fill(key, this.#options.context);
    const resident = this.#options.inUse.grow(fill);
    this.#missed.add(key.digest);
    resident.retain();
    const ended = this.#run(fill, resident, fetch);
    this.#running.set(key.digest, { fill, ended });
    return resident;
  }

  /** Ends one that is still fetching; false where there is none. */
  stop(digest: Digest, reason: Error): boolean {
    const running = this.#running.get(digest);
    if (running === undefined || running.fill.outcome !== null) return false;
    running.fill.stop(reason);
    return true;
  }

  async stopAll(reason: Error): Promise<void> {
    const running = [...this.#running.values()];
    for (const { fill } of running) fill.stop(reason);
    await Promise.allSettled(running.map(({ ended }) => ended));
  }

  async #run(fill: Fill, resident: Resident, fetch: Fetch): Promise<void> {
    const { inUse, isKept } = this.#options;
    const { digest } = fill;
    try {
      await inUse.gone(digest);
      const running = fill.run(fetch);
      fill.onEnd(() => this.#ended(fill, resident, running));
      await running;
    } finally {
      if (this.#running.get(digest)?.fill === fill) {
        this.#running.delete(digest);
        this.#missed.delete(digest);
      }
      // Whole but not kept: the next client must not find it.
      if (!isKept(digest)) inUse.forget(digest, resident);
      resident.release();
    }
  }

  /** At the moment a fill is known to have failed, the next client starts a new one, which waits until the old one is out of the way. */
  #ended(fill: Fill, resident: Resident, running: Promise<void>): void {
    const { inUse, log, ended } = this.#options;
    const { digest, outcome } = fill;
    ended(outcome?.kind ?? 'failed');
    if (outcome?.kind !== 'failed') return;
    inUse.forget(digest, resident);
    inUse.leave(digest, running);
    if (outcome.error instanceof CacheError && outcome.error.reason === 'too-large') {
      if (this.#tooLarge.size >= TOO_LARGE_KEPT) this.#tooLarge.clear();
      this.#tooLarge.add(digest);
    } else if (!(outcome.error instanceof CacheError)) {
      log.warn({ digest, err: outcome.error }, 'a fill failed');
    }
  }
}
