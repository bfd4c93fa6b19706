/** A body on its way to its reader, as `SlowReaderWatch` looks at it. */
export interface PacedBody {
  /** Bytes that the connection has taken. */
  readonly taken: number;
  /** Bytes that were given to the connection and may not all have been taken; 0 where nothing waits for the reader. */
  readonly waiting: number;
  /** Ends it below its length. */
  cut(): void;
}

interface Watched {
  readonly body: PacedBody;
  /** Whether others have to wait for this reader. */
  readonly holdsUp: () => boolean;
  /** Since when bytes have waited for the reader at each look, and what it had taken by then. */
  since: number;
  taken: number;
}

/** Looks at a body in each measured time: few enough to cost nothing, and so many that a quick reader is not found waiting at all of them. */
const LOOKS = 8;

/**
 * Ends readers that take next to nothing where others have to wait for them. Only while bytes wait for it is a reader slow: where the
 * source pauses it is not to blame.
 */
export class SlowReaderWatch {
  #leastPerMs: number;
  readonly #overMs: number;
  readonly #watched = new Set<Watched>();
  #timer: NodeJS.Timeout | null = null;

  /**
   * @param minRate bytes a second
   * @param overMs for how long a reader must be slower
   */
  constructor(minRate: number, overMs: number) {
    this.#leastPerMs = minRate / 1000;
    this.#overMs = overMs;
  }

  /** @param minRate bytes a second */
  reconfigure(minRate: number): void {
    this.#leastPerMs = minRate / 1000;
  }

  /** Watches a body until the function returned is called. */
  watch(body: PacedBody, holdsUp: () => boolean): () => void {
    const watched: Watched = { body, holdsUp, since: performance.now(), taken: body.taken };
    this.#watched.add(watched);
    this.#timer ??= setInterval(() => this.#look(), this.#overMs / LOOKS).unref();
    return () => {
      this.#watched.delete(watched);
      if (this.#watched.size > 0 || this.#timer === null) return;
      clearInterval(this.#timer);
      this.#timer = null;
    };
  }

  #look(): void {
    const now = performance.now();
    for (const watched of this.#watched) {
      const { body, since } = watched;
      const least = (now - since) * this.#leastPerMs;
      const taken = body.taken - watched.taken;
      const waits = body.waiting > 0;
      if (!waits || (now - since >= this.#overMs && taken >= least)) {
        watched.since = now;
        watched.taken = body.taken;
      } else if (now - since >= this.#overMs && taken + body.waiting < least && watched.holdsUp()) {
        // Of what is waiting the reader may have taken nearly all: between the two it is looked at for longer.
        body.cut();
      }
    }
  }
}
