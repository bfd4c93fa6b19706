export interface Clocks {
  /** Ms since 1970, which somebody may put back or forward. */
  now(): number;
  /** Ms from any moment on. */
  monotonic(): number;
}

export const SYSTEM_CLOCKS: Clocks = { now: Date.now, monotonic: () => performance.now() };

/**
 * The day or month that it is, UTC. It begins by the clock and lasts as long as it had left then, however the clock is put meanwhile: nobody's
 * quota begins anew, or ends later, because a clock was wrong.
 */
export class Period {
  readonly #clocks: Clocks;
  readonly #unit: 'day' | 'month';
  #name = '';
  /** By the monotonic clock. */
  #end = Number.NEGATIVE_INFINITY;

  constructor(unit: 'day' | 'month', clocks: Clocks) {
    this.#unit = unit;
    this.#clocks = clocks;
    this.turn();
  }

  /** `2026-11-22` or `2026-11`. */
  get name(): string {
    return this.#name;
  }

  /** Goes on to the next where this one is over. True where it did. */
  turn(): boolean {
    const monotonic = this.#clocks.monotonic();
    if (monotonic < this.#end) return false;
    const now = this.#clocks.now();
    const name = nameOf(now, this.#unit);
    this.#end = monotonic + (startOf(name, 1) - now);
    // By a clock that was put back it is the same day again, which goes on.
    const changed = name !== this.#name;
    this.#name = name;
    return changed;
  }

  /** Ms until it is over. */
  left(): number {
    return Math.max(0, this.#end - this.#clocks.monotonic());
  }

  /** Its name, and those of the one before and the one after. */
  withNeighbours(): string[] {
    return [-1, 0, 1].map((distance) => nameOf(startOf(this.#name, distance), this.#unit));
  }
}

function nameOf(time: number, unit: 'day' | 'month'): string {
  return new Date(time).toISOString().slice(0, unit === 'day' ? 10 : 7);
}

/** When the period begins that is so many after this one, ms since 1970. */
function startOf(name: string, distance: number): number {
  const [year = 0, month = 1, day] = name.split('-').map(Number);
  return day === undefined ? Date.UTC(year, month - 1 + distance) : Date.UTC(year, month - 1, day + distance);
}
