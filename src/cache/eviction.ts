import { statfsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { setImmediate as turn } from 'node:timers/promises';
import { Mutex } from '../kit/async.ts';
import type { Digest } from '../oci/names.ts';
import { CacheError } from './blob-cache.ts';
import type { Layout } from './files.ts';
import type { BlobRow, CacheIndex } from './index-port.ts';

/** Disk space that a fill has reserved before it writes. */
export interface Reservation {
  readonly bytes: number;
  /** Resolves when the space is there; rejects with a `CacheError` (`too-large`, `no-room`, `min-free`) where it will not be. */
  readonly ready: Promise<void>;
  /** Reserves more, for a blob whose size is not known. @throws {CacheError} */
  grow(bytes: number): Promise<void>;
  /** So many of the reserved bytes are on the disk now, and no longer free there. */
  wrote(bytes: number): void;
  /** Ends the reservation: the blob is in the index now, or gone. */
  release(): void;
}

/** What a fill needs of the eviction. */
export interface SpaceReserver {
  reserve(digest: Digest, bytes: number): Reservation;
  /** An ended fill left so many bytes in its partial file, to be resumed later; they are the first to be dropped when space is needed. */
  addPartial(digest: Digest, bytes: number): void;
}

/** Eviction starts when the cache would be over its size, and goes on down to this share of it, so that it comes seldom. */
const LOW_SHARE = 0.9;
/** Rows looked at, dropped and unlinked between two turns of the event loop. */
const BATCH = 64;

export interface EvictionOptions {
  readonly maxSize: number;
  readonly minFree: number;
  readonly layout: Layout;
  readonly index: CacheIndex;
  /** The blob is in use now. */
  readonly inUse: (digest: Digest) => boolean;
  /** Writes times of use to the index before the least recently used are picked. */
  readonly flush: () => void;
  /** A blob left the index; `removed` resolves when its file is gone too. */
  readonly dropped: (digest: Digest, removed: Promise<void>) => void;
  readonly evicted: (count: number) => void;
  /** Removes the partial file of an ended fill. */
  readonly dropPartial: (digest: Digest) => Promise<void>;
  /** Free bytes of the disk; replaced in tests of `minFree`. */
  readonly freeBytes?: () => Promise<number>;
}

/** Keeps the cache within its size and leaves the disk its `minFree`. Least recently used blobs go first; what is in use stays. */
export class Eviction implements SpaceReserver {
  readonly #options: EvictionOptions;
  /** One decision at a time, so that two fills never count on the same bytes. */
  readonly #mutex = new Mutex();
  /** Partial files of ended fills and their bytes, the oldest first. */
  readonly #partials = new Map<Digest, number>();
  #partialBytes = 0;
  #reserved = 0;
  /** Of what is reserved, the bytes that are not on the disk yet. */
  #unwritten = 0;

  constructor(options: EvictionOptions) {
    this.#options = options;
  }

  /** Bytes that the cache takes, or has promised to fills. */
  get used(): number {
    return this.#options.index.totals().bytes + this.#partialBytes + this.#reserved;
  }

  get partials(): { readonly count: number; readonly bytes: number } {
    return { count: this.#partials.size, bytes: this.#partialBytes };
  }

  reserve(digest: Digest, bytes: number): Reservation {
    const held = this.#forgetPartial(digest);
    const reservation = { bytes: 0, unwritten: 0, released: false };
    const book = (count: number, unwritten: number): void => {
      reservation.bytes += count;
      reservation.unwritten += unwritten;
      this.#reserved += count;
      this.#unwritten += unwritten;
    };
    // Booked only when its turn comes: the first to ask gets the space, instead of all being refused because they ask at the same time.
    const take = (more: number, onDisk: number): Promise<void> =>
      this.#mutex.run(async () => {
        if (reservation.released) return;
        if (reservation.bytes + more > this.#options.maxSize) {
          throw new CacheError('too-large', `${digest} is larger than the whole cache`);
        }
        book(more, more - onDisk);
        await this.#makeSpace();
      });
    return {
      get bytes() {
        return reservation.bytes;
      },
      ready: take(bytes, Math.min(held, bytes)),
      grow: (more) => take(more, 0),
      wrote: (count) => book(0, -Math.min(count, reservation.unwritten)),
      release: () => {
        reservation.released = true;
        book(-reservation.bytes, -reservation.unwritten);
      },
    };
  }

  addPartial(digest: Digest, bytes: number): void {
    this.#forgetPartial(digest);
    this.#partials.set(digest, bytes);
    this.#partialBytes += bytes;
  }

  /** Brings the cache within its limits; at the start, and after the limits or the disk changed. */
  enforce(): Promise<void> {
    return this.#mutex.run(() => this.#makeSpace());
  }

  /** Drops partial files of ended fills, the oldest first, until so many bytes are free. Returns how many are. */
  async dropPartials(bytes = Number.POSITIVE_INFINITY): Promise<number> {
    let freed = 0;
    for (const [digest, size] of this.#partials) {
      if (freed >= bytes) break;
      this.#forgetPartial(digest);
      await this.#options.dropPartial(digest);
      freed += size;
    }
    return freed;
  }

  /** Drops blobs that nobody uses: first the rows, in the same turn as the caller's check for that, then the files. */
  async dropBlobs(rows: readonly BlobRow[]): Promise<void> {
    if (rows.length === 0) return;
    this.#options.index.removeBlobs(rows.map(({ digest }) => digest));
    await Promise.all(
      rows.map((row) => {
        const removed = rm(this.#options.layout.blob(row.digest), { force: true }).catch(() => {});
        this.#options.dropped(row.digest, removed);
        return removed;
      }),
    );
  }

  #forgetPartial(digest: Digest): number {
    const bytes = this.#partials.get(digest) ?? 0;
    this.#partials.delete(digest);
    this.#partialBytes -= bytes;
    return bytes;
  }

  async #makeSpace(): Promise<void> {
    const { maxSize } = this.#options;
    if (this.used > maxSize) await this.#evict(this.used - LOW_SHARE * maxSize);
    if (this.used > maxSize) throw new CacheError('no-room', 'everything in the cache is in use');
    const short = await this.#shortOfFree();
    if (short <= 0) return;
    await this.#evict(short);
    if ((await this.#shortOfFree()) > 0) {
      throw new CacheError(
        'min-free',
        `the disk has less than cache.minFree (${this.#options.minFree} bytes) to spare`,
      );
    }
  }

  /** Bytes by which the disk would fall below `minFree` once all that is reserved is written. */
  async #shortOfFree(): Promise<number> {
    let free: number;
    try {
      free = await (this.#options.freeBytes ?? (() => freeBytes(this.#options.layout.partials)))();
    } catch {
      // A disk that cannot even say that will fail the write, which is dealt with there.
      return 0;
    }
    return this.#options.minFree + this.#unwritten - free;
  }

  async #evict(bytes: number): Promise<void> {
    let freed = await this.dropPartials(bytes);
    if (freed >= bytes) return;
    this.#options.flush();
    for (const rows of this.#options.index.leastRecent(BATCH)) {
      const victims: BlobRow[] = [];
      for (const row of rows) {
        if (freed >= bytes) break;
        if (this.#options.inUse(row.digest)) continue;
        victims.push(row);
        freed += row.size;
      }
      await this.dropBlobs(victims);
      this.#options.evicted(victims.length);
      if (freed >= bytes) return;
      await turn();
    }
  }
}

/** Free bytes for this user on the file system of a path. Synchronous: the first byte of every fill waits for it, and it takes microseconds. */
async function freeBytes(path: string): Promise<number> {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}
