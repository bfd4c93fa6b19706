import { type Extent, IntervalSet } from '../../kit/interval-set.ts';
import { type DownloadConnection, SEGMENT_MIN } from './connection.ts';

/** Divides what a download lacks among its connections, lowest offset first, so that readers at the front are served first. */
export class RangeScheduler {
  /** Bytes that are neither held nor assigned; without an end while the size is unknown. */
  readonly #missing: IntervalSet;
  readonly #connections: () => Iterable<DownloadConnection>;
  /** How many connections the download may have. */
  maxConnections: number;
  /** Bytes that a connection is assigned at a time; null while one connection fetches everything. */
  segmentSize: number | null = null;

  constructor(held: readonly Extent[], connections: () => Iterable<DownloadConnection>, maxConnections: number) {
    this.#missing = IntervalSet.complement(held);
    this.#connections = connections;
    this.maxConnections = maxConnections;
  }

  /** Whether every missing byte is assigned to a connection. */
  get allAssigned(): boolean {
    return this.#missing.empty;
  }

  /** Bytes that this connection would still have to fetch if there were no other. */
  remainingFor(connection: DownloadConnection): number {
    return this.#missing.bytes + connection.assigned.bytes;
  }

  /** From now on one connection fetches everything. */
  useOneConnection(): void {
    this.maxConnections = 1;
    this.segmentSize = null;
  }

  /** The blob's size has become known. */
  setSize(size: number): void {
    this.#missing.remove(size);
    for (const { assigned } of this.#connections()) assigned.remove(size);
  }

  /**
   * Assigns to an idle connection the lowest bytes that nobody fetches, else all that a stalled connection has left, else half of what the
   * busiest one has left; false where there is nothing for it.
   */
  assignNext(connection: DownloadConnection): boolean {
    const next = this.#missing.takeNext(this.#nextSize());
    if (next !== null) {
      assign(connection, [next]);
      return true;
    }
    for (const other of this.#connections()) {
      if (other === connection || !other.isStalled) continue;
      assign(connection, other.assigned.clear());
      other.cancel();
      return true;
    }
    // Half of less than this is not worth the round trips.
    const least = Math.max(2 * SEGMENT_MIN, (this.segmentSize ?? 0) / 8);
    let busiest: DownloadConnection | undefined;
    for (const other of this.#connections()) {
      if (other !== connection && other.assigned.bytes > (busiest?.assigned.bytes ?? least)) busiest = other;
    }
    if (busiest === undefined || !Number.isFinite(busiest.assigned.end)) return false;
    const middle = busiest.assigned.end - Math.floor(busiest.assigned.bytes / 2);
    assign(connection, busiest.assigned.remove(middle));
    return !connection.assigned.empty;
  }

  /** Assigns what follows at `offset`, where the connection's body goes on: what nobody fetches, or what another has no response for yet. */
  extend(connection: DownloadConnection, offset: number): void {
    const next = this.#missing.takeAt(offset, this.#nextSize());
    assign(connection, next === null ? this.#takeUnanswered(offset) : [next]);
  }

  /** Assigns everything that nobody fetches to a connection whose body brings the whole blob anyway. */
  assignAll(connection: DownloadConnection): void {
    assign(connection, this.#missing.clear());
  }

  /** From now on a segment at a time is assigned: what the connection has beyond one becomes free for others. */
  divide(connection: DownloadConnection, segmentSize: number): void {
    this.segmentSize ??= segmentSize;
    this.#free(connection.assigned.remove(connection.assigned.start + this.segmentSize));
  }

  /** Frees for others what the connection has not fetched. */
  release(connection: DownloadConnection): void {
    this.#free(connection.assigned.clear());
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
    const share = this.#missing.bytes / (2 * this.maxConnections);
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
