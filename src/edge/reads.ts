import type { Lent } from '../cache/fresh-bytes.ts';
import type { FilePlace, FileSource } from '../cache/shared-read.ts';

/**
 * Reads of files under way at a time. Bytes that the kernel has in its page cache come at once, and more reads would fill buffers that have
 * left the processor's cache again when their turn to be written comes: 8 at a time cost a fifth more CPU a byte than 2.
 */
const CONCURRENT_READS = 2;
/** A read that takes longer waits for a disk, or for an upstream where the file is damaged: it no longer counts, and another begins. */
const SLOW_READ_MS = 10;
/** Buffers that nobody sends any more and that are kept for clients a little behind at the same place of the file: 8 MiB at most. */
const MAX_RECENT = 16;
/** Buffers are freed once no client has been sent a body for so long. */
const IDLE_MS = 1_000;

/** The next bytes of a body; empty at its end. */
export type BodyChunk = Lent;

/**
 * Reads bodies. Clients that want bytes of a file which have just been read, or are being read, for another client get the same
 * buffer: a layer that a whole cluster pulls at once is read once, and held in memory once.
 */
export class Reads {
  readonly #buffers: BufferPool;
  readonly #waiting: (() => void)[] = [];
  /** By file, what may be shared. */
  readonly #shareable = new WeakMap<object, Set<SharedBuffer>>();
  /** What may be shared and nobody sends at the moment, the oldest first. */
  readonly #recent = new Set<SharedBuffer>();
  readonly #idle: NodeJS.Timeout;
  #running = 0;

  constructor(buffers: BufferPool) {
    this.#buffers = buffers;
    this.#idle = setTimeout(() => this.#clear(), IDLE_MS).unref();
  }

  /** A client begins to be sent a body; `leave` follows at its end. */
  join(): void {
    this.#buffers.join();
  }

  leave(): void {
    this.#buffers.leave();
    if (this.#buffers.idle) this.#idle.refresh();
  }

  /** No buffer is taken before the bytes are here, where the source can tell. */
  async next(source: FileSource): Promise<BodyChunk> {
    while (await source.ready?.()) {
      const lent = source.lend?.(this.#buffers.step) ?? null;
      if (lent !== null) return lent;
      const place = source.place?.() ?? null;
      const other = place === null ? undefined : this.#covering(place);
      if (other === undefined) {
        const shared = this.#announce(place);
        return this.#inTurn(() => this.#read(source, shared));
      }
      const chunk = await this.#share(other, source);
      if (chunk !== null) return chunk;
    }
    return this.#read(source, this.#announce(null));
  }

  /** Other clients find the read from now on, before it has begun. */
  #announce(place: FilePlace | null): SharedBuffer {
    const shared = new SharedBuffer(place, this.#buffers.step);
    if (place?.shared) {
      const ofFile = this.#shareable.get(place.file) ?? new Set();
      this.#shareable.set(place.file, ofFile.add(shared));
    }
    return shared;
  }

  async #read(source: FileSource, shared: SharedBuffer): Promise<BodyChunk> {
    const { place } = shared;
    const buffer = this.#buffers.take(place === null ? Number.POSITIVE_INFINITY : place.end - place.position);
    try {
      const count = await source.pull(buffer);
      // A source whose file turned out to be damaged goes on with bytes from elsewhere, which are nothing to share.
      const elsewhere = source.place?.()?.file !== place?.file;
      if (elsewhere) this.#withdraw(shared);
      shared.fill(buffer, elsewhere ? 0 : count);
      return { bytes: buffer.subarray(0, count), release: () => this.#release(shared) };
    } catch (error) {
      this.#withdraw(shared);
      shared.fill(buffer, 0);
      this.#release(shared);
      throw error;
    }
  }

  /** Waits for another client's read; null where it did not bring the bytes that it was expected to. */
  async #share(shared: SharedBuffer, source: FileSource): Promise<BodyChunk | null> {
    this.#recent.delete(shared);
    shared.users++;
    await shared.filled;
    const place = source.place?.() ?? null;
    const bytes = place === null ? null : shared.bytesAt(place, this.#buffers.step);
    if (bytes === null) {
      this.#release(shared);
      return null;
    }
    source.pass?.(bytes.length);
    return { bytes, release: () => this.#release(shared) };
  }

  #release(shared: SharedBuffer): void {
    shared.users--;
    if (shared.users > 0) return;
    const { place } = shared;
    if (place === null || !this.#shareable.get(place.file)?.has(shared)) {
      this.#free(shared);
      return;
    }
    this.#recent.add(shared);
    const [oldest] = this.#recent;
    if (this.#recent.size <= MAX_RECENT || oldest === undefined) return;
    this.#recent.delete(oldest);
    this.#withdraw(oldest);
    this.#free(oldest);
  }

  #clear(): void {
    if (!this.#buffers.idle) return;
    for (const shared of this.#recent) this.#withdraw(shared);
    this.#recent.clear();
    this.#buffers.clear();
  }

  #free({ buffer }: SharedBuffer): void {
    if (buffer !== null) this.#buffers.give(buffer);
  }

  #covering({ file, position }: FilePlace): SharedBuffer | undefined {
    for (const shared of this.#shareable.get(file) ?? []) if (shared.covers(position)) return shared;
    return undefined;
  }

  /** No further client finds it. */
  #withdraw(shared: SharedBuffer): void {
    if (shared.place !== null) this.#shareable.get(shared.place.file)?.delete(shared);
  }

  /** Runs a read when it is its turn. */
  async #inTurn<T>(read: () => Promise<T>): Promise<T> {
    if (this.#running < CONCURRENT_READS) this.#running++;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let slow: NodeJS.Timeout | null = setTimeout(() => {
      slow = null;
      this.#startNext();
    }, SLOW_READ_MS);
    try {
      return await read();
    } finally {
      if (slow !== null) {
        clearTimeout(slow);
        this.#startNext();
      }
    }
  }

