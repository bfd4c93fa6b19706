import { createHash, type Hash } from 'node:crypto';
import { type Extent, IntervalSet } from '../kit/interval-set.ts';
import { CacheError } from './cache-error.ts';
import { RecentBytes } from './recent-bytes.ts';
import type { SharedFile } from './shared-file.ts';

/** Bytes that may wait for the disk before a writer has to: enough to keep it busy, little enough for hundreds of fills. */
const QUEUE_LIMIT = 256 * 1024;
/** Most chunks in one call (IOV_MAX is 1024). */
const RUN_LIMIT = 256;
/** Written without another thread, where they are a blob's first: one buffer of the network, some 30 µs. */
const FIRST_BYTES = 64 * 1024;
/** How much is read back at once to hash what came out of order. */
const CATCH_UP_BYTES = 64 * 1024;

interface Piece {
  readonly offset: number;
  readonly chunk: Uint8Array;
}

/**
 * A file that is written in pieces and hashed from first to last as it grows. A piece that continues the hash is hashed from memory;
 * one that came early is read back, from the page cache, when its turn comes.
 */
export class GrowingFile {
  readonly written: IntervalSet;
  readonly file: SharedFile;
  readonly #hash: Hash;
  /** The end of what came without a gap. */
  readonly #recent = new RecentBytes();
  readonly #claimed: IntervalSet;
  readonly #onWritten: (bytes: number) => void;
  readonly #onError: (error: CacheError) => void;
  #ready: Promise<void> = Promise.resolve();
  #queue: Piece[] = [];
  #queued = 0;
  #hashed = 0;
  #flushing = false;
  #catching = false;
  #error: Error | null = null;
  #idlers: (() => void)[] = [];
  #waiting: { readonly ready: () => boolean; readonly resolve: () => void; readonly reject: (error: Error) => void }[] =
    [];

  constructor(options: {
    file: SharedFile;
    algorithm: 'sha256' | 'sha512';
    held: readonly Extent[];
    /** After each write. */
    onWritten: (bytes: number) => void;
    /** The disk failed; called once. */
    onError: (error: CacheError) => void;
  }) {
    this.file = options.file;
    this.#hash = createHash(options.algorithm);
    this.written = new IntervalSet(options.held);
    this.#claimed = new IntervalSet(options.held);
    this.#onWritten = options.onWritten;
    this.#onError = options.onError;
    this.#startCatchUp();
  }

  /** Writes wait for this, for example until there is room on the disk. */
  waitFor(ready: Promise<void>): void {
    this.#ready = ready;
  }

  /**
   * Queues a chunk, which is this file's from now on, and resolves when the writer may bring the next.
   * @throws {RangeError} where bytes come twice: what is hashed must not change.
   */
  write(offset: number, chunk: Uint8Array): Promise<void> {
    if (this.#error !== null) return Promise.reject(this.#error);
    const end = offset + chunk.length;
    if (this.#claimed.overlaps(offset, end)) {
      return Promise.reject(new RangeError(`bytes ${offset} to ${end} were written before`));
    }
    this.#claimed.add(offset, end);
    if (offset === this.#hashed && !this.#catching) {
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

  /** Keeps nothing in memory any more. */
  forget(): void {
    this.#recent.forget();
  }

  /** Resolves when everything queued is written and hashed as far as it is without a gap. */
  drain(): Promise<void> {
    return this.#until(() => !this.#flushing && !this.#catching);
  }

  /** Refuses what is still to come and lets no one wait on. */
  fail(error: Error): void {
    if (this.#error !== null) return;
    this.#error = error;
    this.#queue = [];
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  /** Resolves when no operation of this file's is under way any more, failed or not. */
  idle(): Promise<void> {
    if (!this.#flushing && !this.#catching) return Promise.resolve();
    return new Promise((resolve) => this.#idlers.push(resolve));
  }

  /** The hash of everything; only once, after `drain`. */
  digestHex(): string {
    return this.#hash.digest('hex');
  }

  #until(ready: () => boolean): Promise<void> {
    if (this.#error !== null) return Promise.reject(this.#error);
    if (ready()) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiting.push({ ready, resolve, reject }));
  }

  #wake(): void {
    if (!this.#flushing && !this.#catching) for (const resolve of this.#idlers.splice(0)) resolve();
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
      await this.#ready;
      while (this.#queue.length > 0) {
        const run = this.#takeRun();
        // The first bytes of a blob are what its first client waits for.
        const first = this.written.bytes === 0 && run.bytes <= FIRST_BYTES;
        await this.file.write(run.chunks, run.offset, first);
        this.#queued -= run.bytes;
        this.written.add(run.offset, run.offset + run.bytes);
        this.#startCatchUp();
        this.#onWritten(run.bytes);
        this.#wake();
      }
    } catch (error) {
      this.#broken('writing', error);
    } finally {
      this.#flushing = false;
      this.#wake();
    }
  }

  /** The oldest chunk and those that follow on it, so that many small ones make one call. */
  #takeRun(): { offset: number; chunks: Uint8Array[]; bytes: number } {
    const first = this.#queue[0];
    const run = { offset: first?.offset ?? 0, chunks: [] as Uint8Array[], bytes: 0 };
    const rest: Piece[] = [];
    for (const piece of this.#queue) {
      if (piece.offset === run.offset + run.bytes && run.chunks.length < RUN_LIMIT) {
        run.chunks.push(piece.chunk);
        run.bytes += piece.chunk.length;
      } else rest.push(piece);
    }
    this.#queue = rest;
    return run;
  }

  #startCatchUp(): void {
    if (!this.#catching && this.written.endFrom(this.#hashed) > this.#hashed) void this.#catchUp();
  }

  async #catchUp(): Promise<void> {
    this.#catching = true;
    try {
      const buffer = Buffer.allocUnsafe(CATCH_UP_BYTES);
      for (let end = this.#lag(); end > this.#hashed && this.#error === null; end = this.#lag()) {
        const count = await this.file.read(buffer, Math.min(buffer.length, end - this.#hashed), this.#hashed);
        if (count === 0) throw new Error('the file is shorter than what was written to it');
        this.#hash.update(buffer.subarray(0, count));
        this.#hashed += count;
      }
    } catch (error) {
      this.#broken('reading', error);
    } finally {
      this.#catching = false;
      this.#wake();
    }
  }

  #lag(): number {
    return this.written.endFrom(this.#hashed);
  }

  #broken(doing: string, error: unknown): void {
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
