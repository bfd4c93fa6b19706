import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';
import type { BlobKey } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import { CacheError, type Fetch } from './blob-cache.ts';
import { Fill, type FillContext } from './fill.ts';
import type { OpenBlob, OpenBlobs } from './open-blobs.ts';

/** Digests remembered as too large to keep, so that only the first pull of each starts a fill in vain. */
const MAX_TOO_LARGE = 1_000;

export interface FillsOptions {
  readonly context: FillContext;
  readonly openBlobs: OpenBlobs;
  readonly log: Logger;
  /** Whether the blob is in the index. */
  readonly isKept: (digest: Digest) => boolean;
  readonly ended: (outcome: string) => void;
}

/** The fills under way, one for each digest, and what is remembered of those that ended. */
export class Fills {
  readonly #options: FillsOptions;
  readonly #running = new Map<Digest, { readonly fill: Fill; readonly ended: Promise<void> }>();
  readonly #tooLarge = new LRUCache<Digest, true>({ max: MAX_TOO_LARGE });
  /** Fills that no client has been given yet. */
  readonly #unclaimed = new Set<Digest>();

  constructor(options: FillsOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#running.size;
  }

  isTooLarge(digest: Digest): boolean {
    return this.#tooLarge.has(digest);
  }

  /** True once for each fill: for the client that caused it, which has been counted as a miss already. */
  claim(digest: Digest): boolean {
    return this.#unclaimed.delete(digest);
  }

  /** The fill counts as a user of its blob, so that the file stays open when every client has left. */
  start(key: BlobKey, fetch: Fetch): OpenBlob {
    const fill = new Fill(key, this.#options.context);
    const blob = this.#options.openBlobs.openGrowing(fill);
    this.#unclaimed.add(key.digest);
    blob.retain();
    const ended = this.#run(fill, blob, fetch);
    this.#running.set(key.digest, { fill, ended });
    return blob;
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

  async #run(fill: Fill, blob: OpenBlob, fetch: Fetch): Promise<void> {
    const { openBlobs, isKept } = this.#options;
    const { digest } = fill;
    try {
      await openBlobs.removed(digest);
      const running = fill.run(fetch);
      fill.onEnd(() => this.#ended(fill, blob, running));
      await running;
    } finally {
      if (this.#running.get(digest)?.fill === fill) {
        this.#running.delete(digest);
        this.#unclaimed.delete(digest);
      }
      // Complete but not kept: the next client must not find it.
      if (!isKept(digest)) openBlobs.detach(digest, blob);
      blob.release();
    }
  }

  /** Once a fill is known to have failed, the next client starts a new one, which waits until the old one's work on the files is over. */
  #ended(fill: Fill, blob: OpenBlob, running: Promise<void>): void {
    const { openBlobs, log, ended } = this.#options;
    const { digest, outcome } = fill;
    ended(outcome?.kind ?? 'failed');
    if (outcome?.kind !== 'failed') return;
    openBlobs.detach(digest, blob);
    openBlobs.removing(digest, running);
    if (outcome.error instanceof CacheError && outcome.error.reason === 'too-large') {
      this.#tooLarge.set(digest, true);
    } else if (!(outcome.error instanceof CacheError)) {
      log.warn({ digest, err: outcome.error }, 'a fill failed');
    }
  }
}
