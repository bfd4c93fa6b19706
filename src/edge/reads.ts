import type { FilePlace, FileSource } from '../cache/shared-read.ts';

/**
 * Reads of files under way at a time. Bytes that the kernel holds come at once, and more would fill buffers that have left the
 * processor's cache again when their turn to be written comes: 8 at a time cost a fifth more CPU a byte than 2.
 */
const READS = 2;
/** A read that takes longer waits for a disk, or for an upstream where the file is damaged: others go on beside it. */
const PATIENCE_MS = 10;
/** Chunks that are kept for those who come a little later to the same place: 4 MiB at most. */
const SHELF = 16;
/** Once nobody has been sent anything for so long, no buffer is kept. */
const IDLE_MS = 1_000;

/** The next bytes of a body, until they are released. */
export interface Piece {
  /** Empty at the end of the body. */
  readonly bytes: Uint8Array;
  /** Once, when no write reads from them any more. */
  release(): void;
}

/**
 * The next bytes of bodies. Who wants bytes of a file that have just been read, or are being read, for another client gets the same
 * buffer: a layer that a whole cluster pulls at once is read once, and held once.
 */
export class Reads {
  readonly #buffers: BufferPool;
  readonly #waiting: (() => void)[] = [];
  /** Of each file, what may be shared. */
  readonly #chunks = new WeakMap<object, Set<Chunk>>();
  /** Chunks that may be shared and that nobody sends at the moment, the oldest first. */
  readonly #shelf = new Set<Chunk>();
  readonly #idle: NodeJS.Timeout;
  #running = 0;

  constructor(buffers: BufferPool) {
    this.#buffers = buffers;
    this.#idle = setTimeout(() => this.#clear(), IDLE_MS).unref();
  }

  /** A client begins to be sent a body; whoever joins leaves. */
  join(): void {
    this.#buffers.join();
  }

  leave(): void {
    this.#buffers.leave();
    if (this.#buffers.idle) this.#idle.refresh();
  }

  /** No buffer is taken before the bytes are here, where the source can tell. */
  async next(source: FileSource): Promise<Piece> {
    while (await source.ready?.()) {
      const place = source.place?.() ?? null;
      const near = place === null ? undefined : this.#near(place);
      if (near === undefined) {
        const chunk = this.#chunk(place);
        return this.#inTurn(() => this.#read(source, chunk));
      }
      const piece = await this.#sharing(near, source);
      if (piece !== null) return piece;
    }
    return this.#read(source, this.#chunk(null));
  }

  /** Others find it from now on. */
  #chunk(place: FilePlace | null): Chunk {
    const chunk = new Chunk(place, this.#buffers.step);
    if (place?.shared) this.#chunksOf(place.file).add(chunk);
    return chunk;
  }

  async #read(source: FileSource, chunk: Chunk): Promise<Piece> {
    const { place } = chunk;
    const buffer = this.#buffers.take(place === null ? Number.POSITIVE_INFINITY : place.end - place.position);
    try {
      const count = await source.pull(buffer);
      // Past a file that turned out to be damaged the bytes are another source's.
      const past = source.place?.()?.file !== place?.file;
      if (past) this.#forget(chunk);
      chunk.fill(buffer, past ? 0 : count);
      return { bytes: buffer.subarray(0, count), release: () => this.#release(chunk) };
    } catch (error) {
      this.#forget(chunk);
      chunk.fill(buffer, 0);
      this.#release(chunk);
      throw error;
    }
  }

  /** Null where the chunk does not hold what was hoped for. */
  async #sharing(chunk: Chunk, source: FileSource): Promise<Piece | null> {
    this.#take(chunk);
    await chunk.filled;
    const place = source.place?.() ?? null;
    const bytes = place === null ? null : chunk.bytesAt(place, this.#buffers.step);
    if (bytes === null) {
      this.#release(chunk);
      return null;
    }
    source.pass?.(bytes.length);
    return { bytes, release: () => this.#release(chunk) };
  }

  #take(chunk: Chunk): void {
    this.#shelf.delete(chunk);
    chunk.users++;
  }

  #release(chunk: Chunk): void {
    chunk.users--;
    if (chunk.users > 0) return;
    const { place } = chunk;
    if (place === null || !this.#chunks.get(place.file)?.has(chunk)) {
      this.#giveBack(chunk);
      return;
    }
    this.#shelf.add(chunk);
    const [oldest] = this.#shelf;
    if (this.#shelf.size <= SHELF || oldest === undefined) return;
    this.#shelf.delete(oldest);
    this.#forget(oldest);
    this.#giveBack(oldest);
  }

  #clear(): void {
    if (!this.#buffers.idle) return;
    for (const chunk of this.#shelf) this.#forget(chunk);
    this.#shelf.clear();
    this.#buffers.clear();
  }

  #giveBack({ buffer }: Chunk): void {
    if (buffer !== null) this.#buffers.give(buffer);
  }

  #near({ file, position }: FilePlace): Chunk | undefined {
    for (const chunk of this.#chunks.get(file) ?? []) if (chunk.reaches(position)) return chunk;
    return undefined;
  }

  #chunksOf(file: object): Set<Chunk> {
    const found = this.#chunks.get(file) ?? new Set<Chunk>();
    this.#chunks.set(file, found);
    return found;
  }