  /** A read is done, or is slow and no longer counts. */
  #startNext(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#running--;
    else next();
  }
}

/** Bytes of a file that are being read, or were, and how many clients send them. */
class SharedBuffer {
  /** Null for bytes that cannot be shared. */
  readonly place: FilePlace | null;
  /** Resolves when the read is over, however it ended. */
  readonly filled: Promise<void>;
  buffer: Buffer | null = null;
  /** The client that reads it is the first. */
  users = 1;
  #count: number;
  readonly #settle: () => void;

  /** @param expected bytes that the read is likely to bring */
  constructor(place: FilePlace | null, expected: number) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.place = place;
    this.filled = promise;
    this.#settle = resolve;
    this.#count = expected;
  }

  fill(buffer: Buffer, count: number): void {
    this.buffer = buffer;
    this.#count = count;
    this.#settle();
  }

  covers(position: number): boolean {
    const from = this.place?.position ?? 0;
    return position >= from && position < from + this.#count;
  }

  /** The bytes from a place on, `most` at most; null where it has none of them. */
  bytesAt({ position, end }: FilePlace, most: number): Uint8Array | null {
    if (this.buffer === null || !this.covers(position)) return null;
    const from = position - (this.place?.position ?? 0);
    return this.buffer.subarray(from, Math.min(this.#count, from + most, from + end - position));
  }
}

/**
 * How many bytes a client is sent at a time while so many clients are sent bodies. Large, so that the cost of one step (a read in another
 * thread, a write and its callback) is spread over many bytes; this matters most with one or two clients, who share no read. Smaller with
 * many: what a process holds beside these buffers grows with them, for each connection (measured with 500 clients; where Node keeps
 * it was not found).
 */
const STEPS = [
  { clients: 32, size: 512 * 1024 },
  { clients: 96, size: 128 * 1024 },
  { clients: 192, size: 64 * 1024 },
  { clients: Number.POSITIVE_INFINITY, size: 32 * 1024 },
];
/** From the smallest step to the largest, so that the end of a body takes less than twice what it needs. */
const SIZES = [32, 64, 128, 256, 512].map((kib) => kib * 1024);
/** Buffers of one size that are kept for the next read; more are left to the garbage collector. */
const MAX_FREE = 16;

/**
 * Buffers for bodies. The one that came back last goes out first: it is still in the processor's cache, and clients that take everything
 * at once need only a few between them.
 */
export class BufferPool {
  readonly #free = new Map<number, Buffer[]>(SIZES.map((size) => [size, []]));
  #clients = 0;

  /** A client begins to be sent a body. */
  join(): void {
    this.#clients++;
  }

  /** Its body is over. */
  leave(): void {
    this.#clients--;
  }

  /** How many bytes a client is sent at a time. */
  get step(): number {
    return STEPS.find(({ clients }) => this.#clients <= clients)?.size ?? 0;
  }

  /** No larger than a step, nor than the next size that holds so many bytes. */
  take(bytes: number): Buffer {
    const most = Math.min(bytes, this.step);
    const size = SIZES.find((each) => each >= most) ?? this.step;
    return this.#free.get(size)?.pop() ?? Buffer.allocUnsafeSlow(size);
  }

  /** Only when nothing reads from it any more. */
  give(buffer: Buffer): void {
    const free = this.#free.get(buffer.length);
    if (free !== undefined && free.length < MAX_FREE) free.push(buffer);
  }

  /** No client is being sent a body. */
  get idle(): boolean {
    return this.#clients === 0;
  }

  /** Frees the buffers that are kept for the next read. */
  clear(): void {
    for (const free of this.#free.values()) free.length = 0;
  }
}
