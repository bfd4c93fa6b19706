import { jitter, sleep } from '../../kit/time.ts';
import type { BlobKey } from '../../oci/names.ts';
import type { BlobSink } from '../../oci/transfer.ts';
import type { UpstreamContext } from '../context.ts';
import { tryEndpoints } from '../endpoints.ts';
import {
  InvalidResponseError,
  isTimeout,
  RedirectError,
  reasonOf,
  SinkError,
  StatusError,
  TokenRefusedError,
} from '../failures.ts';
import type { Release } from '../pools.ts';
import { requestBlob } from '../request.ts';
import {
  type BlobContent,
  blobError,
  cutOff,
  readBlobContent,
  type UpstreamResponse,
  writeBody,
} from '../responses.ts';
import type { Route } from '../upstream.ts';
import { DownloadConnection, Parallelism, RangeScheduler } from './range-scheduler.ts';

/** How often it is considered whether more connections would help. */
const ADJUST_MS = 100;

/**
 * Fetches what a sink lacks, over as many connections, endpoints and attempts as needed. It starts as one plain GET. A body that breaks off,
 * stalls or ends short is resumed where it stopped, with a new redirect and, where needed, a new token. Where one connection proves slow,
 * several fetch segments, lowest offset first.
 */
export async function download(
  context: UpstreamContext,
  route: Route,
  key: BlobKey,
  sink: BlobSink,
  signal: AbortSignal,
): Promise<void> {
  const release = await context.pools.acquire('fill', route.host, signal, { group: key.repository });
  try {
    await new Download(context, route, key, sink, signal).run();
  } finally {
    release();
  }
}

class Download {
  readonly #context: UpstreamContext;
  readonly #route: Route;
  readonly #key: BlobKey;
  readonly #sink: BlobSink;
  /** Each with the promise that resolves when it has nothing left to do. */
  readonly #connections = new Map<DownloadConnection, Promise<void>>();
  readonly #ranges: RangeScheduler;
  readonly #parallelism: Parallelism;
  readonly #retries = new RetryPolicy();
  /** Ends every connection: the caller's signal was aborted, or a failure ends the download. */
  readonly #stop = new AbortController();
  /** Ends the connections that wait for a socket, once nothing is left for them to fetch. */
  readonly #finished = new AbortController();
  /** How often each endpoint (by URL) failed in this download: those with fewer failures are asked first. */
  readonly #failures = new Map<string, number>();
  /** Endpoints (by URL) that respond to a range with the whole blob. */
  readonly #rangeIgnored = new Set<string>();
  #size: number | undefined;
  /** The sink knows the size, or that it is unknown. */
  #begun = false;

