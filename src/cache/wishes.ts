import { type Extent, IntervalSet } from '../kit/interval-set.ts';
import type { Wish, Wishes } from '../oci/transfer.ts';

const MIB = 1024 * 1024;
/** What is fetched for one reader at a time: long enough to be worth a request, short enough that others have their turn soon. */
const SEGMENT = 2 * MIB;
/** … where nobody else waits for a turn. */
const LONE_SEGMENT = 8 * MIB;
/**
 * How far ahead of a reader without an end (`bytes=N-`) is fetched: as much as it has taken, within these bounds. Clients that fetch in pieces ask
 * so, and close after a piece.
 */
const LEAST_AHEAD = MIB;
const MOST_AHEAD = 8 * MIB;
/**
 * Wishes with no more bytes than this between them are fetched as one. A request of its own costs about as many, on the wire alone: a token and a
 * signed address of some KiB each, both ways, once at the registry and once where it redirects to; and a round trip or two besides.
 */
const NEAR = 8 * 1024;
/** Near wishes before the bytes that are first in turn come with them, from so far before them: whoever waits for those waits that much longer. */
const MOST_BEFORE = 256 * 1024;
/** A blob in so many pieces is not worth the keeping of accounts: it is fetched whole. */
const MOST_PIECES = 4_096;
/** Once so much of a blob was asked for, the rest is fetched too. */
const WHOLE_SHARE = 0.5;

/** What one reader asks for. */
export interface Asked {
  readonly from: number;
  /** Undefined reads to the end. */
  readonly to: number | undefined;
  /** The client named no end: it may be gone after a few bytes. */
  readonly openEnded: boolean;
}

/** One reader's wish, as long as it reads. */
export interface Want {
  /** The reader has come to this offset. */
  moved(offset: number): void;
  /** It waits for the byte there. */
  waits(offset: number): void;
  /** It has left, or has all that it asked for. */
  close(): void;
}

/**
 * What the readers of one growing blob want: parts by turn, each in segments, whoever has least ahead of it first, and what others want near by
 * with it; then, where all of it is to be fetched, the lowest bytes that are missing.
 */
export class ReadWishes implements Wishes {
  readonly #parts = new Set<PartWant>();
  readonly #all = new Set<WholeWant>();
  readonly #listeners = new Set<() => void>();
  /** Bytes that were asked for, by readers of today and of earlier. */
  readonly #asked = new IntervalSet();
  readonly #goWhole: (required: boolean) => boolean;
  #whole = false;
  #size: number | undefined;
  /** The first reader's part, until it has come. */
  #first: PartWant | null = null;

  /**
   * @param part what the first reader will ask for; undefined where that is everything
   * @param goWhole asked once parts are not all that is wanted: false where it has to be parts. `required`: a reader needs all of it
   */
  constructor(part: Asked | undefined, goWhole: (required: boolean) => boolean) {
    this.#goWhole = goWhole;
    if (part === undefined) this.#whole = true;
    else {
      this.#first = new PartWant(part, this.#part);
      this.#add(this.#first);
    }
  }

  /** All of the blob is to be fetched. */
  get whole(): boolean {
    return this.#whole;
  }

  /** What earlier readers asked for. */
  held(extents: readonly Extent[]): void {
    for (const { from, to } of extents) this.#asked.add(from, to);
    this.#weigh();
  }

  /** The size has become known. */
  setSize(size: number): void {
    this.#size = size;
    this.#asked.remove(size);
    this.#weigh();
  }

  /** @param required a reader needs all of it, or nobody knows its end */
  wantAll(required = true): void {
    if (this.#whole || !this.#goWhole(required)) return;
    this.#whole = true;
    this.#changed();
  }

  add(asked: Asked): Want {
    const { from, to, openEnded } = asked;
    if (from === 0 && to === undefined && !openEnded) {
      const want = new WholeWant(this.#all);
      this.#all.add(want);
      this.wantAll();
      return want;
    }
    const want = new PartWant(asked, this.#part);
    this.#add(want);
    this.#dropFirst();
    return want;
  }

  next(missing: IntervalSet): Wish | null {
    if (missing.empty) return null;
    const part = this.#nextPart(missing);
    if (!this.#whole) return part?.wish ?? null;
    const { start } = missing;
    let urgent = false;
    for (const { waitingAt } of this.#all) urgent ||= waitingAt === start;
    if (part === null) return { from: start, to: missing.endFrom(start), urgent };
    // The readers of the whole have their turn too.
    if (!urgent || (part.wish.urgent && part.taken <= start)) return part.wish;
    return { from: start, to: Math.min(missing.endFrom(start), start + SEGMENT), urgent };
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves to true at the next change, or when the signal is aborted; to false when there was none for so long, ms. */
  changed(within: number, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const end = (changed: boolean): void => {
        clearTimeout(timer);
        this.#listeners.delete(change);
        signal.removeEventListener('abort', change);
        resolve(changed);
      };
      const change = (): void => end(true);
      const timer = setTimeout(() => end(false), within);
      this.#listeners.add(change);
      signal.addEventListener('abort', change, { once: true });
      if (signal.aborted) change();
    });
  }

  #nextPart(missing: IntervalSet): { readonly wish: Wish; readonly taken: number } | null {
    const segment = this.#parts.size + this.#all.size > 1 ? SEGMENT : LONE_SEGMENT;
    const pieces: Piece[] = [];
    let best: Piece | null = null;
    for (const want of this.#parts) {
      const bytes = missing.nextFrom(want.position);
      if (bytes === null || bytes.from >= want.end) continue;
      const { from } = bytes;
      const to = Math.min(bytes.to, want.end, from + segment);
      const { position, waitingAt, taken } = want;
      const piece = { from, to, ahead: from - position, urgent: waitingAt === from, taken };
      pieces.push(piece);
      if (best === null || isBefore(piece, best)) best = piece;
    }
    if (best === null) return null;
    return { wish: { ...joinNear(best, pieces, missing, segment), urgent: best.urgent }, taken: best.taken };
  }

  #add(want: PartWant): void {
    this.#parts.add(want);
    if (want.definite !== null) this.#note(want.definite);
    this.#changed();
  }

  // Before the constructor's body, which uses it.
  readonly #part: PartOwner = {
    changed: () => this.#changed(),
    read: (extent) => this.#note(extent),
    closed: (want) => void this.#parts.delete(want),
  };

  /** Such bytes were asked for. */
  #note({ from, to }: Extent): void {
    this.#asked.add(from, Math.min(to, this.#size ?? to));
    this.#weigh();
  }

