import { LRUCache } from 'lru-cache';
import { type Extent, IntervalSet } from '../../kit/interval-set.ts';
import type { Logger } from '../../telemetry/log.ts';
import { isTimeout, StatusError } from '../failures.ts';
import { type DownloadConnection, isSlow, SEGMENT_MIN, segmentSizeFor } from './connection.ts';

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
