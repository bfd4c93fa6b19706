import { createHash, type Hash } from 'node:crypto';
import { type Extent, IntervalSet } from '../kit/interval-set.ts';
import { CacheError } from './blob-cache.ts';
import type { SpaceReserver } from './eviction.ts';
import type { SharedFile } from './files.ts';

/** Bytes that may be queued for the disk before the writer has to wait: enough to keep it busy, little enough for hundreds of fills. */
const QUEUE_LIMIT = 256 * 1024;
/** Most chunks in one `writev` (the kernel's IOV_MAX is 1024). */
const RUN_LIMIT = 256;
/** The first bytes of a blob are written synchronously, if they are no more than this: one buffer of the network, some 30 µs. */
const FIRST_BYTES = 64 * 1024;
/** How much is read back at once to hash what came out of order. */
const CATCH_UP_BYTES = 64 * 1024;

/** How many of the last bytes are kept in memory for readers at the end of what is there. */
const RECENT_BYTES = 128 * 1024;

interface QueuedWrite {
  readonly offset: number;
  readonly chunk: Uint8Array;
}

/**
 * A file that is written in chunks, in any order, and hashed from its first byte to its last as it grows. A chunk that continues the hash is
 * hashed from memory; one that came early is read back (from the page cache) when the hash has reached it, and all of it is wanted.
 */
export class GrowingFile {
  readonly written: IntervalSet;
  readonly file: SharedFile;
  readonly #hash: Hash;
  /** The last bytes of what came without a gap. */
  readonly #recent = new RecentBytes();
  /** Written or queued. */
  readonly #accepted: IntervalSet;
  readonly #withRoom: SpaceReserver['withRoom'];
  readonly #onWritten: (extent: Extent) => void;
  readonly #onError: (error: CacheError) => void;
  #queue: QueuedWrite[] = [];
  #queued = 0;
  #hashed = 0;
  #hashesAll = false;
  #flushing = false;
  #catchingUp = false;
  #error: Error | null = null;
  #idlers: (() => void)[] = [];
  #waiting: { readonly ready: () => boolean; readonly resolve: () => void; readonly reject: (error: Error) => void }[] =
    [];

  constructor(options: {
    file: SharedFile;
    algorithm: 'sha256' | 'sha512';
    held: readonly Extent[];
    /** Runs each write, and again where the file system had no room for it. */
    withRoom: SpaceReserver['withRoom'];
    /** After each write. */
    onWritten: (extent: Extent) => void;
    /** The disk failed; called once. */
    onError: (error: CacheError) => void;
  }) {
    this.file = options.file;
    this.#hash = createHash(options.algorithm);
    this.written = new IntervalSet(options.held);
    this.#accepted = new IntervalSet(options.held);
    this.#withRoom = options.withRoom;
    this.#onWritten = options.onWritten;
    this.#onError = options.onError;
  }

  /** All of the file is to come: what is there is read for the hash. */
  hashAll(): void {
    this.#hashesAll = true;
    this.#startCatchUp();
  }

  /** What has been accepted of the file: written, or queued to be. */
  accepted(): Extent[] {
    return this.#accepted.list();
  }

