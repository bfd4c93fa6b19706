import { type Extent, IntervalSet } from '../../kit/interval-set.ts';
import type { Wish, Wishes } from '../../oci/transfer.ts';
import type { DownloadConnection } from './connection.ts';

/** Less is not worth the round trips of a request of its own. */
export const SEGMENT_MIN = 512 * 1024;
/**
 * The most that a reader which waits is fetched at a time, or taken over for it from a connection that would bring it much later; wishes that
 * follow each other are fetched with one request up to this size. Longer bodies would have to be cut off for others too often.
 */
const WISH_MAX = 8 * 1024 * 1024;
/** A body is read on past bytes that are not wanted of it up to this size: cutting it off would cost as much of what is on the way already. */
const SKIP_MAX = 1024 * 1024;

/** What a connection brings within this time is not halved for another one, however little the bytes. */
const HALVE_MS = 4_000;

/** What is wanted where nobody says otherwise: all of it, from the first byte to the last. */
const EVERYTHING: Pick<Wishes, 'next'> = {
  next: (missing) => ({ from: missing.start, to: missing.endFrom(missing.start), urgent: false }),
};

export interface RangeSchedulerOptions {
  readonly held: readonly Extent[];
  readonly connections: () => Iterable<DownloadConnection>;
  readonly wishes?: Pick<Wishes, 'next'> | undefined;
}

/**
 * Divides what a download lacks among its connections: what readers wait for first, then what else is wanted, lowest offset first unless the
 * wishes say otherwise.
 */
export class RangeScheduler {
  /** Bytes that are neither held nor assigned; without an end while the size is unknown. */
  readonly #missing: IntervalSet;
  readonly #connections: () => Iterable<DownloadConnection>;
  readonly #wishes: Pick<Wishes, 'next'>;
  /** Bytes that a connection is assigned at a time; null while one connection fetches everything. */
  segmentSize: number | null = null;
  sizeKnown = false;
  /** Whether the upstream serves ranges: it said so or sent one, or it sent the whole instead; undefined until then. */
  #ranges: boolean | undefined;

  constructor({ held, connections, wishes }: RangeSchedulerOptions) {
    this.#missing = IntervalSet.complement(held);
    this.#connections = connections;
    this.#wishes = wishes ?? EVERYTHING;
  }

  /** Whether the upstream serves ranges; undefined while nothing is known. */
  get honoured(): boolean | undefined {
    return this.#ranges;
  }

