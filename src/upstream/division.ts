import type { Extent } from '../kit/interval-set.ts';
import { Claim } from './claim.ts';
import { Gaps } from './gaps.ts';
import type { Lane } from './lane.ts';
import { PIECE_MIN } from './pieces.ts';

/** Divides what a download lacks among its lanes: in order of offset, so that readers at the front are served first. */
export class Division {
  readonly #gaps: Gaps;
  readonly #lanes: () => Iterable<Lane>;
  /** Most lanes at once. */
  mostLanes: number;
  /** Bytes that a lane takes at a time; null while one lane takes everything. */
  piece: number | null = null;

  constructor(held: readonly Extent[], lanes: () => Iterable<Lane>, mostLanes: number) {
    this.#gaps = new Gaps(held);
    this.#lanes = lanes;
    this.mostLanes = mostLanes;
  }

  /** Whether every missing byte is being fetched by somebody. */
  get taken(): boolean {
    return this.#gaps.empty;
  }

  /** Bytes still to come as far as this lane sees: its own, and what nobody fetches. */
  remainingFor(lane: Lane): number {
    return this.#gaps.bytes + lane.claim.bytes;
  }

  /** Back to one lane that takes everything. */
  undivided(): void {
    this.mostLanes = 1;
    this.piece = null;
  }

  /** The size became known. */
  trim(size: number): void {
    this.#gaps.trim(size);
    for (const lane of this.#lanes()) lane.claim.cut(size);
  }

  /** The lowest bytes that nobody fetches, else all that a stuck lane has left, else half of what the busiest one has still to do. */
  claimNext(lane: Lane): boolean {
    const first = this.#gaps.takeFirst(this.#share());
    if (first !== null) {
      lane.claim = new Claim([first]);
      return true;
    }
    for (const other of this.#lanes()) {
      if (other === lane || !other.stuck) continue;
      lane.claim = new Claim(other.claim.giveUp());
      other.leave();
      return true;
    }
    // Half of less than that is not worth the round trips.
    const least = Math.max(2 * PIECE_MIN, (this.piece ?? 0) / 8);
    let busiest: Lane | undefined;
    for (const other of this.#lanes()) {
      if (other !== lane && other.claim.bytes > (busiest?.claim.bytes ?? least)) busiest = other;
    }
    if (busiest === undefined || !Number.isFinite(busiest.claim.to)) return false;
    const middle = busiest.claim.to - Math.floor(busiest.claim.bytes / 2);
    lane.claim = new Claim(busiest.claim.cut(middle));
    return !lane.claim.done;
  }

  /** The lane's stream goes on behind its claim: it may have what nobody has an answer for yet. */
  extend(lane: Lane, end: number): void {
    const more = this.#gaps.takeAt(end, this.#share());
    lane.claim.add(more === null ? this.#takeUnopened(end) : [more]);
  }

  /** The lane's stream brings everything anyway: it takes whatever nobody fetches. */
  takeAll(lane: Lane): void {
    lane.claim.add(this.#gaps.takeAll());
  }

  /** From now on the lane takes a piece at a time; the rest is for others. */
  shorten(lane: Lane, piece: number): void {
    this.piece ??= piece;
    for (const run of lane.claim.cut(lane.claim.from + this.piece)) this.#gaps.give(run);
  }

  /** The lane leaves what it has not fetched to others. */
  giveUp(lane: Lane): void {
    for (const run of lane.claim.giveUp()) this.#gaps.give(run);
  }

  /**
   * How much a lane takes at a time: all of it alone; else a piece, towards the end half of one, so that all lanes end together. Less
   * would cost more in round trips (a redirect and a range each) than halving what the busiest lane has left.
   */
  #share(): number {
    if (this.piece === null) return Number.POSITIVE_INFINITY;
    return Math.max(this.piece / 2, Math.min(this.piece, this.#gaps.bytes / (2 * this.mostLanes)));
  }

  /** What another lane has claimed from this offset on, but has had no answer for. */
  #takeUnopened(from: number): Extent[] {
    for (const lane of this.#lanes()) {
      if (!lane.opened && !lane.claim.done && lane.claim.from === from) return lane.claim.giveUp();
    }
    return [];
  }
}