  /**
   * Queues a chunk, which is this file's from now on, and resolves when the writer may bring the next.
   * @throws {RangeError} where bytes come twice: what is hashed must not change.
   */
  write(offset: number, chunk: Uint8Array): Promise<void> {
    if (this.#error !== null) return Promise.reject(this.#error);
    const end = offset + chunk.length;
    if (this.#accepted.overlaps(offset, end)) {
      return Promise.reject(new RangeError(`bytes ${offset} to ${end} were written before`));
    }
    this.#accepted.add(offset, end);
    if (offset === this.#hashed && !this.#catchingUp) {
      this.#hash.update(chunk);
      this.#hashed = end;
      this.#recent.append(offset, chunk);
    }
    this.#queue.push({ offset, chunk });
    this.#queued += chunk.length;
    if (!this.#flushing) void this.#flush();
    return this.#queued <= QUEUE_LIMIT ? Promise.resolve() : this.#until(() => this.#queued <= QUEUE_LIMIT / 2);
  }

  /** Copies what it can of the bytes at `position` from memory; 0 where they came too long ago. */
  copyRecent(into: Uint8Array, length: number, position: number): number {
    return this.#recent.copy(into, length, position);
  }

  /** Frees the copy of recent bytes. */
  freeMemory(): void {
    this.#recent.free();
  }

  /** Resolves when everything queued is written and hashed as far as it is without a gap. */
  drain(): Promise<void> {
    return this.#until(() => !this.#flushing && !this.#catchingUp);
  }

  /** Refuses further writes, and rejects everything that waits. */
  fail(error: Error): void {
    if (this.#error !== null) return;
    this.#error = error;
    this.#queue = [];
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  /** Resolves when no operation on the file is under way any more, failed or not. */
  idle(): Promise<void> {
    if (!this.#flushing && !this.#catchingUp) return Promise.resolve();
    return new Promise((resolve) => this.#idlers.push(resolve));
  }

  /** The hash of the whole file; may be called once, after `drain`. */
  digestHex(): string {
    return this.#hash.digest('hex');
  }

  #until(ready: () => boolean): Promise<void> {
    if (this.#error !== null) return Promise.reject(this.#error);
    if (ready()) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiting.push({ ready, resolve, reject }));
  }

  #wake(): void {
    if (!this.#flushing && !this.#catchingUp) for (const resolve of this.#idlers.splice(0)) resolve();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const waiter of waiting) {
      if (waiter.ready()) waiter.resolve();
      else this.#waiting.push(waiter);
    }
  }

  async #flush(): Promise<void> {
    this.#flushing = true;
    try {
      // Not in the caller's turn, which would wait for the first write.
      await null;
      while (this.#queue.length > 0) {
        const run = this.#takeRun();
        // The first client waits for the first bytes of a blob.
        const first = this.written.bytes === 0 && run.bytes <= FIRST_BYTES;
        await this.#withRoom(() => this.file.write(run.chunks, run.offset, first));
        this.#queued -= run.bytes;
        this.written.add(run.offset, run.offset + run.bytes);
        this.#startCatchUp();
        this.#onWritten({ from: run.offset, to: run.offset + run.bytes });
        this.#wake();
      }
    } catch (error) {
      this.#failWith('writing', error);
    } finally {
      this.#flushing = false;
      this.#wake();
    }
  }

  /** The oldest chunk and those that continue it, so that many small chunks make one call. */
  #takeRun(): { offset: number; chunks: Uint8Array[]; bytes: number } {
    const first = this.#queue[0];
    const run = { offset: first?.offset ?? 0, chunks: [] as Uint8Array[], bytes: 0 };
    const rest: QueuedWrite[] = [];
    for (const queued of this.#queue) {
      if (queued.offset === run.offset + run.bytes && run.chunks.length < RUN_LIMIT) {
        run.chunks.push(queued.chunk);
        run.bytes += queued.chunk.length;
      } else rest.push(queued);
    }
    this.#queue = rest;
    return run;
  }

  #startCatchUp(): void {
    if (this.#hashesAll && !this.#catchingUp && this.written.endFrom(this.#hashed) > this.#hashed) void this.#catchUp();
  }

  async #catchUp(): Promise<void> {
    this.#catchingUp = true;
    try {
      const buffer = Buffer.allocUnsafe(CATCH_UP_BYTES);
      for (let end = this.#hashableEnd(); end > this.#hashed && this.#error === null; end = this.#hashableEnd()) {
        const count = await this.file.read(buffer, Math.min(buffer.length, end - this.#hashed), this.#hashed);
        if (count === 0) throw new Error('the file is shorter than what was written to it');
        this.#hash.update(buffer.subarray(0, count));
        this.#hashed += count;
      }
    } catch (error) {
      this.#failWith('reading', error);
    } finally {
      this.#catchingUp = false;
      this.#wake();
    }
  }

  /** How far the hash can go: the end of what is written without a gap. */
  #hashableEnd(): number {
    return this.written.endFrom(this.#hashed);
  }

  #failWith(doing: string, error: unknown): void {
    if (this.#error !== null) return;
    const failure =
      error instanceof CacheError
        ? error
        : new CacheError(
            'disk',
            `${doing} a growing blob failed: ${error instanceof Error ? error.message : ''}`,
            error,
          );
    this.fail(failure);
    this.#onError(failure);
  }
}

/**
 * A copy of the bytes that were appended last. Readers at the end of a growing blob want them next, and need no turn of the thread pool for
 * them. A copy, so that the network's buffers are free again as soon as they are written.
 */
export class RecentBytes {
  #ring: Buffer | null = null;
  /** The bytes `[from, to)` are there; each lies at its offset modulo the size of the ring. */
  #from = 0;
  #to = 0;

  /** Bytes that do not continue the last ones replace them. */
  append(offset: number, bytes: Uint8Array): void {
    this.#ring ??= Buffer.allocUnsafeSlow(RECENT_BYTES);
    if (offset !== this.#to) this.#from = offset;
    this.#to = offset + bytes.length;
    this.#from = Math.max(this.#from, this.#to - RECENT_BYTES);
    for (let at = Math.max(offset, this.#from); at < this.#to; ) {
      const place = at % RECENT_BYTES;
      const part = bytes.subarray(at - offset, at - offset + RECENT_BYTES - place);
      this.#ring.set(part, place);
      at += part.length;
    }
  }

  /** Copies what it can of the bytes at `position`; 0 where it has none of them. */
  copy(into: Uint8Array, length: number, position: number): number {
    if (this.#ring === null || position < this.#from) return 0;
    const end = Math.min(position + length, this.#to);
    let at = position;
    while (at < end) {
      const place = at % RECENT_BYTES;
      const part = this.#ring.subarray(place, place + Math.min(end - at, RECENT_BYTES - place));
      into.set(part, at - position);
      at += part.length;
    }
    return at - position;
  }

  free(): void {
    this.#ring = null;
  }
}
