import { rm } from 'node:fs/promises';
import type { MaybePromise, Mutex } from '../kit/async.ts';
import type { Extent } from '../kit/interval-set.ts';
import { RegistryError } from '../oci/errors.ts';
import { type BlobKey, type Digest, digestAlgorithm, digestHex } from '../oci/names.ts';
import { type BlobSink, canHaveSize } from '../oci/transfer.ts';
import type { FillAllowance } from './allowance.ts';
import { CacheError, type Fetch, type FillOptions } from './blob-cache.ts';
import type { SecondLevel } from './blob-tier.ts';
import type { Reservation, SpaceReserver } from './eviction.ts';
import { type Layout, type PartialName, partialName, SharedFile } from './files.ts';
import { GrowingFile } from './growing-file.ts';
import { dropPartial, type Held, HeldRecorder, promote, type RecordLimits, reopenPartial } from './partial-files.ts';
import type { FileView, Outcome } from './shared-read.ts';

/** What a fill needs of the cache around it. */
export interface FillContext {
  readonly layout: Layout;
  readonly space: SpaceReserver;
  /** Asked before the upstream; null where there is no second level. */
  readonly secondLevel: SecondLevel | null;
  /** Fills sync one after the other, so that they never hold every thread of the pool while clients wait to read. */
  readonly syncs: Mutex;
  readonly limits: FillLimits;
  /** The blob is in the cache already: another registry's fill brought it, or it was closed to this one. */
  readonly isKept: (fill: Fill, size: number) => Promise<boolean>;
  /** The blob is complete, verified, and at its final path. */
  readonly kept: (fill: Fill, size: number) => Promise<void>;
  /** The disk failed this fill; for the log and for the metric. */
  readonly diskFailed: (error: CacheError) => void;
  /** Bytes that came from the upstream, for the client that began the fill. */
  readonly fetched: (client: string | undefined, bytes: number) => void;
  /** Asked whether a fill may go on that its readers have left. */
  readonly allowance: FillAllowance;
}

export interface FillLimits extends RecordLimits {
  /** Bytes at the end that readers get only once the digest is right, so that a client never has a complete wrong body. */
  readonly tail: number;
}

export const FILL_LIMITS: FillLimits = {
  tail: 64 * 1024,
  // A restart loses at most so many bytes of a fast transfer, or so many ms of a slow one …
  recordBytes: 8 * 1024 * 1024,
  recordInterval: 2_000,
  // … and a power cut so many ms.
  syncInterval: 30_000,
};

const NOTHING_HELD: Omit<Held, 'registry'> = { size: undefined, extents: [] };

/**
 * One blob on its way from one registry (or the second level) to the disk, fetched once for all of its readers. It is hashed as it comes:
 * readers follow behind what is written, and get the last bytes when the digest is right.
 */
export class Fill implements FileView {
  readonly digest: Digest;
  /** Of its file while it grows. */
  readonly name: PartialName;
  /** It came whole, and the cache has the blob now. */
  kept = false;
  path: string;
  size: number | undefined;
  available = 0;
  outcome: Outcome | null = null;
  /** Null until the file is open. Readers keep it open by themselves. */
  file: SharedFile | null = null;
  readonly #key: BlobKey;
  readonly #context: FillContext;
  readonly #options: FillOptions;
  readonly #abort = new AbortController();
  readonly #sizeKnown = Promise.withResolvers<number | undefined>();
  readonly #listeners = new Set<() => void>();
  readonly #recorder: HeldRecorder;
  #growing: GrowingFile | null = null;
  #held = NOTHING_HELD;
  /** The bytes on disk belong to a blob of another size than the upstream gives now. */
  #stale = false;
  /** The second level, not the upstream, is giving the bytes at the moment; it gave some of them. */
  #fromTier = false;
  #usedTier = false;
  #openError: CacheError | null = null;
  #failure: Error | null = null;
  /** The bytes are wrong, or the disk failed: nothing is kept for a later fill. */
  #discard = false;
  #begun = false;
  #reservation: Reservation | null = null;
  /** Bytes held at the start, and those that came since. */
  #arrived = 0;

  constructor(key: BlobKey, context: FillContext, options: FillOptions) {
    this.digest = key.digest;
    this.name = partialName(key);
    this.#key = key;
    this.#context = context;
    this.#options = options;
    this.path = context.layout.partial(this.name);
    this.#sizeKnown.promise.catch(() => {});
    const { layout, syncs, limits, diskFailed } = context;
    this.#recorder = new HeldRecorder({ layout, key, syncs, limits, failed: diskFailed });
  }

  /** The second level gave the last of the bytes: it has the blob. */
  get fromTier(): boolean {
    return this.#fromTier;
  }

  /** @see BlobHandle.size */
  sizeKnown(): Promise<number | undefined> {
    return this.#sizeKnown.promise;
  }

  /** @see Readable.copyRecent */
  copyRecent(into: Uint8Array, length: number, position: number): number {
    return this.#growing?.copyRecent(into, length, position) ?? 0;
  }

