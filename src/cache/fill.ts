import { rm } from 'node:fs/promises';
import type { Extent } from '../kit/interval-set.ts';
import type { Mutex } from '../kit/mutex.ts';
import { type Digest, digestAlgorithm, digestHex } from '../oci/digest.ts';
import { RegistryError } from '../oci/errors.ts';
import type { BlobKey, BlobSink } from '../oci/transfer.ts';
import { CacheError } from './cache-error.ts';
import { GrowingFile } from './growing-file.ts';
import { HeldRecorder, type RecordLimits } from './held-recorder.ts';
import type { Layout } from './layout.ts';
import { dropPartial, type Held, promote, takeUp } from './partial.ts';
import { SharedFile } from './shared-file.ts';
import type { FileView, Outcome } from './shared-read.ts';
import type { Reservation, Space } from './space.ts';

export type Fetch = (sink: BlobSink, signal: AbortSignal) => Promise<void>;

/** What a fill needs of the cache around it. */
export interface FillContext {
  readonly layout: Layout;
  readonly space: Space;
  /** Syncs take turns, so that they never hold every thread of the pool while clients wait to read. */
  readonly syncs: Mutex;
  readonly limits: FillLimits;
  /** The blob is whole and in its place. */
  readonly kept: (key: BlobKey, size: number) => void;
  /** The disk failed this fill; for the log and for the metric. */
  readonly diskFailed: (error: CacheError) => void;
  /** Bytes that came from the upstream. */
  readonly fetched: (bytes: number) => void;
}

export interface FillLimits extends RecordLimits {
  /** Bytes at the end that wait for the digest. */
  readonly tail: number;
}

export const FILL_LIMITS: FillLimits = {
  // One TLS record or socket buffer more than a client could take for a whole body.
  tail: 64 * 1024,
  // A restart costs at most so much of a fast transfer, or so long of a slow one …
  recordBytes: 8 * 1024 * 1024,
  recordInterval: 2_000,
  // … and a power cut so long of it.
  syncInterval: 30_000,
};

/** Room is taken in steps of this where the upstream does not say the size. */
const UNKNOWN_SIZE_STEP = 64 * 1024 * 1024;

const NOTHING_HELD: Held = { size: undefined, extents: [] };

/** One blob on its way from the upstream to the disk: fetched once, whoever reads it. */
export class Fill implements FileView {
  readonly digest: Digest;
  path: string;
  size: number | undefined;
  available = 0;
  outcome: Outcome | null = null;
  /** Null until the first byte could be written. Readers keep it open by themselves. */
  file: SharedFile | null = null;
  readonly #key: BlobKey;
  readonly #context: FillContext;
  readonly #abort = new AbortController();
  readonly #sizeKnown = Promise.withResolvers<number | undefined>();
  readonly #listeners = new Set<() => void>();
  readonly #recorder: HeldRecorder;
  #growing: GrowingFile | null = null;
  #held = NOTHING_HELD;
  /** What was taken up does not fit what the upstream gives now. */
  #stale = false;
  #openError: CacheError | null = null;
  #failure: Error | null = null;
  /** What came is wrong, or the disk must be freed: nothing of it is worth taking up. */
  #worthless = false;
  #begun = false;
  #room: Reservation | null = null;

