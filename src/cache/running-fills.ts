import { LRUCache } from 'lru-cache';
import { elapsed, iso, steadyNow } from '../kit/time.ts';
import { RegistryError } from '../oci/errors.ts';
import type { BlobKey, Digest } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import { RestedError } from './allowance.ts';
import { CacheError, type Fetch, type FillOptions } from './blob-cache.ts';
import { type FillKey, type PartialName, partialName } from './files.ts';
import { Fill } from './fill.ts';
import type { FillContext, FillState } from './fill-context.ts';
import type { OpenBlob, OpenBlobs } from './open-blobs.ts';
import type { Uploads } from './tier-uploads.ts';

/** Blobs remembered as too large to keep, so that only the first pull of each starts a fill in vain. */
const MAX_TOO_LARGE = 1_000;

/** Fills at rest without a reader: a hundredth of what a process may have open, and enough for the layers of some images at once. */
const MAX_RESTING = 64;

export interface RunningFillsOptions {
  readonly context: Omit<FillContext, 'rests' | 'idle'>;
  readonly openBlobs: OpenBlobs;
  readonly log: Logger;
  readonly ended: (outcome: string) => void;
  /** Brings to a shared store what comes; null where there is none. */
  readonly uploads: Pick<Uploads, 'begun' | 'kept'> | null;
}

/** A fill under way, for an operator. */
export interface FillProgress {
  readonly registry: string;
  readonly repository: string;
  readonly digest: Digest;
  /** Bytes that are there, those of earlier fills included. */
  readonly bytes: number;
  /** Null where the registry has not said it. */
  readonly total: number | null;
  readonly readers: number;
  /** To the registry, or to the node. */
  readonly connections: number;
  /** The id of the node that gives the bytes in the registry's place; null where they come from the registry. */
  readonly node: string | null;
  /** Lately; of all its time, where it has just begun. */
  readonly bytesPerSecond: number;
  /** It waits until more of it is wanted. */
  readonly resting: boolean;
  /** ISO 8601. */
  readonly startedAt: string;
}

interface Running {
  readonly fill: Fill;
  readonly blob: OpenBlob;
  readonly ended: Promise<void>;
  /** Ms. */
  readonly startedAt: number;
}

/** The fills under way, one for each digest and registry, and what is remembered of those that ended. */
export class RunningFills {
  readonly #options: RunningFillsOptions;
  readonly #running = new Map<PartialName, Running>();
  readonly #tooLarge = new LRUCache<PartialName, true>({ max: MAX_TOO_LARGE });
  /** Fills that no client has been given yet. */
  readonly #unclaimed = new Set<PartialName>();
  /** They have what is wanted of them for now; the one that has waited longest is the first. */
  readonly #resting = new Set<FillState>();
  readonly #context: FillContext;