  onAdvance(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Calls once, when it is known how the fill ends; work on its files may go on after that. */
  onEnd(listener: () => void): void {
    const check = (): void => {
      if (this.outcome === null) this.onAdvance(check);
      else listener();
    };
    check();
  }

  /** Ends it early; a later fill resumes what is on disk. */
  stop(reason: Error): void {
    this.#fail(reason);
  }

  /** Fetches, verifies, keeps. Resolves when nothing is under way any more; how it ended is in `outcome`. Never rejects. */
  async run(fetch: Fetch): Promise<void> {
    try {
      await this.#prepare();
      await this.#fetch(fetch).catch(async (error: unknown) => {
        if (!this.#stale) throw error;
        await this.#startOver();
        await this.#fetch(fetch);
      });
      await this.#verify();
      await this.#keep();
    } catch (error) {
      await this.#cleanUp(this.#failure ?? (error instanceof Error ? error : new Error(String(error))));
    } finally {
      this.#growing?.freeMemory();
      this.#reservation?.release();
    }
  }

  async #fetch(fetch: Fetch): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    if (await this.#fetchFromTier()) return;
    await fetch(this.#sink('upstream'), this.#abort.signal);
    if (this.#failure !== null) throw this.#failure;
  }

  /** False where the upstream has to bring the rest. @throws what failed this fill meanwhile */
  async #fetchFromTier(): Promise<boolean> {
    const { secondLevel } = this.#context;
    if (secondLevel === null || this.#options.tier !== true) return false;
    const done = await secondLevel.fetch(this.digest, this.#sink('tier'), this.#abort.signal);
    if (this.#failure !== null) throw this.#failure;
    if (this.#stale) throw new Error('the second level has another size than what is held');
    return done;
  }

  #sink(source: 'tier' | 'upstream'): BlobSink {
    return {
      held: this.#growing?.accepted() ?? [],
      begin: (size) => {
        this.#fromTier = source === 'tier';
        this.#usedTier ||= this.#fromTier;
        this.#begin(size);
      },
      write: (offset, chunk) => this.#write(offset, chunk),
    };
  }

  /** What is held belongs to another size than the upstream gives: it was wrong then, or is now. Fetched anew, the digest decides. */
  async #startOver(): Promise<void> {
    this.#stale = false;
    this.#usedTier = false;
    this.#growing?.fail(new Error('started over'));
    await this.#growing?.idle();
    await this.#recorder.idle();
    this.file?.release();
    this.file = null;
    this.#growing = null;
    this.#held = NOTHING_HELD;
    await dropPartial(this.#context.layout, this.name);
    await this.#prepare();
  }

  async #prepare(): Promise<void> {
    const { layout } = this.#context;
    const resumed = reopenPartial(layout, this.#key);
    try {
      if (resumed === null) this.file = await this.#context.space.withRoom(() => this.#openNew());
      else {
        this.file = resumed.file;
        this.#held = {
          size: resumed.size,
          extents: withoutTail(resumed.extents, resumed.size, this.#context.limits.tail),
        };
      }
    } catch (error) {
      // The upstream is asked all the same: the client gets its answer, and then the bytes without the cache.
      this.#openError = new CacheError('disk', `cannot make ${this.path}: ${(error as Error).message}`, error);
      return;
    }
    this.#growing = new GrowingFile({
      file: this.file,
      algorithm: digestAlgorithm(this.digest),
      held: this.#held.extents,
      withRoom: (task) => this.#context.space.withRoom(task),
      onWritten: (bytes) => {
        this.#reservation?.wrote(bytes);
        this.#advance();
      },
      onError: (error) => this.#fail(error),
    });
    this.#recorder.startFrom(this.#growing.written.bytes);
  }

  #openNew(): MaybePromise<SharedFile> {
    return SharedFile.openNew(this.path) ?? this.#replacePartial();
  }

  /** A partial file is there of which no byte can be relied on. */
  async #replacePartial(): Promise<SharedFile> {
    await dropPartial(this.#context.layout, this.name);
    return SharedFile.open(this.path, 'wx+');
  }

  #begin(size: number | undefined): void {
    if (!canHaveSize(this.digest, size)) throw this.#wrong(`a length of ${size} bytes for ${this.digest}`);
    const known = this.#begun ? this.size : this.#held.size;
    if (size !== undefined && known !== undefined && size !== known) {
      this.#stale = !this.#begun;
      if (this.#stale) throw new Error(`what is held is of a blob of ${known} bytes`);
      throw this.#wrong(`the size of ${this.digest} was ${known} bytes and is now ${size}`);
    }
    const first = !this.#begun;
    this.#begun = true;
    this.size ??= size ?? known;
    // Before anything of the cache can fail: the size is what the upstream said, and is right without the cache too.
    this.#sizeKnown.resolve(this.size);
    if (first) this.#reserveSpace();
    this.#advance();
  }

