import { Askers } from '../kit/askers.ts';
import { awaited } from '../kit/async.ts';
import { type Extent, IntervalSet } from '../kit/interval-set.ts';
import { RegistryError } from '../oci/errors.ts';
import type { BlobKey, Digest } from '../oci/names.ts';
import { type BlobSink, canHaveSize, type RunningTransfer, type TransferSource } from '../oci/transfer.ts';
import { Readership, RestedError } from './allowance.ts';
import { CacheError, type Fetch, type FillOptions } from './blob-cache.ts';
import type { FillKey, PartialName, SharedFile } from './files.ts';
import type { FillContext, FillState } from './fill-context.ts';
import { FillFile } from './fill-file.ts';
import { keepFill } from './fill-keep.ts';
import type { Lent } from './fresh-bytes.ts';
import { lacksRoom } from './room.ts';
import { type FileView, type Outcome, readableFrom } from './shared-read.ts';
import { Waiters } from './waiters.ts';
import { type Asked, ReadWishes, type Want } from './wishes.ts';

/** Downloads in a row that end without a byte although some are wanted: then the upstream has no more, and the digest decides. */
const MOST_IDLE_FETCHES = 3;

/**
 * One blob on its way from one registry (or the second level) to the disk, fetched once for all of its readers: all of it, or only those parts
 * that readers ask for, until that is the better half. It is hashed as it comes, and readers get the end of it when the digest is right.
 */
export class Fill implements FileView, FillState {
  readonly key: BlobKey & FillKey;
  readonly digest: Digest;
  readonly askers: Askers;
  /** It came whole, and the cache has the blob now. */
  kept = false;
  size: number | undefined;
  tail = 0;
  outcome: Outcome | null = null;
  readonly readership: Readership;
  /** Nothing is being fetched, since nothing more is wanted now. */
  resting = false;
  /** What fetches for it now, which node gives in the registry's place, and the bytes that came from either. */
  transfer: RunningTransfer | null = null;
  source: TransferSource | null = null;
  fetched = 0;
  /** The second level, not the upstream, is giving the bytes at the moment. */
  fromTier = false;
  readonly #context: FillContext;
  readonly #options: FillOptions;
  readonly #file: FillFile;
  readonly #wishes: ReadWishes;
  readonly #abort = new AbortController();
  readonly #sizeKnown = awaited<number | undefined>();
  /** Settled when whoever gives the bytes has answered; a new one each time that the fill rests. */
  #answered = awaited<void>();
  readonly #waiters = new Waiters();
  readonly #endListeners: (() => void)[] = [];
  /** What is held belongs to a blob of another size than the upstream gives now. */
  #stale = false;
  /** The second level gave some of the bytes. */
  #usedTier = false;
  #failure: Error | null = null;
  /** The bytes are wrong, too many for the cache, or the disk failed: nothing is kept, and a later fill starts over. */
  #discard = false;
  #begun = false;
  /** Bytes held at the start, and those that came since. */
  #arrived = 0;

