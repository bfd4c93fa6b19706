import type { Readable } from 'node:stream';
import { LRUCache } from 'lru-cache';
import { type Extent, IntervalSet } from '../../kit/interval-set.ts';
import type { Logger } from '../../telemetry/log.ts';
import { isTimeout, StatusError } from '../failures.ts';

/** A connection that brings nothing for so long is taken for stalled by the others of its download, well before the stall timeout ends it. */
const STALLED_MS = 3_000;

/** A connection's throughput is judged after this time. Less would measure TCP's slow start. */
const JUDGE_AFTER_MS = 500;
/** Less time than this spent waiting for bytes says nothing about the link: the process was busy with other work. */
const MIN_WAIT_MS = 100;
/** Slower than 128 Mbit/s is slow: a throttle or a long way limits it; above that one connection is as good as four. */
const SLOW_BYTES_PER_S = 16 * 1024 * 1024;
/** A transfer that ends sooner than this is not worth more connections. */
const WORTH_MS = 2_000;
/** How long the transfer of one segment takes: long against the round trips that it costs, short enough to bring the lowest bytes soon. */
const SEGMENT_MS = 4_000;
export const SEGMENT_MIN = 512 * 1024;
const SEGMENT_MAX = 16 * 1024 * 1024;

/** One connection of a download, over all the segments that it fetches. */
export class DownloadConnection {
  /** Opened beside the download's first connection, to make it faster. */
  readonly additional: boolean;
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
  /** When the last bytes came, or the response began (`performance.now()`). */
  #lastByteAt = 0;
  /** Its body is paused because the disk is slower. */
  #paused = false;
  /** Ends its body. */
  cancel: () => void = () => {};
  endpoint: URL | null = null;

  constructor(additional: boolean) {
    this.additional = additional;
  }

  /** A response has begun. */
  begin(body: Readable): void {
    this.responded = true;
    this.#paused = false;
    this.#lastByteAt = performance.now();
    this.cancel = () => body.destroy();
    this.throughput = new Throughput();
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

/** Whether more connections are likely to speed a transfer up enough. `rate`: bytes per second of the only one, null where not known. */
function isSlow(rate: number | null, remainingBytes: number): boolean {
  if (rate === null || rate >= SLOW_BYTES_PER_S || remainingBytes < 2 * SEGMENT_MIN) return false;
  return (remainingBytes / rate) * 1000 >= WORTH_MS;
}

/** The size of the segments, in bytes, for connections of this rate, in bytes per second. */
function segmentSizeFor(rate: number): number {
  return Math.round(Math.min(SEGMENT_MAX, Math.max(SEGMENT_MIN, (rate * SEGMENT_MS) / 1000)));
}

/** After an additional connection failed none is opened for this time; doubles with each further failure. */
const REOPEN_AFTER_MS = 250;
/** Additional connections that failed in one download, after which it goes on with one connection. */
const MAX_FAILURES = 4;

/** How long a host that refuses several connections gets only one. */
const SINGLE_CONNECTION_MS = 10 * 60_000;
/** Connections that broke before the first byte, after which a host is taken to refuse several. */
const MAX_RESETS = 2;
/** Hosts that are remembered. */
const MAX_HOSTS = 1024;

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

export interface ParallelismOptions {
  readonly ranges: RangeScheduler;
  readonly singleConnectionHosts: SingleConnectionHosts;
  readonly log: Logger;
  /** Called when the download is divided among several connections for the first time. */
  readonly onDivided: () => void;
}

/** Decides when a download opens more connections, and when it goes back to one. */
export class Parallelism {
  readonly #ranges: RangeScheduler;
  readonly #singleConnectionHosts: SingleConnectionHosts;
  readonly #log: Logger;
  readonly #onDivided: () => void;
  /** The upstream supports Range: it said so, or an additional connection got one. */
  rangesWork = false;
  #failures = 0;
  #notBefore = 0;

  constructor({ ranges, singleConnectionHosts, log, onDivided }: ParallelismOptions) {
    this.#ranges = ranges;
    this.#singleConnectionHosts = singleConnectionHosts;
    this.#log = log;
    this.#onDivided = onDivided;
  }

  /** Opens more connections where the transfer is slow. `open` adds one to `connections`. */
  adjust(connections: ReadonlyMap<DownloadConnection, unknown>, open: () => void): void {
    const ranges = this.#ranges;
    if (ranges.maxConnections <= 1 || performance.now() < this.#notBefore) return;
    const [first] = connections.keys();
    const host = first?.endpoint?.host;
    if (first === undefined || host === undefined || this.#singleConnectionHosts.has(host)) return;
    if (connections.size === 1) {
      const rate = first.throughput.rate();
      const slow = rate !== null && isSlow(rate, ranges.remainingFor(first));
      if (!slow && !(this.rangesWork && first.isStalled)) return;
      if (rate !== null) {
        if (ranges.segmentSize === null) this.#onDivided();
        ranges.divide(first, segmentSizeFor(rate));
      }
      open();
    }
    // Until it is known whether ranges work, a single additional connection tries one; the others follow.
    while (this.rangesWork && !ranges.allAssigned && connections.size < ranges.maxConnections) open();
    const stalled = [...connections.keys()].some((connection) => connection.isStalled);
    if (this.rangesWork && stalled && connections.size < ranges.maxConnections) open();
  }

  /**
   * One of several connections failed without bringing anything. Where the host refuses several, or an endpoint does not support Range
   * (`rangeIgnored`), the download goes on over one.
   */
  failed(connection: DownloadConnection, error: unknown, rangeIgnored: boolean, facts: object): void {
    this.#failures++;
    this.#notBefore = performance.now() + REOPEN_AFTER_MS * 2 ** this.#failures;
    const host = connection.additional ? connection.endpoint?.host : undefined;
    const refused = host !== undefined && this.#singleConnectionHosts.failed(host, error);
    if (!refused && !rangeIgnored && this.#failures < MAX_FAILURES) return;
    if (this.#ranges.maxConnections === 1) return;
    this.#ranges.useOneConnection();
    this.#log.info(facts, 'a download goes on over one connection');
  }
}

/** Hosts that answer several connections with 429, 403, 503 or resets: for a while a download opens only one to each of them. */
export class SingleConnectionHosts {
  readonly #hosts = new LRUCache<string, true>({ max: MAX_HOSTS, ttl: SINGLE_CONNECTION_MS });
  readonly #resets = new LRUCache<string, number>({ max: MAX_HOSTS });

  has(host: string): boolean {
    return this.#hosts.has(host);
  }

  /** Counts the failure of an additional connection before its first byte; true where the host gets only one from now on. */
  failed(host: string, error: unknown): boolean {
    const refused = error instanceof StatusError && [429, 403, 503].includes(error.downloadHostStatus ?? error.status);
    const reset = !(error instanceof StatusError) && !isTimeout(error);
    if (reset) this.#resets.set(host, (this.#resets.get(host) ?? 0) + 1);
    if (!refused && (this.#resets.get(host) ?? 0) < MAX_RESETS) return false;
    this.#resets.delete(host);
    this.#hosts.set(host, true);
    return true;
  }

  succeeded(host: string): void {
    this.#resets.delete(host);
  }
}