  /** Nobody finds it any more. */
  #forget(chunk: Chunk): void {
    if (chunk.place !== null) this.#chunks.get(chunk.place.file)?.delete(chunk);
  }

  /** Runs a read when it is its turn. */
  async #inTurn<T>(read: () => Promise<T>): Promise<T> {
    if (this.#running < READS) this.#running++;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let patience: NodeJS.Timeout | null = setTimeout(() => {
      patience = null;
      this.#next();
    }, PATIENCE_MS);
    try {
      return await read();
    } finally {
      if (patience !== null) {
        clearTimeout(patience);
        this.#next();
      }
    }
  }

  /** A read is done, or counts no longer. */
  #next(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#running--;
    else next();
  }
}

/** Bytes of a file that are being read, or were, and how many clients send them. */
class Chunk {
  readonly place: FilePlace | null;
  /** Resolves when the read is over, however it ended. */
  readonly filled: Promise<void>;
  buffer: Buffer | null = null;
  /** Whoever reads it is the first. */
  users = 1;
  #count: number;
  readonly #settle: () => void;

  /** `hoped`: bytes that the read is likely to bring. */
  constructor(place: FilePlace | null, hoped: number) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.place = place;
    this.filled = promise;
    this.#settle = resolve;
    this.#count = hoped;
  }

  fill(buffer: Buffer, count: number): void {
    this.buffer = buffer;
    this.#count = count;
    this.#settle();
  }

  reaches(position: number): boolean {
    const from = this.place?.position ?? 0;
    return position >= from && position < from + this.#count;
  }

  /** The bytes from a place on, `most` at most; null where it has none of them. */
  bytesAt({ position, end }: FilePlace, most: number): Uint8Array | null {
    if (this.buffer === null || !this.reaches(position)) return null;
    const from = position - (this.place?.position ?? 0);
    return this.buffer.subarray(from, Math.min(this.#count, from + most, from + end - position));
  }
}

/**
 * How much a client is sent at a time while there are so many: large enough that the cost of a turn (a read in another thread, a write and
 * its end) is spread thin, which matters most with one or two clients, who share no read; smaller in a crowd: what a process holds beside
 * these buffers grows with them, for each connection (measured with 500 clients; where Node keeps it was not found).
 */
const STEPS = [
  { clients: 32, size: 512 * 1024 },
  { clients: 96, size: 128 * 1024 },
  { clients: 192, size: 64 * 1024 },
  { clients: Number.POSITIVE_INFINITY, size: 32 * 1024 },
];
/** From the smallest step to the largest: beyond the smallest, a body's end takes less than twice what it needs. */
const SIZES = [32, 64, 128, 256, 512].map((kib) => kib * 1024);
/** Buffers of one size that are kept for the next; more are left to the garbage collector. */
const KEPT = 16;

/**
 * Buffers for bodies. The one that came back last goes out first: it is still in the processor's cache, and clients that take everything
 * at once share a few.
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

  /** How much a client is sent at a time. */
  get step(): number {
    return STEPS.find(({ clients }) => this.#clients <= clients)?.size ?? 0;
  }

  /** No larger than a step, nor than is needed for so many bytes. */
  take(bytes: number): Buffer {
    const most = Math.min(bytes, this.step);
    const size = SIZES.find((each) => each >= most) ?? this.step;
    return this.#free.get(size)?.pop() ?? Buffer.allocUnsafeSlow(size);
  }

  /** Only when nothing reads from it any more. */
  give(buffer: Buffer): void {
    const free = this.#free.get(buffer.length);
    if (free !== undefined && free.length < KEPT) free.push(buffer);
  }

  /** Nobody is sent anything. */
  get idle(): boolean {
    return this.#clients === 0;
  }

  /** Keeps none for the next. */
  clear(): void {
    for (const free of this.#free.values()) free.length = 0;
  }
}
