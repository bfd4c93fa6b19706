/** Payload of a segment on an Ethernet link, bytes. */
const SEGMENT = 1460;
/** Segments that a new connection may send at once (RFC 6928). */
const INITIAL_WINDOW = 10;
/** What the window is multiplied by on a loss, and how fast CUBIC grows (RFC 9438 §4.6, §5). */
const BETA = 0.7;
const CUBIC = 0.4;
/** Additive increase a round trip in CUBIC's Reno-friendly region (RFC 9438 §4.3). */
const ALPHA = (3 * (1 - BETA)) / (1 + BETA);
/** Segments behind a lost one that must arrive before it is taken for lost at once (RFC 5681 §3.2); else a probe is sent after two round trips (RFC 8985 §7). */
const DUPLICATES = 3;
/** The least wait for an acknowledgement beyond the round trip, ms (Linux; RFC 6298 §2.4 would have a second in all). */
const RTO_MIN_MS = 200;
/** The wait after a lost SYN (RFC 6298 §2.1), ms; doubles. */
const SYN_RTO_MS = 1_000;

export interface Path {
  /** ms */
  readonly roundTrip: number;
  /** The share of segments that is lost, each by itself. */
  readonly loss: number;
}

interface Segment {
  readonly bytes: number;
  arrived: boolean;
}

/** What one round of a sender did. */
export interface Round {
  /** Bytes that arrived, in order and without a gap, half a round trip after it began. */
  readonly arrived: number;
  /** When the next round may begin, ms from the beginning of this one. */
  readonly next: number;
}

/**
 * The sender of one TCP connection (CUBIC with selective acknowledgements) over a path that is wide, long and lossy, a round trip at a time: what limits
 * it is its congestion window alone. In the long run that comes to about 1.2 segments a round trip by the root of the loss (Mathis et al. 1997).
 */
export class LossyTcp {
  readonly #path: Path;
  readonly #random: () => number;
  #window = INITIAL_WINDOW;
  #threshold = Number.POSITIVE_INFINITY;
  /** The window before the last loss, and ms since it. */
  #before = 0;
  #since = 0;
  /** Segments that were sent: for each whether it has arrived, from the first on that has not. The last may be shorter. */
  #sent: Segment[] = [];

  /** @param random from 0 to 1 */
  constructor(path: Path, random: () => number) {
    this.#path = path;
    this.#random = random;
  }

  /** Segments that it may have on the way. */
  get window(): number {
    return this.#window;
  }

  /** Whether it has sent something that has not arrived. */
  get unfinished(): boolean {
    return this.#sent.length > 0;
  }

  /** How long the handshake takes before the first request can be sent, ms. */
  handshake(): number {
    let ms = this.#path.roundTrip;
    // Either of its two segments.
    for (let wait = SYN_RTO_MS; this.#lost() || this.#lost(); wait *= 2) ms += wait;
    return ms;
  }

  /** How long a segment of the other direction takes that nothing follows, ms. */
  request(): number {
    let ms = this.#path.roundTrip / 2;
    for (let wait = 2 * this.#path.roundTrip; this.#lost(); wait *= 2) ms += wait;
    return ms;
  }

  /** Sends what the window allows: what was lost first, then some of the `waiting` bytes, of which it calls `take` for each segment. */
  round(waiting: number, take: (bytes: number) => void): Round {
    const room = Math.max(1, Math.floor(this.#window));
    const again = this.#sent.filter(({ arrived }) => !arrived).slice(0, room);
    const fresh: Segment[] = [];
    for (let left = waiting; left > 0 && again.length + fresh.length < room; ) {
      const bytes = Math.min(SEGMENT, left);
      left -= bytes;
      take(bytes);
      fresh.push({ bytes, arrived: false });
    }
    this.#sent.push(...fresh);
    const round = [...again, ...fresh];
    for (const segment of round) segment.arrived = !this.#lost();
    const arrived = this.#deliver();
    return { arrived, next: this.#adapt(round.map((segment) => segment.arrived)) };
  }

  #deliver(): number {
    const gap = this.#sent.findIndex(({ arrived }) => !arrived);
    const whole = this.#sent.splice(0, gap === -1 ? this.#sent.length : gap);
    return whole.reduce((bytes, segment) => bytes + segment.bytes, 0);
  }

  /** @returns ms until the next round */
  #adapt(arrived: readonly boolean[]): number {
    const { roundTrip } = this.#path;
    const firstLost = arrived.indexOf(false);
    if (firstLost === -1) {
      this.#since += roundTrip;
      // A sender that had little to send learns nothing of its window.
      if (arrived.length >= Math.floor(this.#window)) this.#grow();
      return roundTrip;
    }
    this.#before = this.#window;
    this.#since = 0;
    this.#threshold = Math.max(2, this.#window * BETA);
    this.#window = this.#threshold;
    const later = arrived.slice(firstLost).filter(Boolean).length;
    if (later >= DUPLICATES) return roundTrip;
    if (arrived.some(Boolean)) return 2 * roundTrip;
    this.#window = 1;
    return roundTrip + Math.max(RTO_MIN_MS, roundTrip);
  }

  #grow(): void {
    if (this.#window < this.#threshold) {
      this.#window = Math.min(this.#window * 2, this.#threshold);
      return;
    }
    const k = Math.cbrt((this.#before * (1 - BETA)) / CUBIC);
    const cubic = CUBIC * (this.#since / 1000 - k) ** 3 + this.#before;
    const reno = this.#window + (this.#window < this.#before ? ALPHA : 1);
    this.#window = Math.max(reno, Math.min(cubic, 1.5 * this.#window));
  }

  #lost(): boolean {
    return this.#random() < this.#path.loss;
  }
}

/** Numbers from 0 to 1 that look like chance, the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
