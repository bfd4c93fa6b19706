import { LRUCache } from 'lru-cache';
import type { Logger } from '../../telemetry/log.ts';
import { isTimeout, StatusError } from '../failures.ts';

/** The most for all downloads from one host together, where the configuration does not allow one of them more: a few browsers' worth. */
const MOST_AT_HOST = 24;
/** One connection that is slow is tried against this many; from there on their number is doubled. */
const FIRST_TRIAL = 4;
/** What a trial must bring to be kept. Less lies within what a link varies by itself, and costs the host as much. */
const GAIN = 1.15;
/** Over how long a rate is measured: several round trips of the longest ways there are. */
const WINDOW_MS = 1_000;
/** Nothing is measured for this time after a connection came about: it would be TCP's slow start. */
const SETTLE_MS = 500;
/** A trial has failed after so many windows without a gain: slow start on a long way takes several seconds. */
const TRIAL_WINDOWS = 3;
/** A trial whose connections do not come about is given up after so many windows: longer than a connection may take. */
const TRIAL_PATIENCE = 15;
/** A process that waits for bytes for less than this share of a window is the limit itself. */
const LEAST_WAITING = 0.3;
/** What a host brings in all, bytes per second, from which on more is not tried: half a gigabit is as much as hashing and writing should be given. */
const FAST_BYTES_PER_S = 64 * 1024 * 1024;
/** After a trial that brought nothing the next one waits; doubles with each, since links change rarely. */
const RETRY_TRIAL_MS = 5_000;
const RETRY_TRIAL_MAX_MS = 10 * 60_000;

/** How long a host that refused a connection gets no more than it took; doubles with each time that it refuses again. */
const REFUSED_MS = 10 * 60_000;
const REFUSED_MAX_MS = 60 * 60_000;
/** Additional connections in a row that broke before their first byte, after which a host is taken to refuse them. */
const MAX_RESETS = 2;
/** What was found helps for this time, and is then found anew: links and hosts change. */
const LIFETIME_MS = 60 * 60_000;
/** No more often than this is looked at what came, however many downloads ask for it. */
const LOOK_MS = 50;
/** Hosts that are remembered. */
const MAX_HOSTS = 1024;

/** Monotonic, in milliseconds. */
export interface HostClock {
  now(): number;
  /** How long this process has waited in all, rather than worked. */
  waited(): number;
}

const systemClock: HostClock = {
  now: () => performance.now(),
  waited: () => performance.eventLoopUtilization().idle,
};

/** A download, as its host's connections are shared out. */
export interface HostDownload {
  /** The most connections that it may have. */
  readonly most: number;
  /** It is slow, and would use more. */
  readonly wantsMore: boolean;
  /** Connections whose first response has begun. */
  readonly established: number;
  /** Additional connections on their way there. */
  readonly opening: number;
}

interface Measured {
  readonly connections: number;
  readonly bytesPerSecond: number;
}

/** More connections than were measured, and for how many windows. */
interface Trial {
  readonly from: Measured;
  readonly connections: number;
  windows: number;
}

/** One connection, whatever it brings. */
const ONE: Measured = { connections: 1, bytesPerSecond: 0 };

/** What is known of every host that bodies come from, by its name and port. */
export class ParallelHosts {
  readonly #hosts = new LRUCache<string, HostParallelism>({ max: MAX_HOSTS });
  readonly #log: Logger;
  readonly #clock: HostClock;

  constructor(log: Logger, clock: HostClock = systemClock) {
    this.#log = log;
    this.#clock = clock;
  }

  of(host: string): HostParallelism {
    let found = this.#hosts.get(host);
    if (found === undefined || found.isOutdated) {
      found = new HostParallelism(host, this.#log, this.#clock);
      this.#hosts.set(host, found);
    }
    return found;
  }
}

/**
 * How many connections to one host help, all downloads from it taken together. Where one is slow, a throttle or the congestion window of a long
 * or lossy way may be the limit of each connection (Mathis et al., *The macroscopic behavior of the TCP congestion avoidance algorithm*, 1997), or
 * the link that all of them share. Which it is shows only by trying: some more are opened, and kept where all together bring clearly more. What
 * was found is where the next download from the host starts. A host that refuses additional connections gets no more than it took for a while,
 * then one more.
 */
export class HostParallelism {
  readonly #host: string;
  readonly #log: Logger;
  readonly #clock: HostClock;
  readonly #downloads = new Set<HostDownload>();
  /** So many helped. */
  #proven = ONE;
  #provenAt: number;
  /** So many are being tried. */
  #trial: Trial | null = null;
  #noTrialBefore = Number.NEGATIVE_INFINITY;
  #retryTrialMs = RETRY_TRIAL_MS;
  #refusal: { connections: number; until: number; readonly ms: number } | null = null;
  #resets = 0;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #window: { since: number; begun: boolean; connections: number; bytes: number; waited: number; pausedMs: number };

