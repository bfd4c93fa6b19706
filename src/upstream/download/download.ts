import type { Askers } from '../../kit/askers.ts';
import { sleep } from '../../kit/time.ts';
import type { BlobKey } from '../../oci/names.ts';
import type { BlobSink, RunningTransfer } from '../../oci/transfer.ts';
import type { UpstreamContext } from '../context.ts';
import { tryEndpoints } from '../endpoints.ts';
import { RESUMING_HEDGE_MS } from '../exchange.ts';
import { InvalidResponseError, isTimeout, reasonOf, SinkError } from '../failures.ts';
import { requestBlob } from '../request.ts';
import {
  type BlobContent,
  blobError,
  cutOff,
  readBlobContent,
  requirePossibleSize,
  type UpstreamResponse,
  writeBody,
} from '../responses.ts';
import { type Route, rowOf } from '../upstream.ts';
import { type ConnectionRole, DownloadConnection } from './connection.ts';
import { EndpointRecord } from './endpoint-record.ts';
import { saysTooMany } from './host-parallelism.ts';
import { Pace } from './pace.ts';
import { Parallelism } from './parallelism.ts';
import { RangeScheduler } from './range-scheduler.ts';
import { RetryPolicy } from './retry-policy.ts';

/** How often it is considered whether more connections would help. */
const ADJUST_MS = 100;

/**
 * Fetches what a sink lacks, over as many connections, endpoints and attempts as needed. It starts as one plain GET. A body that breaks off,
 * stalls or ends short is resumed where it stopped, with a new redirect and, where needed, a new token. Where one connection proves slow,
 * several fetch segments, lowest offset first, as many as help.
 */
export async function download(
  context: UpstreamContext,
  route: Route,
  key: BlobKey,
  sink: BlobSink,
  signal: AbortSignal,
  askers?: Askers,
): Promise<void> {
  const running = new Download(context, route, key, sink, askers);
  const options = { askers, item: key.repository, pace: () => running.pace, rest: () => running.rest() };
  for (let rested = false; ; ) {
    // Whoever rested has readers who got a part already.
    const release = await context.pools.acquire('fill', rowOf(route), signal, {
      ...options,
      patient: rested,
      rested,
    });
    try {
      rested = await running.run(signal);
    } finally {
      release();
    }
    if (!rested) return;
  }
}

/** `to` is undefined where the range is open-ended. */
interface RequestedRange {
  readonly from: number;
  readonly to: number | undefined;
}

/** Why the connections of a download end that was asked to rest. */
const RESTED = new Error('the download rests');

class Download implements RunningTransfer {
  readonly #context: UpstreamContext;
  readonly #route: Route;
  readonly #key: BlobKey;
  readonly #sink: BlobSink;
  readonly #askers: Askers | undefined;
  /** Each with the promise that resolves when it has nothing left to do. */
  readonly #connections = new Map<DownloadConnection, Promise<void>>();
  readonly #ranges: RangeScheduler;
  readonly #parallelism: Parallelism;
  readonly #retries = new RetryPolicy();
  readonly #pace = new Pace();
  /** Ends every connection: the caller's signal was aborted, a failure ends the download, or it is to rest. */
  #stop = new AbortController();
  /** Ends the connections that wait for a socket, once nothing is left for them to fetch. */
  #finished = new AbortController();
  readonly #endpoints = new EndpointRecord();
  #size: number | undefined;
  /** The sink knows the size, or that it is unknown. */
  #begun = false;
  /** It will be looked at once more which connections are needed. */
  #adjusting: NodeJS.Immediate | undefined;

