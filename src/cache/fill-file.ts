import { rm } from 'node:fs/promises';
import type { MaybePromise, Mutex } from '../kit/async.ts';
import type { Extent } from '../kit/interval-set.ts';
import { type BlobKey, digestAlgorithm, digestHex } from '../oci/names.ts';
import { CacheError } from './blob-cache.ts';
import type { Reservation, SpaceReserver } from './eviction.ts';
import { type FillKey, type Layout, type PartialName, partialName, SharedFile } from './files.ts';
import { GrowingFile } from './growing-file.ts';
import { dropPartial, type Held, HeldRecorder, promote, type RecordLimits, reopenPartial } from './partial-files.ts';

/** What the file of a fill needs of the cache around it. */
export interface FillFileContext {
  readonly layout: Layout;
  readonly space: SpaceReserver;
  /** Fills sync one after the other, so that they never hold every thread of the pool while clients wait to read. */
  readonly syncs: Mutex;
  readonly limits: RecordLimits & {
    /** Bytes at the end that readers get only once the digest is right, so that a client never has a complete wrong body. */
    readonly tail: number;
  };
  /** The disk failed this fill; for the log and for the metric. */
  readonly diskFailed: (error: CacheError) => void;
}

const NOTHING_HELD: Omit<Held, 'registry'> = { size: undefined, extents: [] };

/**
 * The file of one fill: new, or taken up where an earlier one left it; written and hashed as bytes come, for which it takes room; at the end it
 * is kept, left for the next fill, or dropped.
 */
export class FillFile {
  readonly name: PartialName;
  /** Where it lies now. */
  path: string;
  /** Null until it is open. Readers keep it open by themselves. */
  file: SharedFile | null = null;
  growing: GrowingFile | null = null;
  /** What an earlier fill left. */
  held = NOTHING_HELD;
  /** Why it could not be opened: the upstream is asked all the same. */
  error: CacheError | null = null;
  readonly #key: BlobKey & FillKey;
  readonly #context: FillFileContext;
  readonly #recorder: HeldRecorder;
  readonly #onWritten: (extent: Extent) => void;
  readonly #onError: (error: CacheError) => void;
  #reservation: Reservation | null = null;

  constructor(
    key: BlobKey & FillKey,
    context: FillFileContext,
    on: { written: (extent: Extent) => void; error: (error: CacheError) => void },
  ) {
    const { layout, syncs, limits, diskFailed } = context;
    this.name = partialName(key);
    this.path = layout.partial(this.name);
    this.#key = key;
    this.#context = context;
    this.#recorder = new HeldRecorder({ layout, key, syncs, limits, failed: diskFailed });
    this.#onWritten = on.written;
    this.#onError = on.error;
  }