  constructor(host: string, log: Logger, clock: HostClock) {
    this.#host = host;
    this.#log = log;
    this.#clock = clock;
    this.#provenAt = clock.now();
    this.#window = { since: 0, begun: false, connections: 0, bytes: 0, waited: 0, pausedMs: 0 };
  }

  /** What is known may be forgotten. */
  get isOutdated(): boolean {
    const refuses = this.#refusal !== null && this.#clock.now() < this.#refusal.until;
    return this.#downloads.size === 0 && !refuses && this.#clock.now() - this.#provenAt > LIFETIME_MS;
  }

  join(download: HostDownload): void {
    this.#downloads.add(download);
  }

  leave(download: HostDownload): void {
    this.#downloads.delete(download);
    if (this.#downloads.size === 0) this.#trial = null;
  }

  /** Bytes came, on any connection. */
  brought(bytes: number): void {
    this.#window.bytes += bytes;
  }

  /** A connection was held up by the disk. */
  paused(ms: number): void {
    this.#window.pausedMs += ms;
  }

  /** What one of several connections brought when they were last found to help, bytes per second; null where they were not. */
  get ratePerConnection(): number | null {
    const { connections, bytesPerSecond } = this.#proven;
    return connections > 1 ? bytesPerSecond / connections : null;
  }

  /** The most that each download may have for whatever reason: an even part of what the host takes, where it has refused more. */
  get limitOfEach(): number {
    return Math.max(1, Math.floor(this.limit / Math.max(1, this.#downloads.size)));
  }

  /** The most that the host takes, as far as it has refused any. */
  get limit(): number {
    if (this.#refusal === null) return Number.POSITIVE_INFINITY;
    const { connections, until } = this.#refusal;
    return this.#clock.now() < until ? connections : connections + 1;
  }

  /** How many connections a download may have: its share of those that help. Those that do not want more leave theirs to the others. */
  share(download: HostDownload): number {
    let left = Math.min(this.limit, this.#trial?.connections ?? this.#proven.connections);
    const wanting: HostDownload[] = [];
    for (const other of this.#downloads) {
      if (other === download || other.wantsMore) wanting.push(other);
      else left -= Math.max(1, other.established);
    }
    const more = wanting.indexOf(download) < left % wanting.length ? 1 : 0;
    return Math.min(download.most, Math.max(1, Math.floor(left / wanting.length) + more));
  }

  /** Whether an additional connection may be opened now. The first of a trial shows whether the host takes it; the others follow. */
  get admits(): boolean {
    return this.#trial === null || this.#established > this.#trial.from.connections || this.#opening === 0;
  }

  /** An additional connection's response has begun. */
  succeeded(): void {
    this.#resets = 0;
    if (this.#refusal !== null) this.#refusal.connections = Math.max(this.#refusal.connections, this.#established);
  }

  /** An additional connection failed before its first byte; true where that is because the host refuses it. */
  failed(error: unknown): boolean {
    if (saysTooMany(error)) this.refused(error.retryAfter ?? 0);
    else if (error instanceof StatusError || isTimeout(error) || ++this.#resets < MAX_RESETS) return false;
    else this.refused(0);
    return true;
  }

  /**
   * The host takes no more than these connections.
   * @param retryAfter seconds that it asks to be left alone
   */
  refused(retryAfter: number, connections = Math.max(1, this.#established)): void {
    const now = this.#clock.now();
    const before = this.#refusal;
    const again = before !== null && now >= before.until;
    const ms = again ? Math.min(REFUSED_MAX_MS, before.ms * 2) : (before?.ms ?? REFUSED_MS);
    const until = now + Math.min(REFUSED_MAX_MS, Math.max(ms, retryAfter * 1000));
    this.#resets = 0;
    this.#refusal = { connections, until: Math.max(until, before?.until ?? 0), ms };
    if (this.#trial !== null && this.#trial.from.connections >= connections) this.#trial = null;
    if (before !== null && !again && before.connections === connections) return;
    const facts = { host: this.#host, connections, minutes: Math.round((until - now) / 60_000) };
    this.#log.info(facts, 'a download host refuses more connections: it gets no more than these for a while');
  }

  /** To be called several times a second while something is downloaded: looks at what came, and decides how many are tried. */
  look(): void {
    const now = this.#clock.now();
    if (now - this.#lookedAt < LOOK_MS) return;
    this.#lookedAt = now;
    if (now - this.#provenAt > LIFETIME_MS) this.#proven = ONE;
    const established = this.#established;
    const window = this.#window;
    if (established !== window.connections) {
      this.#measure(now + (established > window.connections ? SETTLE_MS : 0));
      if (this.#trial !== null) this.#trial.windows = 0;
    }
    if (!this.#window.begun) {
      if (now >= this.#window.since) this.#measure(now);
      return;
    }
    const ms = now - window.since;
    if (established === 0 || ms < WINDOW_MS) return;
    const waiting = this.#clock.waited() - window.waited >= LEAST_WAITING * ms && window.pausedMs < ms / 2;
    const measured = { connections: established, bytesPerSecond: (window.bytes * 1000) / ms };
    this.#measure(now);
    if (this.#trial !== null) this.#judge(this.#trial, measured, waiting);
    if (this.#trial === null && waiting) this.#try(measured);
  }

  get #established(): number {
    let count = 0;
    for (const { established } of this.#downloads) count += established;
    return count;
  }

  get #opening(): number {
    let count = 0;
    for (const { opening } of this.#downloads) count += opening;
    return count;
  }

  /** Measures from `since` on. */
  #measure(since: number): void {
    const begun = since <= this.#clock.now();
    const waited = this.#clock.waited();
    this.#window = { since, begun, connections: this.#established, bytes: 0, waited, pausedMs: 0 };
  }

  /** @param waiting whether the process waited for bytes, so that more connections can have brought more */
  #judge(trial: Trial, measured: Measured, waiting: boolean): void {
    trial.windows++;
    const { from } = trial;
    const came = measured.connections > from.connections;
    if (came && waiting && measured.bytesPerSecond >= GAIN * from.bytesPerSecond) {
      this.#proven = measured;
      this.#provenAt = this.#clock.now();
      this.#retryTrialMs = RETRY_TRIAL_MS;
      this.#trial = null;
      this.#log.debug({ host: this.#host, from, to: measured }, 'more connections to a download host help');
      return;
    }
    // A download has ended meanwhile: nothing is shown by that.
    if (measured.connections < from.connections) this.#trial = null;
    if (trial.windows < (came ? TRIAL_WINDOWS : TRIAL_PATIENCE)) return;
    this.#trial = null;
    this.#noTrialBefore = this.#clock.now() + this.#retryTrialMs;
    this.#retryTrialMs = Math.min(RETRY_TRIAL_MAX_MS, this.#retryTrialMs * 2);
    this.#log.debug({ host: this.#host, from, to: measured }, 'more connections to a download host do not help');
  }

  /** Tries more connections than those that were measured, where some download would use them. */
  #try(from: Measured): void {
    if (this.#clock.now() < this.#noTrialBefore || from.bytesPerSecond >= FAST_BYTES_PER_S) return;
    // What is known to help comes first.
    if (from.connections < Math.min(this.limit, this.#proven.connections)) return;
    let usable = 0;
    let most = MOST_AT_HOST;
    for (const download of this.#downloads) {
      usable += download.wantsMore ? download.most : download.established;
      most = Math.max(most, download.most);
    }
    const connections = Math.min(Math.max(FIRST_TRIAL, 2 * from.connections), this.limit, usable, most);
    if (connections > from.connections) this.#trial = { from, connections, windows: 0 };
  }
}

/** Whether a host answers so to whoever opens too many connections, as some CDNs do with 403. */
export function saysTooMany(error: unknown): error is StatusError {
  return error instanceof StatusError && [429, 403, 503].includes(error.downloadHostStatus ?? error.status);
}
