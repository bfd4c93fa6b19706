import { isTimeout, StatusError } from './failures.ts';

/** A connection is judged after so long. Less would judge TCP's slow start. */
const JUDGE_AFTER_MS = 500;
/** Slower than this is slow: below 128 Mbit/s a throttle or a long way is at work, above it one connection is as good as four. */
const SLOW_BYTES_PER_S = 16 * 1024 * 1024;
/** What would be done within this time is not worth more connections. */
const WORTH_MS = 2_000;
/** A piece lasts about so long: long against the round trips that it costs, short enough that the lowest is never far behind. */
const PIECE_MS = 4_000;
export const PIECE_MIN = 512 * 1024;
const PIECE_MAX = 16 * 1024 * 1024;
/** Extra connections that failed in one download, after which it goes on with one. */
export const MAX_HELPER_FAILURES = 4;
/** How long a host that punished us for several connections gets only one. */
const PUNISHED_MS = 10 * 60_000;
/** Resets before the first byte that are taken for punishment. */
const PUNISHING_RESETS = 2;

/** Less idle time than this says nothing about a link: the process had other things to do all the while. */
const IDLE_MIN_MS = 100;

/**
 * How fast one connection has been while this process waited for it. Time that the process was busy, with other clients or with hashing,
 * does not count, nor does time that the disk made it wait: more connections would help against neither.
 */
export class Speed {
  #started = performance.now();
  #since = performance.eventLoopUtilization();
  #bytes = 0;
  #waited = 0;

  add(bytes: number): void {
    if (this.#bytes === 0) {
      this.#started = performance.now();
      this.#since = performance.eventLoopUtilization();
    }
    this.#bytes += bytes;
  }

  /** Time that does not count. */
  waited(ms: number): void {
    this.#waited += ms;
  }

  /** Bytes per second; null while it is too early to tell. */
  rate(): number | null {
    const elapsed = performance.now() - this.#started - this.#waited;
    const idle = performance.eventLoopUtilization(this.#since).idle - this.#waited;
    if (this.#bytes === 0 || elapsed < JUDGE_AFTER_MS || idle < IDLE_MIN_MS) return null;
    return (this.#bytes * 1000) / idle;
  }
}

/** Whether more connections are worth their while. */
export function isSlow(rate: number | null, remaining: number): boolean {
  if (rate === null || rate >= SLOW_BYTES_PER_S || remaining < 2 * PIECE_MIN) return false;
  return (remaining / rate) * 1000 >= WORTH_MS;
}

export function pieceSize(rate: number): number {
  return Math.round(Math.min(PIECE_MAX, Math.max(PIECE_MIN, (rate * PIECE_MS) / 1000)));
}

/** Hosts that answer several connections with 429, 403 or resets, or that know no ranges: they get one connection, for a while. */
export class Punishments {
  readonly #until = new Map<string, number>();
  readonly #resets = new Map<string, number>();

  allows(host: string): boolean {
    return (this.#until.get(host) ?? 0) <= performance.now();
  }

  /** Tells of an extra connection's failure before its first byte; true where it ends parallel fetching from that host. */
  failed(host: string, error: unknown): boolean {
    const refused = error instanceof StatusError && [429, 403, 503].includes(error.behind ?? error.status);
    const reset = !(error instanceof StatusError) && !isTimeout(error);
    if (reset) this.#resets.set(host, (this.#resets.get(host) ?? 0) + 1);
    if (!refused && (this.#resets.get(host) ?? 0) < PUNISHING_RESETS) return false;
    this.off(host);
    return true;
  }

  succeeded(host: string): void {
    this.#resets.delete(host);
  }

  off(host: string): void {
    this.#resets.delete(host);
    this.#until.set(host, performance.now() + PUNISHED_MS);
  }
}