  constructor(key: BlobKey, context: FillContext) {
    this.digest = key.digest;
    this.#key = key;
    this.#context = context;
    this.path = context.layout.partial(key.digest);
    this.#sizeKnown.promise.catch(() => {});
    const { layout, syncs, limits, diskFailed } = context;
    this.#recorder = new HeldRecorder({ layout, digest: key.digest, syncs, every: limits, failed: diskFailed });
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

  /** Calls once, when it is known how the fill ends; its files may still be seen to then. */
  onEnd(listener: () => void): void {
    const check = (): void => {
      if (this.outcome === null) this.onAdvance(check);
      else listener();
    };
    check();
  }

  /** Ends it for now; what is on disk is taken up later. */
  stop(reason: Error): void {
    this.#giveUp(reason);
  }

  /** Fetches, checks, keeps. Resolves when nothing of it is under way any more; how it ended is in `outcome`. */
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
      await this.#ended(this.#failure ?? (error instanceof Error ? error : new Error(String(error))));
    } finally {
      this.#growing?.forget();
      this.#room?.release();
    }
  }

  async #fetch(fetch: Fetch): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    const sink: BlobSink = {
      held: this.#held.extents,
      begin: (size) => this.#begin(size),
      write: (offset, chunk) => this.#write(offset, chunk),
    };
    await fetch(sink, this.#abort.signal);
    if (this.#failure !== null) throw this.#failure;
  }

  /** What was taken up belongs to another size than the upstream gives: it was wrong then, or is now. The digest decides, from the start. */
  async #startOver(): Promise<void> {
    this.#stale = false;
    this.#growing?.fail(new Error('started over'));
    await this.#growing?.idle();
    await this.#recorder.idle();
    this.file?.release();
    this.file = null;
    this.#growing = null;
    this.#held = NOTHING_HELD;
    await dropPartial(this.#context.layout, this.digest);
    await this.#prepare();
  }

  async #prepare(): Promise<void> {
    const { layout } = this.#context;
    const taken = takeUp(layout, this.digest);
    try {
      if (taken === null) this.file = SharedFile.openNew(this.path) ?? (await this.#afresh());
      else {
        this.file = taken.file;
        this.#held = { size: taken.size, extents: keepOpenEnd(taken.extents, taken.size, this.#context.limits.tail) };
      }
    } catch (error) {
      // The upstream is asked all the same: its answer is the client's, and its bytes go past the cache.
      this.#openError = new CacheError('disk', `cannot make ${this.path}: ${(error as Error).message}`, error);
      return;
    }
    this.#growing = new GrowingFile({
      file: this.file,
      algorithm: digestAlgorithm(this.digest),
      held: this.#held.extents,
      onWritten: (bytes) => {
        this.#room?.wrote(bytes);
        this.#advance();
      },
      onError: (error) => this.#giveUp(error),
    });
    this.#recorder.startFrom(this.#growing.written.bytes);
  }

  /** What lies there is not worth taking up. */
  async #afresh(): Promise<SharedFile> {
    await dropPartial(this.#context.layout, this.digest);
    return SharedFile.open(this.path, 'wx+');
  }

  #begin(size: number | undefined): void {
    const known = this.#begun ? this.size : this.#held.size;
    if (size !== undefined && known !== undefined && size !== known) {
      this.#stale = !this.#begun;
      if (this.#stale) throw new Error(`what is held is of a blob of ${known} bytes`);
      throw this.#wrong(`the size of ${this.digest} was ${known} bytes and is now ${size}`);
    }
    const first = !this.#begun;
    this.#begun = true;
    this.size ??= size ?? known;
    // Before anything of ours can fail: the size is the upstream's word, and holds past the cache too.
    this.#sizeKnown.resolve(this.size);
    if (first) this.#takeRoom();
    this.#advance();
  }

  #takeRoom(): void {
    if (this.#growing === null) {
      this.#giveUp(this.#openError ?? new CacheError('disk', `${this.path} is not open`));
      return;
    }
    const room = this.#context.space.reserve(this.digest, this.size ?? UNKNOWN_SIZE_STEP);
    this.#room = room;
    room.ready.catch((error: Error) => this.#giveUp(error));
    this.#growing.waitFor(room.ready);
  }

  async #write(offset: number, chunk: Uint8Array): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    if (!this.#begun || this.#growing === null) throw new Error('write before begin');
    const end = offset + chunk.length;
    if (this.size !== undefined && end > this.size) throw this.#wrong(`more than the ${this.size} bytes it promised`);
    if (this.size === undefined) await this.#growRoom(end);
    this.#context.fetched(chunk.length);
    await this.#growing.write(offset, chunk);
  }

  /** For a blob of unknown size: room in steps, as it grows. */
  async #growRoom(end: number): Promise<void> {
    const room = this.#room;
    if (room === null) return;
    try {
      await room.ready;
      if (end > room.bytes) await room.grow(end - room.bytes + UNKNOWN_SIZE_STEP);
    } catch (error) {
      this.#giveUp(error as Error);
    }
    if (this.#failure !== null) throw this.#failure;
  }

  /** Readers get all but the tail; the tail is theirs when the digest is right. */
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
    this.#wake();
  }

  /** From here on readers have everything; only whether it stays is open. */
  async #keep(): Promise<void> {
    const { layout, syncs } = this.#context;
    const file = this.file;
    const size = this.size;
    if (file === null || size === undefined) return;
    try {
      await this.#recorder.idle();
      await syncs.run(() => file.sync(true));
      this.path = await promote(layout, this.digest);
      this.#context.kept(this.#key, size);
    } catch (error) {
      this.#context.diskFailed(
        new CacheError('disk', `cannot keep ${this.digest}: ${(error as Error).message}`, error),
      );
      await rm(layout.blob(this.digest), { force: true }).catch(() => {});
      await dropPartial(layout, this.digest).catch(() => {});
    }
  }

  #wrong(reason: string): RegistryError {
    const error = new RegistryError('upstreamWrong', { facts: { registry: this.#key.registry, reason } });
    this.#worthless = true;
    this.#giveUp(error);
    return error;
  }

  /** Tells readers and the fetch at once; the files are seen to when the fetch has ended. */
  #giveUp(error: Error): void {
    if (this.#failure !== null || this.outcome !== null) return;
    this.#failure = error;
    if (error instanceof CacheError) {
      this.#worthless = true;
      if (error.reason !== 'too-large') this.#context.diskFailed(error);
    }
    this.outcome = { kind: 'failed', error };
    this.#sizeKnown.reject(error);
    this.#growing?.fail(error);
    this.#abort.abort(error);
    this.#wake();
  }

  async #ended(error: Error): Promise<void> {
    this.#giveUp(error);
    const growing = this.#growing;
    await growing?.idle();
    await this.#recorder.idle();
    if (!this.#worthless && growing !== null && growing.written.bytes > 0) {
      await this.#recorder.record({ file: growing.file, written: growing.written, size: this.size }, { sync: true });
      this.#context.space.left(this.digest, growing.written.bytes);
    } else await dropPartial(this.#context.layout, this.digest).catch(() => {});
  }
}

/** Even of a file that is held whole the tail is fetched once more: only the upstream's answer shows that it still gives this blob. */
function keepOpenEnd(extents: readonly Extent[], size: number | undefined, tail: number): readonly Extent[] {
  const limit = (size ?? Math.max(...extents.map(({ to }) => to))) - Math.max(1, tail);
  return extents.map(({ from, to }) => ({ from, to: Math.min(to, limit) })).filter(({ from, to }) => from < to);
}
