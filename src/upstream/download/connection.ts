import type { Readable } from 'node:stream';
import type { AcquireOptions, Release } from '../../kit/fair-pool.ts';
import { IntervalSet } from '../../kit/interval-set.ts';
import type { Pools } from '../pools.ts';

/** A connection that brings nothing for so long is taken for stalled by the others of its download, well before the stall timeout ends it. */
const STALLED_MS = 3_000;

/** What a connection brings within this time is not worth another one, whose redirect, handshakes and slow start take as long. */
const SOON_MS = 1_000;
/** Not less than this, so that a slow stream is not cut into crumbs. */
const SOON_MIN_BYTES = 1024 * 1024;
/** What is taken to come soon where the connection's rate is not known: a segment. */
const SOON_BYTES = 8 * 1024 * 1024;

/** A connection's throughput is judged after this time. Less would measure TCP's slow start. */
const JUDGE_AFTER_MS = 500;
/** Less time than this spent waiting for bytes says nothing about the link: the process was busy with other work. */
const MIN_WAIT_MS = 100;

/** Why a connection was opened: as the first one; to make a slow download faster; for a reader that waits for bytes which nobody is about to bring. */
export type ConnectionRole = 'first' | 'segment' | 'wish';

/** One connection of a download, over all the segments that it fetches. */
export class DownloadConnection {
  readonly role: ConnectionRole;
  /** The bytes that it is to fetch: bytes that have come are taken out, and so are those that another connection takes over. */
  readonly assigned = new IntervalSet();
  /** Offset in the blob of the next byte of its body, and of the body's end. */
  offset = 0;
  end = 0;
  throughput = new Throughput();
  /** Bytes that were given to the sink. */
  written = 0;
  /** It waits for a permit to open a socket. */
  queued = false;
  /** Its response has begun: what fails now is the body. */
  responded = false;
  /** A response has begun on it, this one or an earlier one. */
  established = false;
  /** When the last bytes came, or the response began (`performance.now()`). */
  #lastByteAt = 0;
  /** Its body is paused because the disk is slower. */
  #paused = false;
  /** Ends its body. */
  cancel: () => void = () => {};
  /** It was asked to rest: others wait for its permit. */
  rested = false;
  endpoint: URL | null = null;

  constructor(role: ConnectionRole) {
    this.role = role;
  }

  /** Opened beside the download's first connection. */
  get additional(): boolean {
    return this.role !== 'first';
  }

  /** Waits for a permit to open a socket; null where nothing is left to fetch meanwhile, which `finished` tells. */
  async acquire(
    pools: Pools,
    registry: string,
    finished: AbortSignal,
    asker: Pick<AcquireOptions, 'askers' | 'item'>,
  ): Promise<Release | null> {
    // The download's own permit is that of its first connection.
    if (!this.additional) return () => {};
    this.queued = true;
    const options = {
      ...asker,
      patient: true,
      pace: () => this.throughput.rate() ?? 0,
      rest: () => {
        this.rested = true;
        this.cancel();
      },
    };
    try {
      return await pools.acquire('segment', registry, finished, options);
    } catch {
      return null;
    } finally {
      this.queued = false;
    }
  }

  /** A response has begun. */
  begin(body: Readable): void {
    this.responded = true;
    this.established = true;
    this.#paused = false;
    this.#lastByteAt = performance.now();
    this.cancel = () => body.destroy();
    this.throughput = new Throughput();
    if (this.rested) this.cancel();
  }

  /** Counts bytes of the body that came. Returns the offset of the first. */
  advance(bytes: number): number {
    const start = this.offset;
    this.offset += bytes;
    this.throughput.add(bytes);
    this.#lastByteAt = performance.now();
    return start;
  }

  paused(): void {
    this.#paused = true;
  }

  resumed(pauseMs: number): void {
    this.#paused = false;
    this.#lastByteAt = performance.now();
    this.throughput.exclude(pauseMs);
  }

  /** Where what it is about to bring ends: whoever waits for bytes before this offset would gain nothing from another connection. */
  get reach(): number {
    if (this.isStalled) return this.offset;
    const rate = this.throughput.rate();
    const soon = rate === null ? SOON_BYTES : Math.max(SOON_MIN_BYTES, (rate * SOON_MS) / 1000);
    return (this.responded ? this.offset : this.assigned.start) + soon;
  }

  get isStalled(): boolean {
    const waits = this.responded && !this.#paused && !this.assigned.empty;
    return waits && performance.now() - this.#lastByteAt > STALLED_MS;
  }
}

/**
 * Measures how fast one connection has been while this process waited for it. Time in which the process was busy, with other clients or with
 * hashing, does not count, nor does time in which the disk made the connection wait: more connections would help against neither.
 */
class Throughput {
  #started = performance.now();
  #utilization = performance.eventLoopUtilization();
  #bytes = 0;
  #excludedMs = 0;

  add(bytes: number): void {
    if (this.#bytes === 0) {
      this.#started = performance.now();
      this.#utilization = performance.eventLoopUtilization();
    }
    this.#bytes += bytes;
  }

  exclude(ms: number): void {
    this.#excludedMs += ms;
  }

  /** Bytes per second; null while it is too early to judge. */
  rate(): number | null {
    const elapsed = performance.now() - this.#started - this.#excludedMs;
    const idle = performance.eventLoopUtilization(this.#utilization).idle - this.#excludedMs;
    if (this.#bytes === 0 || elapsed < JUDGE_AFTER_MS || idle < MIN_WAIT_MS) return null;
    return (this.#bytes * 1000) / idle;
  }
}