  #weigh(): void {
    if (this.#whole) return;
    const enough = this.#size !== undefined && this.#asked.bytes >= this.#size * WHOLE_SHARE;
    if (enough || this.#asked.count > MOST_PIECES) this.wantAll(false);
  }

  /** A reader has come, and says itself what it wants. */
  #dropFirst(): void {
    this.#first?.close();
    this.#first = null;
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

/** What one reader lacks next. */
interface Piece extends Extent {
  /** Bytes that are there before it, from where its reader is. */
  readonly ahead: number;
  /** The reader waits for it. */
  readonly urgent: boolean;
  /** What the reader has taken so far. */
  readonly taken: number;
}

/** Who has least ahead comes first; among those, who waits already, and then who has taken least. */
function isBefore(one: Piece, other: Piece): boolean {
  if (one.ahead !== other.ahead) return one.ahead < other.ahead;
  if (one.urgent !== other.urgent) return one.urgent;
  return one.taken < other.taken;
}

/** A piece together with those near it, as far as they are in the same missing bytes: a segment at most, and a little before it. */
function joinNear(piece: Piece, pieces: Piece[], missing: IntervalSet, segment: number): Extent {
  let { from, to } = piece;
  if (pieces.length === 1) return { from, to };
  pieces.sort((a, b) => a.from - b.from);
  const at = pieces.indexOf(piece);
  const end = Math.min(missing.endFrom(from), from + segment);
  for (const next of pieces.slice(at + 1)) {
    if (next.from > to + NEAR || next.from >= end) break;
    to = Math.max(to, Math.min(next.to, end));
  }
  for (const before of pieces.slice(0, at).reverse()) {
    const tooFar = before.to < from - NEAR || before.from < piece.from - MOST_BEFORE;
    if (tooFar || missing.endFrom(before.from) < from) break;
    from = before.from;
    to = Math.max(to, Math.min(before.to, end));
  }
  return { from, to };
}

interface PartOwner {
  changed(): void;
  read(extent: Extent): void;
  closed(want: PartWant): void;
}

class PartWant implements Want {
  /** All of it counts as asked for at once; null where the end is open. */
  readonly definite: Extent | null;
  readonly #asked: Asked;
  readonly #owner: PartOwner;
  position: number;
  waitingAt: number | null = null;
  /** Up to where an open-ended reader's bytes were counted as asked for. */
  #counted: number;

  constructor(asked: Asked, owner: PartOwner) {
    const { from, to, openEnded } = asked;
    this.#asked = asked;
    this.#owner = owner;
    this.position = from;
    this.#counted = from;
    this.definite = openEnded || to === undefined ? null : { from, to };
  }

  get taken(): number {
    return this.position - this.#asked.from;
  }

  /** Up to where bytes are wanted now. */
  get end(): number {
    const { to = Number.POSITIVE_INFINITY } = this.#asked;
    if (this.definite !== null) return to;
    return Math.min(to, this.position + Math.min(MOST_AHEAD, Math.max(LEAST_AHEAD, this.taken)));
  }

  moved(offset: number): void {
    this.position = offset;
    this.waitingAt = null;
    if (this.definite !== null) return;
    // Its window has moved on by a good part.
    if (offset - this.#counted < LEAST_AHEAD / 2) return;
    this.#count();
    this.#owner.changed();
  }

  waits(offset: number): void {
    if (offset !== this.position) this.moved(offset);
    if (this.waitingAt === offset) return;
    this.waitingAt = offset;
    this.#owner.changed();
  }

  close(): void {
    if (this.definite === null) this.#count();
    this.#owner.closed(this);
  }

  #count(): void {
    if (this.position <= this.#counted) return;
    this.#owner.read({ from: this.#counted, to: this.position });
    this.#counted = this.position;
  }
}

/** A reader of the whole blob: what is missing comes in order anyway, but it has its turn beside those who want parts. */
class WholeWant implements Want {
  readonly #among: Set<WholeWant>;
  waitingAt: number | null = null;

  constructor(among: Set<WholeWant>) {
    this.#among = among;
  }

  moved(): void {
    this.waitingAt = null;
  }

  waits(offset: number): void {
    this.waitingAt = offset;
  }

  close(): void {
    this.#among.delete(this);
  }
}
