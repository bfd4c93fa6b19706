import type { Turns } from '../kit/turns.ts';
import type { Digest } from '../oci/digest.ts';
import { CacheError } from './cache-error.ts';
import type { ExtentSet } from './extent-set.ts';
import type { Layout } from './layout.ts';
import { writeHeld } from './partial.ts';
import type { SharedFile } from './shared-file.ts';

/** What there is to record. */
export interface Growth {
  readonly file: SharedFile;
  readonly written: ExtentSet;
  readonly size: number | undefined;
}

/** Writes down now and then what a growing file has on disk, so that a restart takes it up. A failure costs only that. */
export class HeldRecorder {
  readonly #layout: Layout;
  readonly #digest: Digest;
  readonly #syncs: Turns;
  readonly #every: { readonly syncBytes: number; readonly syncInterval: number };
  readonly #failed: (error: CacheError) => void;
  #running: Promise<void> | null = null;
  #last = { bytes: 0, at: performance.now() };

  constructor(options: {
    layout: Layout;
    digest: Digest;
    syncs: Turns;
    every: { readonly syncBytes: number; readonly syncInterval: number };
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
      fresh >= this.#every.syncBytes || (fresh > 0 && performance.now() - this.#last.at >= this.#every.syncInterval);
    if (!due || this.#running !== null) return;
    this.#running = this.record(growth).finally(() => {
      this.#running = null;
    });
  }

  /** Resolves when no record is being written. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /** First the data, then what is said of it. */
  async record({ file, written, size }: Growth): Promise<void> {
    const extents = written.list();
    this.startFrom(written.bytes);
    if (extents.length === 0) return;
    try {
      await this.#syncs.run(() => file.sync(false));
      await writeHeld(this.#layout, this.#digest, { size, extents });
    } catch (error) {
      const { message } = error as Error;
      this.#failed(new CacheError('disk', `cannot record what is held of ${this.#digest}: ${message}`, error));
    }
  }
}