  constructor(context: UpstreamContext, route: Route, key: BlobKey, sink: BlobSink, askers: Askers | undefined) {
    this.#context = context;
    this.#route = route;
    this.#key = key;
    this.#sink = sink;
    this.#askers = askers;
    this.#ranges = new RangeScheduler({
      held: sink.held,
      wishes: sink.wishes,
      connections: () => this.#connections.keys(),
    });
    this.#parallelism = new Parallelism({
      connections: () => this.#connections.keys(),
      most: context.config().connections,
      ranges: this.#ranges,
      hosts: context.parallelHosts,
      log: context.log,
      onDivided: () => context.metrics.parallel.inc({ registry: rowOf(route) }),
    });
  }

  /** Bytes per second lately. */
  get pace(): number {
    return this.#pace.bytesPerSecond;
  }

  /** Those that do not wait for a socket. */
  get connections(): number {
    return this.#activeConnections();
  }

  /** Ends its connections soon; nothing that came is lost. */
  rest(): void {
    this.#stop.abort(RESTED);
  }

  /** Goes on where it stopped, until all that is wanted is fetched. @returns whether it was asked to rest before that */
  async run(signal: AbortSignal): Promise<boolean> {
    signal.throwIfAborted();
    const stop = new AbortController();
    this.#stop = stop;
    this.#retries.resume();
    this.#pace.begin();
    this.#sink.watch?.(this);
    const onAbort = (): void => stop.abort(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const timer = setInterval(() => {
      // So that the pace is always that of the last seconds.
      void this.pace;
      this.#adjust();
    }, ADJUST_MS);
    const unsubscribe = this.#sink.wishes?.onChange(() => this.#adjustSoon());
    try {
      do {
        // Also where the first connection is done and the additional ones failed: what they left must be fetched.
        if (this.#connections.size === 0) this.#open('first');
        await Promise.race(this.#connections.values());
      } while (this.#connections.size > 0 || (!stop.signal.aborted && this.#ranges.hasNext));
    } finally {
      clearInterval(timer);
      clearImmediate(this.#adjusting);
      this.#adjusting = undefined;
      unsubscribe?.();
      signal.removeEventListener('abort', onAbort);
      this.#finished.abort();
      this.#parallelism.leave();
      this.#sink.watch?.(null);
    }
    if (stop.signal.reason === RESTED) return this.#ranges.hasNext;
    stop.signal.throwIfAborted();
    return false;
  }

  #adjust(): void {
    if (!this.#begun || this.#stop.signal.aborted) return;
    const roles = [...this.#connections.keys()].map(({ role }) => role);
    // It has ended with nothing to do, while readers' parts were still under way.
    const mayOpen = roles.length > 0 && roles.length < this.#parallelism.limit;
    if (mayOpen && !roles.includes('first') && this.#ranges.hasNext) this.#open('first');
    this.#parallelism.adjust((role) => this.#open(role));
  }

  /** Not within a call of the sink's, and once for all wishes that come together. */
  #adjustSoon(): void {
    this.#adjusting ??= setImmediate(() => {
      this.#adjusting = undefined;
      this.#adjust();
    });
  }

  #open(role: ConnectionRole): void {
    const stop = this.#stop;
    if (this.#finished.signal.aborted) this.#finished = new AbortController();
    const connection = new DownloadConnection(role);
    const done = this.#fetchAll(connection)
      .catch((error: unknown) => {
        if (!stop.signal.aborted) stop.abort(error);
      })
      .finally(() => {
        this.#connections.delete(connection);
        if (this.#activeConnections() === 0) this.#finished.abort();
      });
    this.#connections.set(connection, done);
  }

  /** Connections that do not wait for a socket. */
  #activeConnections(counts: (role: ConnectionRole) => boolean = () => true): number {
    let count = 0;
    for (const { queued, role } of this.#connections.keys()) if (!queued && counts(role)) count++;
    return count;
  }

  /** Fetches on one connection until nothing is left for it. @throws what ends the download */
  async #fetchAll(connection: DownloadConnection): Promise<void> {
    // A link that breaks every few MiB may do so between two segments, which is no sign that this connection is one too many.
    let before = connection.written;
    for (;;) {
      const release = await connection.acquire(this.#context.pools, rowOf(this.#route), this.#finished.signal, {
        askers: this.#askers,
        item: this.#key.repository,
      });
      // Only now: bytes that were assigned to a connection in the queue would make readers wait for them.
      if (release === null || !this.#ranges.assignNext(connection)) {
        release?.();
        return;
      }
      // For the next reader that waits, now that this one is served.
      if (connection.role === 'wish') this.#adjustSoon();
      let failure: unknown = null;
      try {
        await this.#fetchAssigned(connection);
      } catch (error) {
        failure = error;
      } finally {
        release();
        this.#ranges.release(connection);
      }
      this.#stop.signal.throwIfAborted();
      // The others fetch what it has left, and where they are too slow for it, another one is opened when there is a permit again.
      if (connection.rested) return;
      if (failure !== null) {
        if (!(await this.#recover(connection, failure, connection.written - before))) return;
        before = connection.written;
      }
      if (this.#isOneTooMany(connection)) return;
    }
  }

  /** Fewer connections than before are allowed now, or help. */
  #isOneTooMany({ role }: DownloadConnection): boolean {
    if (role === 'wish') return this.#activeConnections() > this.#parallelism.limit;
    return role === 'segment' && this.#activeConnections((other) => other !== 'wish') > this.#parallelism.share;
  }

  async #fetchAssigned(connection: DownloadConnection): Promise<void> {
    connection.responded = false;
    const response = await this.#request(connection);
    if (response === null) return;
    const { assigned } = connection;
    connection.begin(response.body);
    this.#parallelism.begun(connection, response.url.host);
    const before = connection.written;
    try {
      await writeBody(response.body, {
        write: (chunk) => this.#write(connection, chunk),
        isDone: () => assigned.empty && connection.offset < connection.end,
        paused: () => connection.paused(),
        resumed: (pauseMs) => {
          connection.resumed(pauseMs);
          this.#parallelism.paused(pauseMs);
        },
      });
      if (connection.end === Number.POSITIVE_INFINITY) this.#setSize(connection.offset);
      if (!assigned.empty) throw Object.assign(new Error('the body ended short'), { code: 'UND_ERR_SOCKET' });
      if (connection.endpoint !== null)
        this.#context.endpoints.succeeded(this.#route, connection.endpoint, this.#key.repository);
    } catch (error) {
      // With nothing left to fetch another connection has taken over the rest and cancelled the body: no failure.
      if (error instanceof SinkError || !assigned.empty) throw error;
    } finally {
      this.#context.metrics.bytes.inc({ registry: rowOf(this.#route) }, connection.written - before);
    }
  }

  /** Requests what is assigned to a connection, from one endpoint after the other; null where nothing turns out to be left to fetch. */
  #request(connection: DownloadConnection): Promise<UpstreamResponse | null> {
    const { endpoints, log } = this.#context;
    const signal = this.#stop.signal;
    return tryEndpoints(
      {
        route: this.#route,
        repository: this.#key.repository,
        endpoints,
        log,
        signal,
        candidates: () => this.#endpoints.inOrder(endpoints.candidates(this.#route, this.#key.repository)),
        reportsSuccess: true,
        ...(connection.additional ? { waits: [] } : {}),
      },
      async (endpoint) => {
        connection.endpoint = endpoint;
        const range = this.#rangeFor(connection, endpoint);
        const hedge = this.#begun ? { hedgeAfter: RESUMING_HEDGE_MS } : {};
        const holder = { askers: this.#askers };
        const isAdditional = connection.additional;
        const request = { method: 'GET', range, signal, purpose: null, holder, isAdditional, ...hedge } as const;
        const response = await requestBlob(this.#context.requester, this.#route, endpoint, this.#key, request);
        try {
          // Empty where another connection's body has brought the bytes meanwhile.
          const needed = !connection.assigned.empty;
          const content = needed ? readBlobContent(response, range?.from ?? null, this.#sink.expectedSize) : null;
          if (needed && content === null) throw await blobError(response, endpoint);
          if (content !== null && this.#accept(connection, content, endpoint, range)) return response;
          cutOff(response.body);
          return null;
        } catch (error) {
          cutOff(response.body);
          throw error;
        }
      },
    );
  }

  /** The range to request for what is assigned; null for a plain GET of the whole blob. */
  #rangeFor({ assigned }: DownloadConnection, endpoint: URL): RequestedRange | null {
    const { start, end } = assigned;
    const open = end === Number.POSITIVE_INFINITY;
    const whole = start === 0 && (open || end === (this.#size ?? this.#sink.expectedSize));
    if (whole || this.#endpoints.ignoresRanges(endpoint)) return null;
    return { from: start, to: open ? undefined : end };
  }

  /** Notes which bytes a response brings; false where it brings none that are needed. */
  #accept(connection: DownloadConnection, content: BlobContent, endpoint: URL, range: RequestedRange | null): boolean {
    this.#setSize(content.size, content.kind === 'whole' && content.unsure);
    if (content.kind === 'end') return false;
    if (content.kind === 'segment') {
      connection.offset = content.from;
      connection.end = content.to;
      this.#ranges.noteRanges(true);
      return true;
    }
    const ignored = range !== null && !(range.from === 0 && (range.to ?? 0) >= (content.size ?? Infinity));
    if (ignored) {
      this.#endpoints.rangeIgnored(endpoint);
      this.#ranges.noteRanges(false);
      if (connection.additional) {
        throw new InvalidResponseError('the whole blob instead of the part that was asked for');
      }
    }
    if (content.ranges !== undefined && !ignored) this.#ranges.noteRanges(content.ranges);
    connection.offset = 0;
    connection.end = content.size ?? Number.POSITIVE_INFINITY;
    // The body brings everything from the start: take whatever is missing, skip what is held.
    if (ignored || connection.assigned.start > 0) this.#ranges.assignAll(connection);
    return true;
  }

  /**
   * Notes the size that a response states, or else the one that is expected, unless it is unsure whether the bytes are the blob's own. A digest has
   * one content, so two different sizes cannot both be right.
   * @throws {InvalidResponseError}
   */
  #setSize(stated: number | undefined, unsure = false): void {
    const { expectedSize } = this.#sink;
    const known = this.#size ?? expectedSize;
    if (stated !== undefined && known !== undefined && stated !== known) {
      throw new InvalidResponseError(`${stated} bytes of a blob that has ${known}`);
    }
    requirePossibleSize(this.#key.digest, stated);
    const size = stated ?? (unsure ? undefined : expectedSize);
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
    // Readers may wait for other parts than the first response brings.
    if (this.#sink.wishes !== undefined) this.#adjustSoon();
  }

  /** Gives those bytes of a chunk to the sink that are assigned to the connection. */
  #write(connection: DownloadConnection, chunk: Uint8Array): Promise<unknown> {
    const start = connection.advance(chunk.length);
    const { assigned, offset, end } = connection;
    // The body may go on behind what is assigned, with bytes that nobody has a response for.
    const assignedEnd = assigned.empty ? start : assigned.end;
    if (assignedEnd <= offset && assignedEnd < end) this.#ranges.extend(connection, assignedEnd);
    const wanted = assigned.remove(start, offset);
    this.#pace.add(chunk.length);
    this.#parallelism.brought(chunk.length);
    this.#retries.brought(chunk.length);
    const [first] = wanted;
    if (first?.from === start && first.to === offset) {
      connection.written += chunk.length;
      return this.#sink.write(start, chunk);
    }
    wanted.push(...this.#ranges.takePassing(start, offset));
    if (this.#ranges.shouldSkip(connection)) this.#ranges.release(connection);
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
    metrics.resumptions.inc({ registry: rowOf(this.#route) });
    const facts = {
      registry: this.#route.host,
      digest: this.#key.digest,
      at: connection.offset,
      reason: reasonOf(error),
    };
    if (endpoint !== null && (!progress || isTimeout(error))) {
      this.#endpoints.failed(endpoint);
      // `tryEndpoints` has counted a failure before the response.
      if (!progress && connection.responded) endpoints.failed(this.#route, endpoint, this.#key.repository, error);
    }
    const alone = !connection.additional && this.#activeConnections() === 1;
    const rangeIgnored = this.#endpoints.someIgnoreRanges;
    // What a host says to an additional connection may be about their number, however much this one brought before.
    const superfluous = connection.additional && (rangeIgnored || saysTooMany(error));
    if (!alone && (!progress || superfluous)) {
      this.#parallelism.failed(connection, error, rangeIgnored, facts);
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