  constructor(context: UpstreamContext, route: Route, key: BlobKey, sink: BlobSink, signal: AbortSignal) {
    this.#context = context;
    this.#route = route;
    this.#key = key;
    this.#sink = sink;
    this.#ranges = new RangeScheduler(sink.held, () => this.#connections.keys(), context.config.connections);
    this.#parallelism = new Parallelism({
      ranges: this.#ranges,
      singleConnectionHosts: context.singleConnectionHosts,
      log: context.log,
      onDivided: () => context.metrics.parallel.inc({ registry: route.host }),
    });
    if (signal.aborted) this.#stop.abort(signal.reason);
    else
      signal.addEventListener('abort', () => this.#stop.abort(signal.reason), {
        once: true,
        signal: this.#finished.signal,
      });
  }

  async run(): Promise<void> {
    const timer = setInterval(() => this.#adjust(), ADJUST_MS);
    try {
      do {
        // Also where the first connection is done and the additional ones failed: what they left must be fetched.
        if (this.#connections.size === 0) this.#open(false);
        await Promise.race(this.#connections.values());
      } while (this.#connections.size > 0 || (!this.#ranges.allAssigned && !this.#stop.signal.aborted));
    } finally {
      clearInterval(timer);
      this.#finished.abort();
    }
    this.#stop.signal.throwIfAborted();
  }

  #adjust(): void {
    if (this.#size !== undefined) this.#parallelism.adjust(this.#connections, () => this.#open(true));
  }

  #open(additional: boolean): void {
    const connection = new DownloadConnection(additional);
    const done = this.#fetchAll(connection)
      .catch((error: unknown) => {
        if (!this.#stop.signal.aborted) this.#stop.abort(error);
      })
      .finally(() => {
        this.#connections.delete(connection);
        if (this.#activeConnections() === 0) this.#finished.abort();
      });
    this.#connections.set(connection, done);
  }

  /** Connections that do not wait for a socket. */
  #activeConnections(): number {
    let count = 0;
    for (const { queued } of this.#connections.keys()) if (!queued) count++;
    return count;
  }

  /** Fetches on one connection until nothing is left for it. @throws what ends the download */
  async #fetchAll(connection: DownloadConnection): Promise<void> {
    for (;;) {
      const release = await this.#acquireSocket(connection);
      // Only now: bytes that were assigned to a connection in the queue would make readers wait for them.
      if (release === null || !this.#ranges.assignNext(connection)) {
        release?.();
        return;
      }
      const before = connection.written;
      let failure: unknown = null;
      try {
        await this.#fetchAssigned(connection);
      } catch (error) {
        failure = error;
      } finally {
        release();
        this.#ranges.release(connection);
        // Where the request ended without telling whether the endpoint works, the next request may probe it.
        if (connection.endpoint !== null) this.#context.endpoints.released(this.#route, connection.endpoint);
      }
      this.#stop.signal.throwIfAborted();
      if (failure !== null && !(await this.#recover(connection, failure, connection.written - before))) return;
      if (this.#activeConnections() > this.#ranges.maxConnections) return;
    }
  }

  /** Waits for a permit to open a socket; null where nothing is left to fetch meanwhile. */
  async #acquireSocket(connection: DownloadConnection): Promise<Release | null> {
    // The download's own permit is that of its first connection.
    if (!connection.additional) return () => {};
    connection.queued = true;
    const options = { group: this.#key.repository, patient: true };
    try {
      return await this.#context.pools.acquire('segment', this.#route.host, this.#finished.signal, options);
    } catch {
      return null;
    } finally {
      connection.queued = false;
    }
  }

  async #fetchAssigned(connection: DownloadConnection): Promise<void> {
    connection.responded = false;
    const response = await this.#request(connection);
    if (response === null) return;
    const { assigned } = connection;
    connection.begin(response.body);
    const before = connection.written;
    try {
      await writeBody(response.body, {
        write: (chunk) => this.#write(connection, chunk),
        isDone: () => assigned.empty && connection.offset < connection.end,
        paused: () => connection.paused(),
        resumed: (pauseMs) => connection.resumed(pauseMs),
      });
      if (connection.end === Number.POSITIVE_INFINITY) this.#setSize(connection.offset);
      if (!assigned.empty) throw Object.assign(new Error('the body ended short'), { code: 'UND_ERR_SOCKET' });
      if (connection.endpoint !== null) this.#context.endpoints.succeeded(this.#route, connection.endpoint);
    } catch (error) {
      // With nothing left to fetch another connection has taken over the rest and cancelled the body: no failure.
      if (error instanceof SinkError || !assigned.empty) throw error;
    } finally {
      this.#context.metrics.bytes.inc({ registry: this.#route.host }, connection.written - before);
    }
  }

  /** Requests what is assigned to a connection, from one endpoint after the other; null where nothing turns out to be left to fetch. */
  #request(connection: DownloadConnection): Promise<UpstreamResponse | null> {
    const { endpoints, log } = this.#context;
    const signal = this.#stop.signal;
    return tryEndpoints(
      {
        route: this.#route,
        endpoints,
        log,
        signal,
        candidates: () => this.#candidates(),
        reportsSuccess: true,
        ...(connection.additional ? { waits: [] } : {}),
      },
      async (endpoint) => {
        connection.endpoint = endpoint;
        const range = this.#rangeFor(connection, endpoint);
        const request = { method: 'GET', range, signal, purpose: null } as const;
        const response = await requestBlob(this.#context.requester, this.#route, endpoint, this.#key, request);
        try {
          // Empty where another connection's body has brought the bytes meanwhile.
          const needed = !connection.assigned.empty;
          const content = needed ? readBlobContent(response, range?.from ?? null) : null;
          if (needed && content === null) throw await blobError(response, endpoint);
          if (content !== null && this.#accept(connection, content, endpoint, range !== null)) return response;
          cutOff(response.body);
          endpoints.released(this.#route, endpoint);
          return null;
        } catch (error) {
          cutOff(response.body);
          throw error;
        }
      },
    );
  }

  /** The range to request for what is assigned; null for a plain GET of the whole blob. */
  #rangeFor({ assigned }: DownloadConnection, endpoint: URL): { from: number; to: number | undefined } | null {
    const { start, end } = assigned;
    const open = end === Number.POSITIVE_INFINITY;
    const whole = start === 0 && (open || end === this.#size);
    if (whole || this.#rangeIgnored.has(endpoint.href)) return null;
    return { from: start, to: open ? undefined : end };
  }

  /** Endpoints in their usual order, but those that failed in this download after the others. */
  *#candidates(): Generator<URL> {
    const { endpoints } = this.#context;
    const left = [...endpoints.candidates(this.#route)];
    left.sort((a, b) => (this.#failures.get(a.href) ?? 0) - (this.#failures.get(b.href) ?? 0));
    try {
      for (let next = left.shift(); next !== undefined; next = left.shift()) yield next;
    } finally {
      for (const unasked of left) endpoints.released(this.#route, unasked);
    }
  }

  /** Notes which bytes a response brings; false where it brings none that are needed. */
  #accept(connection: DownloadConnection, content: BlobContent, endpoint: URL, ranged: boolean): boolean {
    this.#setSize(content.size);
    if (content.kind === 'end') return false;
    if (content.kind === 'segment') {
      connection.offset = content.from;
      connection.end = content.to;
      if (connection.additional) {
        this.#parallelism.rangesWork = true;
        this.#context.singleConnectionHosts.succeeded(endpoint.host);
      }
      return true;
    }
    const { start } = connection.assigned;
    if (ranged && start > 0) {
      this.#rangeIgnored.add(endpoint.href);
      if (connection.additional) {
        throw new InvalidResponseError('the whole blob instead of the part that was asked for');
      }
    }
    if (content.ranges === false) this.#ranges.maxConnections = 1;
    if (content.ranges === true) this.#parallelism.rangesWork = true;
    connection.offset = 0;
    connection.end = content.size ?? Number.POSITIVE_INFINITY;
    // The body brings everything from the start: take whatever is missing, skip what is held.
    if (start > 0) this.#ranges.assignAll(connection);
    return true;
  }

  /** Notes the size that a response states. A digest has one content, so two different sizes cannot both be right. @throws {InvalidResponseError} */
  #setSize(size: number | undefined): void {
    if (size !== undefined && this.#size !== undefined && size !== this.#size) {
      throw new InvalidResponseError(`${size} bytes of a blob that has ${this.#size}`);
    }
    if (size !== undefined && this.#size === undefined) {
      this.#size = size;
      this.#ranges.setSize(size);
    }
    if (this.#begun) return;
    this.#begun = true;
    try {
      this.#sink.begin(size);
    } catch (error) {
      throw new SinkError('the sink refuses the size', { cause: error });
    }
  }

  /** Gives those bytes of a chunk to the sink that are assigned to the connection. */
  #write(connection: DownloadConnection, chunk: Uint8Array): Promise<unknown> {
    const start = connection.advance(chunk.length);
    const { assigned, offset, end } = connection;
    // The body may go on behind what is assigned, with bytes that nobody has a response for.
    const assignedEnd = assigned.empty ? start : assigned.end;
    if (assignedEnd <= offset && assignedEnd < end) this.#ranges.extend(connection, assignedEnd);
    const wanted = assigned.remove(start, offset);
    const [first] = wanted;
    if (wanted.length === 1 && first !== undefined) {
      connection.written += first.to - first.from;
      const all = first.from === start && first.to === offset;
      return this.#sink.write(first.from, all ? chunk : chunk.subarray(first.from - start, first.to - start));
    }
    return Promise.all(
      wanted.map(({ from, to }) => {
        connection.written += to - from;
        return this.#sink.write(from, chunk.subarray(from - start, to - start));
      }),
    );
  }

  /**
   * What follows a failed request.
   * @returns true to go on with this connection, false where it ends and the others go on
   * @throws where the download ends
   */
  async #recover(connection: DownloadConnection, error: unknown, broughtBytes: number): Promise<boolean> {
    if (error instanceof SinkError) throw error;
    const { endpoints, log, metrics } = this.#context;
    const { endpoint } = connection;
    const progress = broughtBytes > 0;
    metrics.resumptions.inc({ registry: this.#route.host });
    const facts = {
      registry: this.#route.host,
      digest: this.#key.digest,
      at: connection.offset,
      reason: reasonOf(error),
    };
    if (endpoint !== null && (!progress || isTimeout(error))) {
      this.#failures.set(endpoint.href, (this.#failures.get(endpoint.href) ?? 0) + 1);
      // `tryEndpoints` has counted a failure before the response.
      if (!progress && connection.responded) endpoints.failed(this.#route, endpoint, error);
    }
    const alone = !connection.additional && this.#activeConnections() === 1;
    if (!alone && !progress) {
      this.#parallelism.failed(connection, error, this.#rangeIgnored.size > 0, facts);
      if (connection.additional) return false;
    }
    // Before the first response the client can still get the upstream's error, and decide itself whether to ask again.
    if (!this.#begun) throw error;
    const wait = this.#retries.next(error, broughtBytes);
    if (wait === null) throw error;
    log[alone ? 'info' : 'debug'](
      { ...facts, attempt: this.#retries.idleAttempts },
      'a download broke off and goes on where it stopped',
    );
    if (wait > 0) await sleep(wait, this.#stop.signal);
    return true;
  }
}

/** Attempts in a row that bring no byte, before a download is given up: with the waits between them some two minutes. */
const MAX_IDLE_ATTEMPTS = 12;
/** Refusals (401, 403, 404) in a row, before it is given up: a registry that sent a part of the blob may refuse the rest by mistake, but not for long. */
const MAX_REFUSALS = 4;
/** After an attempt that brought this many bytes the next one follows at once, so that a link which breaks every few MiB is not slowed down further. */
const NO_WAIT_BYTES = 1024 * 1024;
/** Wait after an attempt that brought fewer bytes. */
const RESUME_MS = 100;
/** Wait after the first attempt that brought nothing; doubles from there. */
const BACKOFF_MS = 250;
const BACKOFF_MAX_MS = 15_000;
/** The longest `Retry-After` that is honoured; clients do not wait longer. */
const RETRY_AFTER_MAX_MS = 60_000;

/** Decides after each failed attempt of a download whether and when to go on. */
export class RetryPolicy {
  #idleAttempts = 0;
  #refusals = 0;

  /** Attempts in a row that brought nothing. */
  get idleAttempts(): number {
    return this.#idleAttempts;
  }

  /**
   * @param broughtBytes what the failed attempt brought
   * @returns milliseconds to wait before the next attempt; null to give up
   */
  next(error: unknown, broughtBytes: number): number | null {
    this.#idleAttempts = broughtBytes > 0 ? 0 : this.#idleAttempts + 1;
    this.#refusals = broughtBytes === 0 && isRefusal(error) ? this.#refusals + 1 : 0;
    if (this.#idleAttempts >= MAX_IDLE_ATTEMPTS || this.#refusals >= MAX_REFUSALS) return null;
    const retryAfter = error instanceof StatusError ? Math.min(RETRY_AFTER_MAX_MS, (error.retryAfter ?? 0) * 1000) : 0;
    return Math.max(jitter(this.#wait(broughtBytes)), retryAfter);
  }

  #wait(broughtBytes: number): number {
    if (broughtBytes >= NO_WAIT_BYTES) return 0;
    return broughtBytes > 0 ? RESUME_MS : Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (this.#idleAttempts - 1));
  }
}

function isRefusal(error: unknown): boolean {
  if (error instanceof StatusError) return error.status < 500 && error.status !== 429 && error.status !== 408;
  return [TokenRefusedError, InvalidResponseError, RedirectError].some((type) => error instanceof type);
}
