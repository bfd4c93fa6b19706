import type { Logger } from '../../telemetry/log.ts';
import type { ConnectionRole, DownloadConnection } from './connection.ts';
import type { HostDownload, HostParallelism, ParallelHosts } from './host-parallelism.ts';
import { type RangeScheduler, SEGMENT_MIN } from './range-scheduler.ts';

/** Slower than 128 Mbit/s is slow: a throttle or a long way limits it; above that one connection is as good as several. */
const SLOW_BYTES_PER_S = 16 * 1024 * 1024;
/** A transfer that ends sooner than this is not worth more connections. */
const WORTH_MS = 2_000;
/** How long the transfer of one segment takes: long against the round trips that it costs, short enough to bring the lowest bytes soon. */
const SEGMENT_MS = 4_000;
const SEGMENT_MAX = 16 * 1024 * 1024;

/**
 * Connections of a download for what readers wait for, where its share is smaller: as many as clients that fetch in parts open, so that none of
 * them waits for the round trips of another.
 */
const WISH_CONNECTIONS = 16;
/** … where the configuration allows fewer: enough that one slow reader's part delays no other. */
const LEAST_WISH_CONNECTIONS = 4;

/** After an additional connection failed none is opened for this time; doubles with each further failure in a row. */
const REOPEN_AFTER_MS = 250;
/** Additional connections in a row that failed in one download, after which it goes on with one connection. */
const MAX_FAILURES = 4;

export interface ParallelismOptions {
  /** Those that the download has. */
  readonly connections: () => Iterable<DownloadConnection>;
  /** The most that it may have: `upstream.connections`. */
  readonly most: number;
  readonly ranges: RangeScheduler;
  readonly hosts: ParallelHosts;
  readonly log: Logger;
  /** Called when the download is divided among several connections for the first time. */
  readonly onDivided: () => void;
}

/** Decides when a download opens more connections, and when it goes back to fewer; how many help at its host, {@link HostParallelism} knows. */
export class Parallelism implements HostDownload {
  readonly #options: ParallelismOptions;
  #most: number;
  /** Where its bodies come from, and its name; null before the first response. */
  #host: { readonly name: string; readonly parallelism: HostParallelism } | null = null;
  #wantsMore = false;
  #divided = false;
  #failures = 0;
  #notBefore = 0;

  constructor(options: ParallelismOptions) {
    this.#options = options;
    this.#most = options.most;
  }

  get most(): number {
    return this.#most;
  }

  get wantsMore(): boolean {
    return this.#wantsMore;
  }

  get established(): number {
    return this.#count((connection) => connection.established);
  }

  get opening(): number {
    return this.#count((connection) => connection.additional && !connection.established);
  }

  /** A response has begun. @param host of its URL, with the port: of whoever sends the bytes, not of who redirected there */
  begun(connection: DownloadConnection, host: string): void {
    if (this.#host === null || (!connection.additional && this.#host.name !== host)) {
      this.leave();
      this.#host = { name: host, parallelism: this.#options.hosts.of(host) };
      this.#host.parallelism.join(this);
    }
    if (!connection.additional) return;
    this.#failures = 0;
    this.#host.parallelism.succeeded();
  }

  /** The download has ended, or rests. */
  leave(): void {
    this.#wantsMore = false;
    this.#host?.parallelism.leave(this);
    this.#host = null;
  }

  brought(bytes: number): void {
    this.#host?.parallelism.brought(bytes);
  }

  /** The disk held a connection up. */
  paused(ms: number): void {
    this.#host?.parallelism.paused(ms);
  }

  /** Opens more connections where readers wait or the transfer is slow. `open` adds one to the download's. */
  adjust(open: (role: ConnectionRole) => void): void {
    this.#host?.parallelism.look();
    this.#serveWaiting(open);
    this.#speedUp(open);
  }