  constructor(options: RunningFillsOptions) {
    this.#options = options;
    this.#context = {
      ...options.context,
      rests: (fill, resting) => this.#rests(fill, resting),
      idle: () => this.count === 0,
    };
  }

  /** Fills that fetch. */
  get count(): number {
    return this.#running.size - this.#resting.size;
  }

  /** Those under way, the oldest first. */
  progress(): FillProgress[] {
    return [...this.#running.values()].filter(({ fill }) => fill.outcome === null).map(progressOf);
  }

  /** What a fill under way has of a blob by now; null where none is. */
  heldBy(key: FillKey): number | null {
    const running = this.#running.get(partialName(key));
    return running === undefined || running.fill.outcome !== null ? null : running.fill.bytes;
  }

  /** As large as this registry says; another may be right about the same digest. */
  isTooLarge(key: FillKey): boolean {
    return this.#tooLarge.size > 0 && this.#tooLarge.has(partialName(key));
  }

  /** True once for each fill: for the client that caused it, which has been counted as a miss already. */
  claim(name: PartialName): boolean {
    return this.#unclaimed.delete(name);
  }

  /** The fill counts as a user of its blob, so that the file stays open when every client has left. */
  start(key: BlobKey & FillKey, fetch: Fetch, options: FillOptions): OpenBlob {
    const fill = new Fill(key, this.#context, options);
    const blob = this.#options.openBlobs.openGrowing(fill);
    this.#unclaimed.add(fill.name);
    blob.retain();
    const ended = this.#run(fill, blob, fetch);
    if (options.ended !== undefined) fill.onEnd(options.ended);
    this.#running.set(fill.name, { fill, blob, ended, startedAt: steadyNow() });
    return blob;
  }

  /** Ends one that is still fetching; false where there is none. */
  stop(name: PartialName, reason: Error): boolean {
    const running = this.#running.get(name);
    if (running === undefined || running.fill.outcome !== null) return false;
    running.fill.stop(reason);
    return true;
  }

  async stopAll(reason: Error): Promise<void> {
    const running = [...this.#running.values()];
    for (const { fill } of running) fill.stop(reason);
    await Promise.allSettled(running.map(({ ended }) => ended));
  }

  #rests(fill: FillState, resting: boolean): void {
    this.#resting.delete(fill);
    if (!resting) return;
    this.#resting.add(fill);
    let over = this.#resting.size - MAX_RESTING;
    for (const oldest of this.#resting) {
      if (over-- <= 0) break;
      oldest.endRest();
    }
  }

  async #run(fill: Fill, blob: OpenBlob, fetch: Fetch): Promise<void> {
    const { openBlobs } = this.#options;
    const { name } = fill;
    try {
      await openBlobs.removed(name);
      const running = fill.run(fetch);
      fill.sizeKnown().then(
        () => this.#begun(fill),
        () => {},
      );
      fill.onEnd(() => this.#ended(fill, blob, running));
      await running;
      if (fill.kept && !fill.fromTier) this.#options.uploads?.kept(fill.digest, 'blob', fill.key);
    } finally {
      if (this.#running.get(name)?.fill === fill) {
        this.#running.delete(name);
        this.#unclaimed.delete(name);
      }
      // Complete but not kept: the next client must not find it.
      if (!fill.kept) openBlobs.detach(fill.digest, blob);
      blob.release();
    }
  }

  /** Its size is known, and its bytes are about to come. */
  #begun(fill: Fill): void {
    if (!fill.fromTier && fill.outcome === null) this.#options.uploads?.begun(fill);
  }

  /**
   * Once a fill has ended, the next client does not join it: what is verified is found by its digest, what failed is begun anew. A new fill waits
   * until the old one's work on the files is over.
   */
  #ended(fill: Fill, blob: OpenBlob, running: Promise<void>): void {
    const { openBlobs, log, ended } = this.#options;
    const { digest, name, outcome } = fill;
    const rested = outcome?.kind === 'failed' && outcome.error instanceof RestedError;
    ended(rested ? 'rested' : (outcome?.kind ?? 'failed'));
    openBlobs.removing(name, running);
    if (outcome?.kind !== 'failed') {
      openBlobs.verified(fill, blob);
      return;
    }
    openBlobs.detach(name, blob);
    if (outcome.error instanceof CacheError && outcome.error.reason === 'too-large') {
      this.#tooLarge.set(name, true);
    } else if (!rested && !(outcome.error instanceof CacheError)) {
      // Whoever waits for it is answered with the registry's failure, and the edge logs that with its reason.
      const level = outcome.error instanceof RegistryError ? 'debug' : 'warn';
      log[level]({ digest, err: outcome.error }, 'a fill failed');
    }
  }
}

function progressOf({ fill, blob, startedAt }: Running): FillProgress {
  const { registry, repository } = fill.key;
  const { bytes, fetched, transfer, resting } = fill;
  const seconds = Math.max(1, elapsed(startedAt)) / 1000;
  const pace = transfer?.pace ?? 0;
  return {
    registry,
    repository,
    digest: fill.digest,
    bytes,
    total: fill.size ?? null,
    readers: Math.max(0, blob.readers),
    connections: transfer?.connections ?? 0,
    node: fill.source?.node ?? null,
    bytesPerSecond: Math.round(Number.isFinite(pace) ? pace : fetched / seconds),
    resting,
    startedAt: iso(startedAt),
  };
}
