import { statfsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { setImmediate as turn } from 'node:timers/promises';
import { Mutex } from '../kit/mutex.ts';
import type { Digest } from '../oci/digest.ts';
import { CacheError } from './cache-error.ts';
import type { BlobRow, CacheIndex } from './index-port.ts';
import type { Layout } from './layout.ts';
import type { Reservation, Space } from './space.ts';

/** Eviction starts when the cache would be over its size, and goes on down to this share, so that it comes seldom. */
const LOW_SHARE = 0.9;
/** Rows looked at, dropped and unlinked between two turns of the event loop. */
const BATCH = 64;

export interface RoomOptions {
  readonly maxSize: number;
  readonly minFree: number;
  readonly layout: Layout;
  readonly index: CacheIndex;
  /** In use right now. */
  readonly pinned: (digest: Digest) => boolean;
  /** Brings the order of use up to date before the oldest are picked. */
  readonly flush: () => void;
  /** A blob left the index; `gone` resolves when its file is gone too. */
  readonly dropped: (digest: Digest, gone: Promise<void>) => void;
  readonly evicted: (count: number) => void;
  /** Removes a growing file that no fill works on. */
  readonly dropPartial: (digest: Digest) => Promise<void>;
  /** Free bytes of the disk; replaced in tests of `minFree`. */
  readonly freeBytes?: () => Promise<number>;
}

/** Keeps the cache within its size and leaves the disk its `minFree`. Least recently used go first; what is in use stays. */
export class Room implements Space {
  readonly #options: RoomOptions;
  /** One decision at a time, so that two fills never count on the same bytes. */
  readonly #mutex = new Mutex();
  /** Growing files that no fill works on, the oldest first. */
  readonly #left = new Map<Digest, number>();
  #leftBytes = 0;
  #reserved = 0;
  /** Of what is reserved, the part that is not on the disk yet. */
  #unwritten = 0;

  constructor(options: RoomOptions) {
    this.#options = options;
  }

  /** Bytes that the cache takes, or has promised to fills. */
  get used(): number {
    return this.#options.index.totals().bytes + this.#leftBytes + this.#reserved;
  }

  get partials(): { readonly count: number; readonly bytes: number } {
    return { count: this.#left.size, bytes: this.#leftBytes };
  }

  reserve(digest: Digest, bytes: number): Reservation {
    const held = this.#forget(digest);
    const reservation = { bytes: 0, unwritten: 0, released: false };
    const book = (count: number, unwritten: number): void => {
      reservation.bytes += count;
      reservation.unwritten += unwritten;
      this.#reserved += count;
      this.#unwritten += unwritten;
    };
    // Booked when its turn comes: who came first gets the room, instead of all being refused because they want it together.
    const take = (more: number, onDisk: number): Promise<void> =>
      this.#mutex.run(async () => {
        if (reservation.released) return;
        if (reservation.bytes + more > this.#options.maxSize) {
          throw new CacheError('too-large', `${digest} is larger than the whole cache`);
        }
        book(more, more - onDisk);
        await this.#makeRoom();
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

  left(digest: Digest, bytes: number): void {
    this.#forget(digest);
    this.#left.set(digest, bytes);
    this.#leftBytes += bytes;
  }

  /** Brings the cache within its limits; for the start, after the limits or the disk changed. */
  settle(): Promise<void> {
    return this.#mutex.run(() => this.#makeRoom());
  }

  /** Drops what ended fills left, the oldest first, until so many bytes are free. Returns how many are. */
  async dropLeft(bytes = Number.POSITIVE_INFINITY): Promise<number> {
    let freed = 0;
    for (const [digest, size] of this.#left) {
      if (freed >= bytes) break;
      this.#forget(digest);
      await this.#options.dropPartial(digest);
      freed += size;
    }
    return freed;
  }

  #forget(digest: Digest): number {
    const bytes = this.#left.get(digest) ?? 0;
    this.#left.delete(digest);
    this.#leftBytes -= bytes;
    return bytes;
  }

  async #makeRoom(): Promise<void> {
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

  /** Bytes by which the disk would fall below `minFree` once all that is promised is written. */
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
    let freed = await this.dropLeft(bytes);
    if (freed >= bytes) return;
    this.#options.flush();
    for (const rows of this.#options.index.leastRecent(BATCH)) {
      const victims: BlobRow[] = [];
      for (const row of rows) {
        if (freed >= bytes) break;
        if (this.#options.pinned(row.digest)) continue;
        victims.push(row);
        freed += row.size;
      }
      await this.drop(victims);
      this.#options.evicted(victims.length);
      if (freed >= bytes) return;
      await turn();
    }
  }

  /** Drops blobs that nobody uses: first the rows, in one step with the check, then the files. */
  async drop(rows: readonly BlobRow[]): Promise<void> {
    if (rows.length === 0) return;
    this.#options.index.removeBlobs(rows.map(({ digest }) => digest));
    await Promise.all(
      rows.map((row) => {
        const gone = rm(this.#options.layout.blob(row.digest), { force: true }).catch(() => {});
        this.#options.dropped(row.digest, gone);
        return gone;
      }),
    );
  }
}

/** Free bytes for this user on the file system of a path. Synchronous: the first byte of every fill waits for it, and the system knows it. */
async function freeBytes(path: string): Promise<number> {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}
