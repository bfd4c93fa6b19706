import type { Extent, IntervalSet } from '../kit/interval-set.ts';
import type { Mutex } from '../kit/mutex.ts';
import type { Digest } from '../oci/digest.ts';
import { CacheError } from './cache-error.ts';
import type { Layout } from './layout.ts';
import { writeHeld } from './partial.ts';
import type { SharedFile } from './shared-file.ts';

/** What there is to record. */
export interface Growth {
  readonly file: SharedFile;
  readonly written: IntervalSet;
  readonly size: number | undefined;
}

/** How often, and how thoroughly, is written down what has come. */
export interface RecordLimits {
  /** The `.held` file is written anew after this many bytes … */
  readonly recordBytes: number;
  /** … or this many ms, whichever comes first, if anything came. */
  readonly recordInterval: number;
  /** The data is synced no more often than this, ms: only a power cut needs it, and every sync holds up the writes behind it. */
  readonly syncInterval: number;
}

/**
 * Writes down now and then what has come of a growing file, so that a restart takes it up: what was written, which outlives this process
 * as long as the machine is up, and what was synced, which outlives a power cut too. A failure costs only that.
 */
export class HeldRecorder {
  readonly #layout: Layout;
  readonly #digest: Digest;
  readonly #syncs: Mutex;
  readonly #every: RecordLimits;
  readonly #failed: (error: CacheError) => void;
  #running: Promise<void> | null = null;
  #last = { bytes: 0, at: performance.now() };
  #synced: readonly Extent[] = [];
  #syncedAt = performance.now();

  constructor(options: {
    layout: Layout;
    digest: Digest;
    syncs: Mutex;
    every: RecordLimits;
    failed: (error: CacheError) => void;
  }) {
    this.#layout = options.layout;
    this.#digest = options.digest;
    this.#syncs = options.syncs;
    this.#every = options.every;
    this.#failed = options.failed;
  }

  /** Of what was taken up nothing has to be written again. */
  startFrom(bytes: number): void {
    this.#last = { bytes, at: performance.now() };
  }

  /** After each write: records where enough has come, or enough time has passed. */
  grown(growth: Growth): void {
    const fresh = growth.written.bytes - this.#last.bytes;
    const due =
      fresh >= this.#every.recordBytes ||
      (fresh > 0 && performance.now() - this.#last.at >= this.#every.recordInterval);
    if (!due || this.#running !== null) return;
    const sync = performance.now() - this.#syncedAt >= this.#every.syncInterval;
    this.#running = this.record(growth, { sync }).finally(() => {
      this.#running = null;
    });
  }

  /** Resolves when no record is being written. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /** First the data, then what is said of it. */
  async record({ file, written, size }: Growth, { sync }: { readonly sync: boolean }): Promise<void> {
    const extents = written.list();
    this.startFrom(written.bytes);
    if (extents.length === 0) return;
    try {
      if (sync) {
        await this.#syncs.run(() => file.sync(false));
        this.#synced = extents;
        this.#syncedAt = performance.now();
      }
      await writeHeld(this.#layout, this.#digest, { size, written: extents, synced: this.#synced });
    } catch (error) {
      const { message } = error as Error;
      this.#failed(new CacheError('disk', `cannot record what is held of ${this.#digest}: ${message}`, error));
    }
  }
}