  /** Most connections of the download at one time, those for readers that wait among them. */
  get limit(): number {
    if (this.#most === 1) return 1;
    const forReaders = Math.max(LEAST_WISH_CONNECTIONS, Math.min(WISH_CONNECTIONS, this.#options.most));
    return Math.min(Math.max(forReaders, this.share), this.#host?.parallelism.limitOfEach ?? forReaders);
  }

  /** Most connections for speed at one time. */
  get share(): number {
    return this.#host?.parallelism.share(this) ?? 1;
  }

  /**
   * A reader waits for bytes that no connection is about to bring: one of their own fetches them. Where only one connection is allowed, a long
   * stream is given up for them and goes on afterwards: its own readers wait for a segment then, where the other would wait for all of it.
   */
  #serveWaiting(open: (role: ConnectionRole) => void): void {
    const { ranges } = this.#options;
    if (!ranges.someoneWaits) return;
    if (this.limit === 1) {
      if (ranges.honoured) ranges.interrupt();
      return;
    }
    // One at a time: each that has got its segment has this looked at again. The first shows whether ranges work at all.
    const unused = this.#count(({ role, assigned }) => role === 'wish' && assigned.empty) > 0;
    const most = ranges.honoured ? this.limit : 2;
    if (!unused && this.#count(() => true) < most && performance.now() >= this.#notBefore) open('wish');
  }

  #speedUp(open: (role: ConnectionRole) => void): void {
    const { ranges } = this.#options;
    const streams = [...this.#options.connections()].filter(({ role }) => role !== 'wish');
    const [first] = streams;
    this.#wantsMore = false;
    if (first === undefined || this.#host === null || !ranges.sizeKnown || this.#most === 1) return;
    const rate = this.#rateOf(streams);
    this.#wantsMore = rate !== null && isSlow(rate, streams.length, ranges.remainingFor(streams));
    const { share } = this;
    if (share === 1) ranges.undivide();
    // The first rate may have been measured in a busy moment, or in TCP's slow start.
    else if (ranges.segmentSize !== null && rate !== null) ranges.segmentSize = segmentSizeFor(rate);
    // Another one takes over from a connection that brings nothing, whatever helps otherwise.
    const stalled = ranges.honoured === true && streams.some(({ isStalled }) => isStalled);
    if (performance.now() < this.#notBefore || !(this.#wantsMore || stalled)) return;
    const mayOpen = (): boolean => this.#mayOpen(this.#wantsMore ? share : 1);
    if (!mayOpen()) return;
    if (rate !== null && this.#wantsMore && share > 1) this.#divide(first, rate);
    if (streams.length === 1 || stalled) open('segment');
    while (mayOpen() && ranges.segmentSize !== null && ranges.hasNext) open('segment');
  }

  #divide(first: DownloadConnection, rate: number): void {
    if (!this.#divided) this.#options.onDivided();
    this.#divided = true;
    this.#options.ranges.divide(first, segmentSizeFor(rate));
  }

  /** @param share how many may work for speed */
  #mayOpen(share: number): boolean {
    const working = this.#count(({ role, isStalled }) => role !== 'wish' && !isStalled);
    const all = this.#count(() => true);
    const parallelism = this.#host?.parallelism;
    if (working >= share || all >= Math.min(this.#most, parallelism?.limit ?? 1)) return false;
    // Until it is known whether ranges work, a single additional connection tries one; the others follow.
    const { honoured } = this.#options.ranges;
    return parallelism?.admits === true && (honoured === undefined ? all === 1 : honoured);
  }

  /** Bytes per second of one of its connections; before that is known, what one brought lately where several helped; else null. */
  #rateOf(streams: readonly DownloadConnection[]): number | null {
    const rates = streams.map(({ throughput }) => throughput.rate()).filter((rate) => rate !== null);
    if (rates.length === 0) return this.#host?.parallelism.ratePerConnection ?? null;
    return rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
  }

  #count(counts: (connection: DownloadConnection) => boolean): number {
    let count = 0;
    for (const connection of this.#options.connections()) if (counts(connection)) count++;
    return count;
  }

  /**
   * One of several connections failed without bringing anything. Where it goes on like that, or an endpoint does not support Range
   * (`rangeIgnored`), the download goes on over one; where the host refuses more than it has, over those.
   */
  failed(connection: DownloadConnection, error: unknown, rangeIgnored: boolean, facts: object): void {
    const host = this.#host?.parallelism;
    this.#notBefore = performance.now() + REOPEN_AFTER_MS * 2 ** ++this.#failures;
    // Other downloads from there need not try it again.
    if (rangeIgnored) host?.refused(0, 1);
    else if (connection.additional && host?.failed(error) === true) return;
    else if (this.#failures < MAX_FAILURES) return;
    if (this.#most === 1) return;
    this.#most = 1;
    this.#options.ranges.undivide();
    this.#options.log.info(facts, 'a download goes on over one connection');
  }
}

/**
 * Whether more connections are likely to speed a transfer up enough.
 * @param rate of one of its connections, bytes per second
 */
function isSlow(rate: number, connections: number, remainingBytes: number): boolean {
  if (rate >= SLOW_BYTES_PER_S || remainingBytes < 2 * SEGMENT_MIN) return false;
  return (remainingBytes / (rate * connections)) * 1000 >= WORTH_MS;
}

/** The size of the segments, in bytes, for connections of this rate, in bytes per second. */
function segmentSizeFor(rate: number): number {
  return Math.round(Math.min(SEGMENT_MAX, Math.max(SEGMENT_MIN, (rate * SEGMENT_MS) / 1000)));
}
