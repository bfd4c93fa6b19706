import { createHash, type Hash } from 'node:crypto';
import { type Extent, IntervalSet } from '../kit/interval-set.ts';
import { CacheError } from './blob-cache.ts';
import type { SpaceReserver } from './eviction.ts';
import type { SharedFile } from './files.ts';
import { FreshBytes, type Lent } from './fresh-bytes.ts';

/** Bytes that may be queued for the disk before the writer has to wait: enough to keep it busy, little enough for hundreds of fills. */
const QUEUE_LIMIT = 512 * 1024;
/** Most chunks in one `writev` (the kernel's IOV_MAX is 1024). */
const RUN_LIMIT = 256;
/** The first bytes of a blob are written synchronously, if they are no more than this: one buffer of the network, some 30 µs. */
const FIRST_BYTES = 64 * 1024;
/** How much is read back at once to hash what came out of order. */
const CATCH_UP_BYTES = 64 * 1024;

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
  readonly #fresh: FreshBytes;
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
    this.#fresh = new FreshBytes((from, to) => this.written.endFrom(from) >= to);
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
   * Queues a copy of a chunk, and resolves when the writer may bring the next.
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
      this.#enqueue(offset, this.#fresh.append(offset, chunk));
    } else this.#enqueue(offset, [Buffer.from(chunk)]);
    if (!this.#flushing) void this.#flush();
    return this.#queued <= QUEUE_LIMIT ? Promise.resolve() : this.#until(() => this.#queued <= QUEUE_LIMIT / 2);
  }

  /** At most `length` of the bytes at `position`, from memory; null where they came too long ago, or out of order. */
  lend(position: number, length: number): Lent | null {
    return this.#fresh.lend(position, length);
  }

  /** Frees what is kept in memory of the last bytes. */
  freeMemory(): void {
    this.#fresh.free();
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

  #enqueue(offset: number, chunks: readonly Uint8Array[]): void {
    let at = offset;
    for (const chunk of chunks) {
      this.#queue.push({ offset: at, chunk });
      at += chunk.length;
    }
    this.#queued += at - offset;
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
