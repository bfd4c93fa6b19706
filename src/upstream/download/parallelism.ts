import { LRUCache } from 'lru-cache';
import type { Logger } from '../../telemetry/log.ts';
import { isTimeout, StatusError } from '../failures.ts';
import { type DownloadConnection, isSlow, segmentSizeFor } from './connection.ts';
import type { RangeScheduler } from './range-scheduler.ts';

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