  /** Notes whether the upstream serves ranges. One that has sent the whole instead is not asked for parts again: it comes in order then. */
  noteRanges(honoured: boolean): void {
    if (this.#ranges !== false) this.#ranges = honoured;
  }

  /** Whether something is wanted that is not assigned to a connection. */
  get hasNext(): boolean {
    return this.#next(this.#missing) !== null;
  }

  /** Whether a reader waits for bytes that no connection is about to bring. */
  get someoneWaits(): boolean {
    return this.#urgent() !== null;
  }

  /** Bytes that these connections would still have to fetch if there were no others. */
  remainingFor(connections: Iterable<DownloadConnection>): number {
    let bytes = 0;
    for (const { assigned } of connections) bytes += assigned.bytes;
    if (this.#wishes === EVERYTHING) return bytes + this.#missing.bytes;
    const next = this.#next(this.#missing);
    return bytes + (next === null ? 0 : next.to - next.from);
  }

  /** The blob's size has become known. */
  setSize(size: number): void {
    this.sizeKnown = true;
    this.#missing.remove(size);
    for (const { assigned } of this.#connections()) assigned.remove(size);
  }

  /**
   * Assigns to an idle connection what a reader waits for, else what is wanted next; else, unless it was opened for such readers alone, all
   * that a stalled connection has left, else half of what the busiest one has left. False where there is nothing for it.
   */
  assignNext(connection: DownloadConnection): boolean {
    if (this.#assignWish(connection)) {
      // Segments of a divided download stay apart, so that its connections share the work.
      while (this.segmentSize === null && this.#assignWish(connection));
      return true;
    }
    if (connection.role === 'wish') return false;
    for (const other of this.#connections()) {
      if (other === connection || !other.isStalled) continue;
      assign(connection, other.assigned.clear());
      other.cancel();
      return true;
    }
    // What is fetched for one reader is not taken apart for speed.
    if (this.#wishes !== EVERYTHING && this.segmentSize === null) return false;
    let busiest: DownloadConnection | undefined;
    for (const other of this.#connections()) {
      const least = busiest?.assigned.bytes ?? this.#leastToHalve(other);
      if (other !== connection && other.assigned.bytes > least) busiest = other;
    }
    if (busiest === undefined || !Number.isFinite(busiest.assigned.end)) return false;
    const middle = busiest.assigned.end - Math.floor(busiest.assigned.bytes / 2);
    assign(connection, busiest.assigned.remove(middle));
    return !connection.assigned.empty;
  }

  /**
   * Assigns what follows at `offset`, where the connection's body goes on: what is wanted there and nobody fetches, or what another has no
   * response for yet; nothing where a reader waits for other bytes.
   */
  extend(connection: DownloadConnection, offset: number): void {
    if (this.#missing.endFrom(offset) === offset) {
      assign(connection, this.#takeUnanswered(offset));
      return;
    }
    const urgent = this.#urgent();
    if (urgent === null ? connection.role === 'wish' : urgent.from !== offset) return;
    const behind = new IntervalSet(this.#missing.list());
    behind.remove(0, offset);
    const wish = this.#next(behind);
    if (wish?.from === offset) this.#claim(connection, wish);
  }

  /** Assigns everything that nobody fetches to a connection whose body brings the whole blob anyway. */
  assignAll(connection: DownloadConnection): void {
    assign(connection, this.#missing.clear());
  }

  /** Takes what nobody fetches of the bytes that come by on a body: they cost nothing, whether they are wanted now or not. */
  takePassing(from: number, to: number): Extent[] {
    return this.#missing.remove(from, to);
  }

  /** From now on a segment at a time is assigned: what the connection has beyond one becomes free for others. */
  divide(connection: DownloadConnection, segmentSize: number): void {
    this.segmentSize ??= segmentSize;
    this.#free(connection.assigned.remove(connection.assigned.start + this.segmentSize));
  }

  /** From now on whoever is assigned something gets all that follows. */
  undivide(): void {
    this.segmentSize = null;
  }

  /** Frees for others what the connection has not fetched. */
  release(connection: DownloadConnection): void {
    this.#free(connection.assigned.clear());
  }

  /** Ends a body that has long to go, so that its connection fetches what a reader waits for, and goes on with the rest afterwards. */
  interrupt(): void {
    for (const connection of this.#connections()) {
      if (!connection.responded || connection.assigned.bytes <= WISH_MAX) continue;
      this.release(connection);
      connection.cancel();
      return;
    }
  }

  /** Whether the connection's body brings so much that it is not to fetch, before the next bytes that it is, that another request is better. */
  shouldSkip({ assigned, offset }: DownloadConnection): boolean {
    return this.#ranges === true && !assigned.empty && assigned.start - offset > SKIP_MAX;
  }

  /** Assigns what a reader waits for, else what is wanted next; to a connection that is assigned bytes already only what follows and fits one request. */
  #assignWish(connection: DownloadConnection): boolean {
    const wish = this.#urgent() ?? (connection.role === 'wish' ? null : this.#next(this.#missing));
    if (wish === null) return false;
    const { empty, end, bytes } = connection.assigned;
    if (!empty && (wish.from !== end || bytes + wish.to - wish.from > WISH_MAX)) return false;
    return this.#claim(connection, wish);
  }

  /** @param among the bytes that may be asked for */
  #next(among: IntervalSet): Wish | null {
    if (among.empty) return null;
    const wish = this.#wishes.next(among);
    if (wish === null) return null;
    if (this.#ranges === false) return EVERYTHING.next(among);
    const to = Math.min(wish.to, among.endFrom(wish.from));
    return to > wish.from ? { ...wish, to } : null;
  }

  /** What a reader waits for, and neither is nor will soon be on its way. */
  #urgent(): Wish | null {
    if (this.#wishes === EVERYTHING || this.#ranges === false) return null;
    const late = new IntervalSet(this.#missing.list());
    for (const { assigned, reach } of this.#connections()) {
      for (const { from, to } of assigned.list()) late.add(Math.max(from, reach), to);
    }
    const wish = this.#next(late);
    return wish?.urgent === true ? wish : null;
  }

  /** Takes the bytes of a wish, at most as many as are assigned at a time, from what is missing, or from who would bring them much later. */
  #claim(connection: DownloadConnection, { from, to }: Extent): boolean {
    const free = this.#missing.endFrom(from);
    const limit = connection.role === 'wish' || free === from ? Math.min(WISH_MAX, this.#nextSize()) : this.#nextSize();
    const end = Math.min(to, free === from ? to : free, from + Math.ceil(limit));
    assign(connection, this.#missing.remove(from, end));
    for (const other of this.#connections()) {
      if (other === connection) continue;
      const taken = other.assigned.remove(from, end);
      assign(connection, taken);
      // It would wait for bytes that nobody wants of it any more, and the download for its end.
      if (taken.length > 0 && other.assigned.empty) other.cancel();
    }
    return !connection.assigned.empty;
  }

  /** What a connection has left must be more than this for another one to take half of it: else the round trips take longer. */
  #leastToHalve({ throughput }: DownloadConnection): number {
    const rate = throughput.rate() ?? Number.POSITIVE_INFINITY;
    return Math.max((this.segmentSize ?? 0) / 8, Math.min(2 * SEGMENT_MIN, (rate * HALVE_MS) / 1000));
  }

  #free(extents: readonly Extent[]): void {
    for (const { from, to } of extents) this.#missing.add(from, to);
  }

  /**
   * How much is assigned at a time: everything to a single connection; else a segment, and towards the end down to half of one, so that all
   * connections finish together. Still less would cost more in round trips (a redirect and a range each) than halving what the busiest
   * connection has left.
   */
  #nextSize(): number {
    if (this.segmentSize === null) return Number.POSITIVE_INFINITY;
    const share = this.#missing.bytes / (2 * [...this.#connections()].length);
    return Math.max(this.segmentSize / 2, Math.min(this.segmentSize, share));
  }

  /** Takes from another connection what begins at `offset`, where its response has not begun. */
  #takeUnanswered(offset: number): Extent[] {
    for (const { responded, assigned } of this.#connections()) {
      if (!responded && !assigned.empty && assigned.start === offset) return assigned.clear();
    }
    return [];
  }
}

function assign({ assigned }: DownloadConnection, extents: readonly Extent[]): void {
  for (const { from, to } of extents) assigned.add(from, to);
}
