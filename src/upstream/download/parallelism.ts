import { LRUCache } from 'lru-cache';
import type { Logger } from '../../telemetry/log.ts';
import { isTimeout, StatusError } from '../failures.ts';
import type { ConnectionRole, DownloadConnection } from './connection.ts';
import { type RangeScheduler, SEGMENT_MIN } from './range-scheduler.ts';

/** Slower than 128 Mbit/s is slow: a throttle or a long way limits it; above that one connection is as good as four. */
const SLOW_BYTES_PER_S = 16 * 1024 * 1024;
/** A transfer that ends sooner than this is not worth more connections. */
const WORTH_MS = 2_000;
/** How long the transfer of one segment takes: long against the round trips that it costs, short enough to bring the lowest bytes soon. */
const SEGMENT_MS = 4_000;
const SEGMENT_MAX = 16 * 1024 * 1024;

/** Connections of a download for what readers wait for, where `upstream.connections` does not allow more: enough that one slow reader's part delays no other. */
const WISH_CONNECTIONS = 4;

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
  #failures = 0;
  #notBefore = 0;

  constructor({ ranges, singleConnectionHosts, log, onDivided }: ParallelismOptions) {
    this.#ranges = ranges;
    this.#singleConnectionHosts = singleConnectionHosts;
    this.#log = log;
    this.#onDivided = onDivided;
  }

  /** Opens more connections where readers wait or the transfer is slow. `open` adds one to `connections`. */
  adjust(connections: ReadonlyMap<DownloadConnection, unknown>, open: (role: ConnectionRole) => void): void {
    this.#serveWaiting(connections, open);
    this.#speedUp(connections, open);
  }

  /** Most connections of the download at one time. */
  get limit(): number {
    const { maxConnections } = this.#ranges;
    return maxConnections === 1 ? 1 : Math.max(WISH_CONNECTIONS, maxConnections);
  }

  /**
   * A reader waits for bytes that no connection is about to bring: one of their own fetches them. Where only one connection is allowed, a long
   * stream is given up for them and goes on afterwards: its own readers wait for a segment then, where the other would wait for all of it.
   */
  #serveWaiting(connections: ReadonlyMap<DownloadConnection, unknown>, open: (role: ConnectionRole) => void): void {
    const ranges = this.#ranges;
    if (!ranges.someoneWaits) return;
    const host = [...connections.keys()].find(({ endpoint }) => endpoint !== null)?.endpoint?.host;
    const single = this.limit === 1 || (host !== undefined && this.#singleConnectionHosts.has(host));
    if (single) {
      if (ranges.honoured) ranges.interrupt();
      return;
    }
    // One at a time: each that has got its segment has this looked at again. The first shows whether ranges work at all.
    const unused = [...connections.keys()].some(({ role, assigned }) => role === 'wish' && assigned.empty);
    const most = ranges.honoured ? this.limit : 2;
    if (!unused && connections.size < most && performance.now() >= this.#notBefore) open('wish');
  }

  #speedUp(connections: ReadonlyMap<DownloadConnection, unknown>, open: (role: ConnectionRole) => void): void {
    const ranges = this.#ranges;
    if (!ranges.sizeKnown || ranges.maxConnections <= 1 || performance.now() < this.#notBefore) return;
    const streams = [...connections.keys()].filter(({ role }) => role !== 'wish');
    const [first] = streams;
    const host = first?.endpoint?.host;
    if (first === undefined || host === undefined || this.#singleConnectionHosts.has(host)) return;
    if (streams.length === 1) {
      const rate = first.throughput.rate();
      const slow = rate !== null && isSlow(rate, ranges.remainingFor(first));
      if (!slow && !(ranges.honoured && first.isStalled)) return;
      if (rate !== null) {
        if (ranges.segmentSize === null) this.#onDivided();
        ranges.divide(first, segmentSizeFor(rate));
      }
      open('segment');
    }
    const mayOpen = (): boolean => ranges.honoured && connections.size < ranges.maxConnections;
    // Until it is known whether ranges work, a single additional connection tries one; the others follow.
    while (ranges.segmentSize !== null && mayOpen() && ranges.hasNext) open('segment');
    if (mayOpen() && streams.some((connection) => connection.isStalled)) open('segment');
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

/** Whether more connections are likely to speed a transfer up enough. `rate`: bytes per second of the only one. */
function isSlow(rate: number, remainingBytes: number): boolean {
  if (rate >= SLOW_BYTES_PER_S || remainingBytes < 2 * SEGMENT_MIN) return false;
  return (remainingBytes / rate) * 1000 >= WORTH_MS;
}

/** The size of the segments, in bytes, for connections of this rate, in bytes per second. */
function segmentSizeFor(rate: number): number {
  return Math.round(Math.min(SEGMENT_MAX, Math.max(SEGMENT_MIN, (rate * SEGMENT_MS) / 1000)));
}