  #reserveSpace(): void {
    if (this.#growing === null) {
      this.#fail(this.#openError ?? new CacheError('disk', `${this.path} is not open`));
      return;
    }
    this.#arrived = this.#growing.written.bytes;
    try {
      this.#reservation = this.#context.space.reserve(this.name, this.size);
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  async #write(offset: number, chunk: Uint8Array): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    if (!this.#begun || this.#growing === null) throw new Error('write before begin');
    const end = offset + chunk.length;
    if (this.size !== undefined && end > this.size) throw this.#wrong(`more than the ${this.size} bytes it promised`);
    this.#arrived += chunk.length;
    const room = this.#takeRoom(this.#arrived);
    if (room !== null) await room;
    if (!this.#fromTier) this.#context.fetched(this.#options.client, chunk.length);
    await this.#growing.write(offset, chunk);
  }

  /** Null where there is room already, as mostly. @throws what failed this fill meanwhile */
  #takeRoom(bytes: number): Promise<void> | null {
    try {
      const room = this.#reservation?.take(bytes) ?? null;
      return room === null ? null : room.catch((error: Error) => this.#fail(error)).then(() => this.#throwFailure());
    } catch (error) {
      this.#fail(error as Error);
      throw error;
    }
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** Lets readers have all that is written without a gap but the tail; they get the tail when the digest is right. */
  #advance(): void {
    const growing = this.#growing;
    if (growing === null || this.outcome !== null || !this.#begun) return;
    const end = growing.written.endFrom(0);
    const available = Math.max(0, Math.min(end, (this.size ?? end) - this.#context.limits.tail));
    if (available > this.available) {
      this.available = available;
      this.#wake();
    }
    this.#recorder.grown({ file: growing.file, written: growing.written, size: this.size });
  }

  #wake(): void {
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const listener of listeners) listener();
  }

  async #verify(): Promise<void> {
    const growing = this.#growing;
    if (growing === null) throw this.#openError ?? new CacheError('disk', `${this.path} is not open`);
    await growing.drain();
    const end = growing.written.endFrom(0);
    if (growing.written.bytes !== end || end !== (this.size ?? end)) {
      throw this.#wrong(`${growing.written.bytes} of ${this.size ?? 'an unknown number of'} bytes`);
    }
    if (growing.digestHex() !== digestHex(this.digest)) throw this.#wrong(`its bytes are not those of ${this.digest}`);
    this.size = end;
    this.available = end;
    this.outcome = { kind: 'complete' };
    this.#sizeKnown.resolve(end);
    if (!this.#usedTier) this.#options.gave?.();
    this.#wake();
  }

  /** Readers have everything by now, whether the blob can be kept or not. */
  async #keep(): Promise<void> {
    const { layout, syncs } = this.#context;
    const file = this.file;
    const size = this.size;
    if (file === null || size === undefined) return;
    await this.#recorder.idle();
    if (await this.#context.isKept(this, size)) {
      this.path = layout.blob(this.digest);
      this.kept = true;
      await dropPartial(layout, this.name).catch(() => {});
      return;
    }
    try {
      await syncs.run(() => file.sync(true));
      this.path = await this.#context.space.withRoom(() => promote(layout, this.#key));
      await this.#context.kept(this, size);
      this.kept = true;
    } catch (error) {
      this.#context.diskFailed(
        new CacheError('disk', `cannot keep ${this.digest}: ${(error as Error).message}`, error),
      );
      if (!(await this.#context.isKept(this, size)))
        await rm(layout.blob(this.digest), { force: true }).catch(() => {});
      await dropPartial(layout, this.name).catch(() => {});
    }
  }

  /** The bytes or the size are not the blob's. */
  #wrong(reason: string): RegistryError {
    const error = new RegistryError('upstreamWrong', { facts: { registry: this.#key.registry, reason } });
    this.#discard = true;
    if (this.#usedTier) this.#context.secondLevel?.distrust(this.digest);
    this.#fail(error);
    return error;
  }

  /** Ends readers and the fetch at once; the files are cleaned up when the fetch has ended. */
  #fail(error: Error): void {
    if (this.#failure !== null || this.outcome !== null) return;
    this.#failure = error;
    if (error instanceof CacheError) {
      this.#discard = true;
      if (error.reason !== 'too-large') this.#context.diskFailed(error);
    }
    this.outcome = { kind: 'failed', error };
    this.#sizeKnown.reject(error);
    this.#growing?.fail(error);
    this.#abort.abort(error);
    this.#wake();
  }

  /** After a failure: keeps what a later fill can resume, and removes the rest. */
  async #cleanUp(error: Error): Promise<void> {
    this.#fail(error);
    const growing = this.#growing;
    await growing?.idle();
    await this.#recorder.idle();
    if (!this.#discard && growing !== null && growing.written.bytes > 0) {
      await this.#recorder.record({ file: growing.file, written: growing.written, size: this.size }, { sync: true });
      this.#context.space.addPartial(this.name, growing.written.bytes);
    } else await dropPartial(this.#context.layout, this.name).catch(() => {});
  }
}

/** Even of a file that is held completely the tail is fetched again: only the upstream's answer shows that it still gives this blob. */
function withoutTail(extents: readonly Extent[], size: number | undefined, tail: number): readonly Extent[] {
  const limit = (size ?? Math.max(...extents.map(({ to }) => to))) - Math.max(1, tail);
  return extents.map(({ from, to }) => ({ from, to: Math.min(to, limit) })).filter(({ from, to }) => from < to);
}
