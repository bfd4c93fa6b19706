import { setTimeout as delay } from 'node:timers/promises';
import { type Fence, type Locks, unlessHeld } from '../kit/locks.ts';
import type { Digest } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import type { BlobTier } from './blob-tier.ts';
import type { ObjectIndex } from './object-index.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** How often it is looked at whether the store holds too much. */
const INTERVAL = MINUTE;
/**
 * What is condemned is given to nobody new, and removed so long after: a signed URL lives for 15 minutes, a read that began by it may take longer, and
 * other gateways believe for up to 5 minutes what they saw.
 */
const GRACE = 2 * HOUR;
/** The lease outlives a holder that vanished by so long. */
const LEASE = 2 * MINUTE;
/** Objects condemned, and removed, in one step. */
const BATCH = 500;
/** What the store has and the index has not, or the other way round, is looked for so often, and slowly: a page at a time. */
const WALK_INTERVAL = 24 * HOUR;
const WALK_PAUSE = 5_000;
/** An object without a row, and parts of an upload, may be of one that is just being stored; this old they are what a killed process left. */
const LEFT_AFTER = 24 * HOUR;
/** A store that does not answer for so long is asked again another time. */
const ANSWER_WITHIN = MINUTE;

export interface StoreKeeperOptions {
  readonly tier: BlobTier;
  readonly objects: ObjectIndex;
  readonly locks: Locks;
  /** `cache.s3.maxSize` as it is now; null for no limit. */
  readonly maxSize: () => number | null;
  readonly log: Logger;
  /** Smaller ones for tests, ms. */
  readonly times?: Partial<StoreKeeperTimes>;
}

interface StoreKeeperTimes {
  readonly interval: number;
  readonly grace: number;
  readonly walkInterval: number;
  readonly walkPause: number;
  readonly leftAfter: number;
}

const TIMES: StoreKeeperTimes = {
  interval: INTERVAL,
  grace: GRACE,
  walkInterval: WALK_INTERVAL,
  walkPause: WALK_PAUSE,
  leftAfter: LEFT_AFTER,
};

/**
 * Keeps a shared store within its bound, by one gateway at a time: what was used longest ago is condemned first, and removed when nobody can be reading
 * it any more. Now and then it looks for what the store and its index do not agree on. Others may clean the store too.
 */
export class StoreKeeper {
  readonly #options: StoreKeeperOptions;
  readonly #times: StoreKeeperTimes;
  readonly #closing = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(options: StoreKeeperOptions) {
    this.#options = options;
    this.#times = { ...TIMES, ...options.times };
  }

  static start(options: StoreKeeperOptions): StoreKeeper {
    const keeper = new StoreKeeper(options);
    keeper.#running = keeper.#run();
    return keeper;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    let walked = Number.NEGATIVE_INFINITY;
    for (;;) {
      await delay(this.#times.interval, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted) return;
      try {
        await unlessHeld(this.#options.locks, 'evict store', { leaseMs: LEASE, signal }, async (lock, ended) => {
          await this.keepWithin(lock, ended);
          if (performance.now() - walked < this.#times.walkInterval) return;
          walked = performance.now();
          await this.walk(ended);
        });
      } catch (error) {
        if (!signal.aborted)
          this.#options.log.warn({ err: error }, 'the shared store was not looked after; it is tried again');
      }
    }
  }

  /** Condemns what is too much, and removes what was condemned long ago. */
  async keepWithin(under: Fence, ended: AbortSignal): Promise<void> {
    const { objects, tier, log } = this.#options;
    const most = this.#options.maxSize();
    if (most !== null) {
      for (let count = BATCH; count === BATCH && !ended.aborted; ) count = await objects.condemn(most, BATCH, under);
    }
    while (!ended.aborted) {
      const doomed = await objects.doomed(this.#times.grace, BATCH);
      if (doomed.length === 0) return;
      const gone = await objects.forget(
        doomed.map(({ digest }) => digest),
        under,
      );
      await tier.remove(gone, this.#within(ended));
      if (gone.length > 0)
        log.info({ objects: gone.length }, 'the shared store is full: what was used longest ago was removed');
      if (doomed.length < BATCH) return;
    }
  }

  /** Removes objects that nobody knows of, and forgets what the store does not have. */
  async walk(ended: AbortSignal): Promise<void> {
    const { tier, objects, log } = this.#options;
    await tier.clearLeftovers(Date.now() - this.#times.leftAfter, this.#within(ended));
    let [unknown, missing] = [0, 0];
    for (let after: Digest | null = null; !ended.aborted; ) {
      const { objects: found, last } = await tier.list(after, BATCH, this.#within(ended));
      const end: Digest | null = last ? null : (found.at(-1)?.digest ?? null);
      if (!last && end === null) break;
      const rows = await this.#rowsBetween(after, end, ended);
      const known = new Set(rows.map(({ digest }) => digest));
      const there = new Set(found.map(({ digest }) => digest));
      const before = Date.now() - this.#times.leftAfter;
      const strange = found.filter(({ digest, modified }) => !known.has(digest) && modified < before);
      await tier.remove(
        strange.map(({ digest }) => digest),
        this.#within(ended),
      );
      unknown += strange.length;
      for (const { digest } of rows) {
        // It may have come since the page was made.
        if (there.has(digest) || (await tier.stat(digest, this.#within(ended))) !== null) continue;
        await objects.drop([digest]);
        missing++;
      }
      if (last) break;
      after = end;
      await delay(this.#times.walkPause, undefined, { signal: ended, ref: false });
    }
    if (unknown + missing > 0) log.info({ unknown, missing }, 'the shared store and its index agree again');
  }

  /** Rows behind `after`, up to and with `end`; null: to the last. */
  async #rowsBetween(
    after: Digest | null,
    end: Digest | null,
    ended: AbortSignal,
  ): Promise<{ readonly digest: Digest }[]> {
    const rows: { readonly digest: Digest }[] = [];
    for (let from = after; !ended.aborted; ) {
      const page = await this.#options.objects.after(from, BATCH);
      const within = page.filter(({ digest }) => end === null || digest <= end);
      rows.push(...within);
      if (within.length < BATCH) break;
      from = within.at(-1)?.digest ?? null;
    }
    return rows;
  }

  #within(ended: AbortSignal): AbortSignal {
    return AbortSignal.any([ended, AbortSignal.timeout(ANSWER_WITHIN)]);
  }
}