  constructor(key: BlobKey & FillKey, context: FillContext, options: FillOptions) {
    this.digest = key.digest;
    this.key = key;
    this.#context = context;
    this.#options = options;
    this.readership = new Readership(context, options, () => this.#left());
    this.askers = options.askers ?? new Askers(...(options.client === undefined ? [] : [options.client]));
    this.#file = new FillFile(key, context, {
      written: (extent) => this.#advance(extent),
      error: (error) => this.#fail(error),
    });
    this.#wishes = new ReadWishes(options.part, (required) => this.#goWhole(required));
  }

  /** Bytes that are there. */
  get bytes(): number {
    return this.#file.growing?.written.bytes ?? 0;
  }

  get name(): PartialName {
    return this.#file.name;
  }

  get path(): string {
    return this.#file.path;
  }

  get file(): SharedFile | null {
    return this.#file.file;
  }

  /** All of it is being fetched, from now on to the end. */
  get whole(): boolean {
    return this.#wishes.whole;
  }

  /** @see BlobHandle.size */
  sizeKnown(): Promise<number | undefined> {
    return this.#sizeKnown.promise;
  }

  /** Resolves when whoever gives the bytes has answered since the fill last rested. Rejects with what has failed it. */
  goesOn(): Promise<void> {
    return this.#answered.promise;
  }

  writtenFrom(offset: number): number {
    return this.#begun ? (this.#file.growing?.written.endFrom(offset) ?? offset) : offset;
  }

  onReadable(offset: number, wholeReply: boolean, listener: () => void): () => void {
    return this.#waiters.add(offset, wholeReply, listener);
  }

  /** @see Readable.lend */
  lend(position: number, length: number): Lent | null {
    return this.#file.growing?.lend(position, length) ?? null;
  }

  /** A reader's wish; undefined where nothing more will come. */
  want(asked: Asked): Want | undefined {
    return this.outcome === null ? this.#wishes.add(asked) : undefined;
  }

  /** Calls once, when it is known how the fill ends; work on its files may go on after that. */
  onEnd(listener: () => void): void {
    if (this.outcome === null) this.#endListeners.push(listener);
    else listener();
  }

  /** Ends it early; a later fill resumes what is on disk. */
  stop(reason: Error): void {
    this.#fail(reason);
  }

  /** Ends it where it has nothing to do and no reader. */
  endRest(): void {
    if (this.resting && !this.readership.present) this.#fail(new RestedError('other blobs are read more'));
  }

  /** Fetches, verifies, keeps. Resolves when nothing is under way any more; how it ended is in `outcome`. Never rejects. */
  async run(fetch: Fetch): Promise<void> {
    try {
      await this.#open();
      await this.#fetchWanted(fetch);
      await this.#verify();
      this.kept = await keepFill(this, this.#file, this.#context);
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
      // One that failed before its upstream answered knows no more than the earlier fills did.
      await (this.#discard ? this.#file.drop() : this.#file.leave(this.size ?? this.#file.held.size));
    } finally {
      this.readership.close();
      this.#file.release();
    }
  }

  async #open(): Promise<void> {
    await this.#file.open();
    const { extents, size } = this.#file.held;
    this.#wishes.held(extents);
    // What is held says nothing of what is missing: parts of it cannot be told from the rest before the upstream has answered.
    if (extents.length > 0 && size === undefined) this.#wishes.wantAll();
    if (this.whole) this.#file.growing?.hashAll();
  }

  /** Fetches what is wanted, as often as more is, until all of it is there. */
  async #fetchWanted(fetch: Fetch): Promise<void> {
    this.#beginFromRecord();
    for (let idle = 0; ; ) {
      this.#throwFailure();
      if (this.#begun && !this.#isWanted) {
        await this.#rest();
        continue;
      }
      const before = this.#arrived;
      await this.#fetch(fetch).catch(async (error: unknown) => {
        if (!this.#stale) throw error;
        await this.#startOver();
        await this.#fetch(fetch);
      });
      if (this.size === undefined || this.#missing().empty) return;
      idle = this.#arrived === before ? idle + 1 : 0;
      if (idle === MOST_IDLE_FETCHES) return;
    }
  }

  get #isWanted(): boolean {
    return this.#wishes.next(this.#missing()) !== null;
  }

  #missing(): IntervalSet {
    return IntervalSet.complement(this.#file.growing?.accepted() ?? [], this.size);
  }

  /** Where the parts that earlier readers asked for are all that is wanted, the upstream need not be asked again. */
  #beginFromRecord(): void {
    const { size, extents } = this.#file.held;
    if (this.#options.known !== true || size === undefined || this.whole) return;
    if (this.#wishes.next(IntervalSet.complement(extents, size)) === null) this.#begin(size);
  }

  async #fetch(fetch: Fetch): Promise<void> {
    this.#throwFailure();
    if (await this.#fetchFromTier()) return;
    await fetch(this.#sink('upstream'), this.#abort.signal, this.askers);
    this.#throwFailure();
  }

  /** False where the upstream has to bring the rest. @throws what failed this fill meanwhile */
  async #fetchFromTier(): Promise<boolean> {
    const { secondLevel } = this.#context;
    if (secondLevel === null || this.#options.tier !== true) return false;
    const done = await secondLevel.fetch(this.digest, this.#sink('tier'), this.#abort.signal);
    this.#throwFailure();
    if (this.#stale) throw new Error('the second level has another size than what is held');
    return done;
  }

  #sink(source: 'tier' | 'upstream'): BlobSink {
    return {
      held: this.#file.growing?.accepted() ?? [],
      begin: (size) => {
        this.fromTier = source === 'tier';
        this.#usedTier ||= this.fromTier;
        this.#begin(size);
        this.#answered.resolve();
      },
      write: (offset, chunk) => this.#write(offset, chunk),
      watch: (transfer) => {
        this.transfer = transfer;
      },
      from: (node) => {
        this.source = node;
      },
      wishes: this.#wishes,
      expectedSize: this.#options.expectedSize,
    };
  }

  /** What is held belongs to another size than the upstream gives: it was wrong then, or is now. Fetched anew, the digest decides. */
  async #startOver(): Promise<void> {
    this.#stale = false;
    this.#usedTier = false;
    await this.#file.startOver();
    if (this.whole) this.#file.growing?.hashAll();
  }

  #begin(size: number | undefined): void {
    if (!canHaveSize(this.digest, size)) throw this.#wrong(`a length of ${size} bytes for ${this.digest}`);
    const { held } = this.#file;
    const known = this.#begun ? this.size : held.size;
    if (size !== undefined && known !== undefined && size !== known) {
      this.#stale = !this.#begun;
      if (this.#stale) throw new Error(`what is held is of a blob of ${known} bytes`);
      throw this.#wrong(`the size of ${this.digest} was ${known} bytes and is now ${size}`);
    }
    const first = !this.#begun;
    this.#begun = true;
    this.size ??= size ?? known;
    if (first && this.whole) this.#orFail(() => this.#promise(this.size));
    // Before anything of the cache can fail: the size is what the upstream said, and is right without the cache too.
    this.#sizeKnown.resolve(this.size);
    if (!first) return;
    // Parts of what has no known end cannot be told from the rest.
    if (this.size === undefined) this.#wishes.wantAll();
    this.#arrived = this.bytes;
    this.#reserve(this.whole);
    if (this.size !== undefined) this.#wishes.setSize(this.size);
    for (const extent of held.extents) this.#advance(extent);
  }

  /** All that is missing will be fetched. @throws {RegistryError} tooManyRequests, of which clients hear in place of the size */
  #promise(reply = 0): void {
    if (this.fromTier || this.size === undefined || this.source?.counts === false) return;
    this.readership.promise(this.size - this.bytes, reply);
  }

  #reserve(whole: boolean): void {
    try {
      this.#file.reserve(whole ? this.size : undefined);
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  /** All of it is to be fetched. False where the cache has no room for that, or its client no quota, and parts will do. */
  #goWhole(required: boolean): boolean {
    if (this.#begun && this.size !== undefined) {
      try {
        this.#promise();
        this.#file.reserve(this.size);
      } catch (error) {
        if (required) this.#fail(error as Error);
        else this.#reserve(false);
        return false;
      }
    }
    this.#file.growing?.hashAll();
    return true;
  }

  async #write(offset: number, chunk: Uint8Array): Promise<void> {
    this.#throwFailure();
    const { growing } = this.#file;
    if (!this.#begun || growing === null) throw new Error('write before begin');
    if (this.size !== undefined && offset + chunk.length > this.size)
      throw this.#wrong(`more than the ${this.size} bytes it promised`);
    this.#arrived += chunk.length;
    const room = this.#takeRoom(this.#arrived);
    // While room is being made the writer may use the chunk's memory again.
    const kept = room === null ? chunk : Buffer.from(chunk);
    if (room !== null) await room;
    if (!this.fromTier) this.#fetched(kept.length);
    await growing.write(offset, kept);
  }

  /** Null where there is room already, as mostly. @throws what failed this fill meanwhile */
  #takeRoom(bytes: number): Promise<void> | null {
    const room = this.#orFail(() => this.#file.takeRoom(bytes));
    return room === null ? null : room.catch((error: Error) => this.#fail(error)).then(() => this.#throwFailure());
  }

  /** What is thrown fails the fill. */
  #orFail<T>(run: () => T): T {
    try {
      return run();
    } catch (error) {
      this.#fail(error as Error);
      throw error;
    }
  }

  #fetched(bytes: number): void {
    this.fetched += bytes;
    if (this.source === null) this.#context.fetched(bytes);
    else if (!this.source.counts) return;
    const end = this.readership.fetched(bytes);
    if (end === null) return;
    this.#fail(new RestedError(end));
    this.#throwFailure();
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** Wakes the readers who can go on now that these bytes are written. */
  #advance({ from, to }: Extent): void {
    const { growing } = this.#file;
    if (growing === null || this.outcome !== null || !this.#begun) return;
    const before = this.tail;
    this.tail = Math.max(0, (this.size ?? growing.written.end) - this.#context.limits.tail);
    this.#waiters.wake(
      (offset) => (offset >= from && offset < to) || (offset >= before && offset < this.tail),
      (offset, wholeReply) => readableFrom(this, offset, wholeReply) > offset,
    );
    this.#file.grown(this.size);
  }

  /** Nothing more is wanted. Resolves when something is. @throws {RestedError} where nothing is for a while, and nobody reads */
  async #rest(): Promise<void> {
    this.resting = true;
    this.#answered = awaited();
    this.#context.rests(this, true);
    try {
      while (!this.#isWanted) {
        const wanted = await this.#wishes.changed(this.#context.limits.linger, this.#abort.signal);
        this.#throwFailure();
        if (wanted) continue;
        if (this.#context.idle() && this.readership.mayGoOn()) this.#wishes.wantAll(false);
        else if (!this.readership.present) throw new RestedError('nobody wants more of it');
      }
    } finally {
      this.resting = false;
      this.#context.rests(this, false);
    }
  }

  /** Its last reader has left. */
  #left(): void {
    if (this.outcome !== null || !this.whole || this.resting || this.readership.mayGoOn()) return;
    this.#fail(new RestedError('its readers have left, and its client may have no more fetched'));
  }

  async #verify(): Promise<void> {
    const { end, flaw } = await this.#file.check(this.size);
    if (flaw !== undefined) throw this.#wrong(flaw);
    this.size = end;
    this.tail = Number.POSITIVE_INFINITY;
    this.#sizeKnown.resolve(end);
    this.#answered.resolve();
    if (!this.#usedTier) this.#options.gave?.();
    this.#end({ kind: 'complete' });
  }

  /** The bytes or the size are not the blob's. */
  #wrong(reason: string): RegistryError {
    const error = new RegistryError('upstreamWrong', { facts: { registry: this.key.registry, reason } });
    this.#discard = true;
    if (this.#usedTier) this.#context.secondLevel?.distrust(this.digest);
    else this.#options.wrong?.();
    this.#fail(error);
    return error;
  }

  /** Ends readers and the fetch at once; the files are cleaned up when the fetch has ended. */
  #fail(error: Error): void {
    if (this.#failure !== null || this.outcome !== null) return;
    this.#failure = error;
    if (error instanceof CacheError) {
      // What came before there was no more room is right, and the next fill takes it up; what a disk has that fails is anybody's guess.
      if (!lacksRoom(error)) this.#discard = true;
      if (error.reason !== 'too-large') this.#context.diskFailed(error);
    }
    this.#sizeKnown.reject(error);
    this.#answered.reject(error);
    this.#file.growing?.fail(error);
    this.#abort.abort(error);
    this.#end({ kind: 'failed', error });
  }

  #end(outcome: Outcome): void {
    this.outcome = outcome;
    for (const listener of this.#endListeners.splice(0)) listener();
    this.#waiters.wakeAll();
  }
}