  async open(): Promise<void> {
    const { layout, limits, space } = this.#context;
    const resumed = reopenPartial(layout, this.#key);
    try {
      if (resumed === null) this.file = await space.withRoom(() => this.#openNew());
      else {
        this.file = resumed.file;
        this.held = { size: resumed.size, extents: withoutTail(resumed.extents, resumed.size, limits.tail) };
      }
    } catch (error) {
      this.error = new CacheError('disk', `cannot make ${this.path}: ${(error as Error).message}`, error);
      return;
    }
    this.growing = new GrowingFile({
      file: this.file,
      algorithm: digestAlgorithm(this.#key.digest),
      held: this.held.extents,
      withRoom: (task) => space.withRoom(task),
      onWritten: (extent) => {
        this.#reservation?.wrote(extent.to - extent.from);
        this.#onWritten(extent);
      },
      onError: this.#onError,
    });
    this.#recorder.startFrom(this.growing.written.bytes);
  }

  /** Forgets what is held. */
  async startOver(): Promise<void> {
    this.growing?.fail(new Error('started over'));
    await this.idle();
    this.file?.release();
    this.file = null;
    this.growing = null;
    this.held = NOTHING_HELD;
    await dropPartial(this.#context.layout, this.name);
    await this.open();
  }

  /**
   * Asks to be admitted with so many bytes; undefined for parts, or where nobody knows.
   * @throws {CacheError} as `SpaceReserver.reserve`
   */
  reserve(promised: number | undefined): void {
    if (this.growing === null) throw this.error ?? new CacheError('disk', `${this.path} is not open`);
    const { space } = this.#context;
    if (this.#reservation !== null) {
      // What has come counts like the partial file of an earlier fill.
      this.#reservation.release();
      space.addPartial(this.name, this.growing.written.bytes);
    }
    this.#reservation = space.reserve(this.name, promised);
  }

  /** Makes room for so many bytes in all; null where there is room already, as mostly. @throws {CacheError} at once or later */
  takeRoom(bytes: number): Promise<void> | null {
    return this.#reservation?.take(bytes) ?? null;
  }

  /** Notes what can be relied on after a crash, where it is time to. */
  grown(size: number | undefined): void {
    const { growing } = this;
    if (growing !== null) this.#recorder.grown({ file: growing.file, written: growing.written, size });
  }

  /** Hashes what is left of it: where it ends, and what makes it another than the blob. @throws {CacheError} where it was never open */
  async check(size: number | undefined): Promise<{ readonly end: number; readonly flaw?: string }> {
    const { growing } = this;
    const { digest } = this.#key;
    if (growing === null) throw this.error ?? new CacheError('disk', `${this.path} is not open`);
    growing.hashAll();
    await growing.drain();
    const { bytes } = growing.written;
    const end = growing.written.endFrom(0);
    if (bytes !== end || end !== (size ?? end))
      return { end, flaw: `${bytes} of ${size ?? 'an unknown number of'} bytes` };
    return growing.digestHex() === digestHex(digest) ? { end } : { end, flaw: `its bytes are not those of ${digest}` };
  }

  /** Moves it, complete, to where blobs lie. @throws the system's error */
  async promote(size: number): Promise<void> {
    const { layout, syncs, space } = this.#context;
    await this.idle();
    // An earlier fill may have been brought more than the blob has: those bytes were never read, and are not the blob's.
    await this.file?.cutTo(size);
    if (this.growing !== null) {
      await this.#recorder.catchUp({ file: this.growing.file, written: this.growing.written, size });
    }
    await syncs.run(async () => this.file?.sync(true));
    this.path = await space.withRoom(() => promote(layout, this.#key));
  }

  /** Removes it, complete as it is: the blob is kept already, or cannot be. */
  async drop({ promoted = false } = {}): Promise<void> {
    const { layout } = this.#context;
    if (promoted) await rm(layout.blob(this.#key.digest), { force: true }).catch(() => {});
    await this.idle();
    await dropPartial(layout, this.name).catch(() => {});
  }

  /** Leaves what has come for a later fill. */
  async leave(size: number | undefined): Promise<void> {
    const { growing } = this;
    await growing?.idle();
    if (growing === null || growing.written.bytes === 0) return this.drop();
    await this.#recorder.record({ file: growing.file, written: growing.written, size });
    this.#context.space.addPartial(this.name, growing.written.bytes);
  }

  /** Resolves when nothing is being written to it or to its record. */
  async idle(): Promise<void> {
    await this.growing?.idle();
    await this.#recorder.idle();
  }

  /** Its room is the index's business from now on, or that of partial files. */
  release(): void {
    this.growing?.freeMemory();
    this.#reservation?.release();
  }

  #openNew(): MaybePromise<SharedFile> {
    return SharedFile.openNew(this.path) ?? this.#replace();
  }

  /** A partial file is there of which no byte can be relied on. */
  async #replace(): Promise<SharedFile> {
    await dropPartial(this.#context.layout, this.name);
    return SharedFile.open(this.path, 'wx+');
  }
}

/** Even of a file that is held completely the tail is fetched again: only the upstream's answer shows that it still gives this blob. */
function withoutTail(extents: readonly Extent[], size: number | undefined, tail: number): readonly Extent[] {
  const limit = (size ?? Math.max(...extents.map(({ to }) => to))) - Math.max(1, tail);
  return extents.map(({ from, to }) => ({ from, to: Math.min(to, limit) })).filter(({ from, to }) => from < to);
}
