import type { Extent } from '../kit/extent.ts';
import { jitter } from '../kit/jitter.ts';
import { sleep } from '../kit/sleep.ts';
import type { Digest } from '../oci/digest.ts';
import type { BlobKey, BlobSink } from '../oci/transfer.ts';
import { blobError, plain, requestBlob, sizeOf416 } from './blobs.ts';
import type { Release } from './budget.ts';
import { Claim } from './claim.ts';
import { overEndpoints } from './failover.ts';
import { isTimeout, NonsenseError, reasonOf, StatusError, TokenRefusedError } from './failures.ts';
import { Gaps } from './gaps.ts';
import { bytesOf, discard, header, parseContentRange } from './headers.ts';
import { isSlow, MAX_HELPER_FAILURES, PIECE_MIN, pieceSize, Speed } from './pieces.ts';
import { pump, SinkError } from './pump.ts';
import { RedirectError } from './redirects.ts';
import type { Answer } from './request.ts';
import type { Room } from './room.ts';
import type { Route } from './upstream.ts';

/** How often it is considered whether more connections would help. */
const CONSIDER_MS = 100;
/** Attempts in a row that bring no byte, before a download is given up: with the waits between them some two minutes. */
const MAX_IDLE_ATTEMPTS = 12;
/** As many refusals (401, 403, 404) in a row: a registry that gave half a blob and then refuses it may have had a bad moment, not a bad minute. */
const MAX_REFUSALS = 4;
/** Wait after an attempt that brought something, and after the first that did not; doubles from there. */
const RESUME_MS = 100;
const BACKOFF_MS = 250;
const BACKOFF_MAX_MS = 15_000;
/** A registry that asks for more patience gets this much; clients do not wait longer. */
const RETRY_AFTER_MAX_MS = 60_000;

/**
 * Brings what a sink lacks, over as many connections, endpoints and attempts as it takes. Starts as one plain GET. What breaks, stalls or ends short is
 * taken up where it stopped, with a new redirect and, where needed, a new token. Where one connection proves slow, several fetch pieces,
 * lowest offset first.
 */
export async function download(
  room: Room,
  route: Route,
  key: BlobKey,
  sink: BlobSink,
  signal: AbortSignal,
): Promise<void> {
  const release = await room.fills.acquire('fill', route.host, signal);
  try {
    await new Download(room, route, key, sink, signal).run();
  } finally {
    release();
  }
}

/** One connection's worth of work; lives as long as there is something to fetch for it. */
interface Lane {
  /** The first lane of a download; the others are there to help it. */
  readonly helper: boolean;
  claim: Claim;
  /** Offset of the next byte of the body that is read, and of its end. */
  at: number;
  end: number;
  speed: Speed;
  /** Bytes handed to the sink. */
  written: number;
  /** Queueing for a socket. */
  waiting: boolean;
  /** Its answer has begun: what breaks now is the body. */
  opened: boolean;
  /** When the last bytes came, or the answer began (performance.now()). */
  lastAt: number;
  /** The disk makes it wait. */
  held: boolean;
  /** Ends its body. */
  leave: () => void;
  endpoint: URL | null;
}

class Download {
  readonly #room: Room;
  readonly #route: Route;
  readonly #key: BlobKey;
  readonly #sink: BlobSink;
  readonly #gaps: Gaps;
  readonly #lanes = new Map<Lane, Promise<void>>();
  /** Ends every lane: the caller's signal, or a failure that ends the download. */
  readonly #stop = new AbortController();
  /** Ends the lanes that wait for a socket when there is nothing left for them. */
  readonly #enough = new AbortController();
  /** Endpoints that broke off bodies of this blob: asked after the others. */
  readonly #strikes = new Map<string, number>();
  /** Endpoints that answer a range with the whole blob. */
  readonly #rangeless = new Set<string>();
  #size: number | undefined;
  #begun = false;
  #idle = 0;
  #refusals = 0;
  /** Null while one connection fetches everything. */
  #piece: number | null = null;
  #mostLanes: number;
  /** Ranges are honoured: the upstream says so, or a helper has got one. */
  #proven = false;
  #helperFailures = 0;
  #helpAgainAt = 0;

  constructor(room: Room, route: Route, key: BlobKey, sink: BlobSink, signal: AbortSignal) {
    this.#room = room;
    this.#route = route;
    this.#key = key;
    this.#sink = sink;
    this.#gaps = new Gaps(sink.held);
    this.#mostLanes = room.config.connections;
    if (signal.aborted) this.#stop.abort(signal.reason);
    else
      signal.addEventListener('abort', () => this.#stop.abort(signal.reason), {
        once: true,
        signal: this.#enough.signal,
      });
  }

  async run(): Promise<void> {
    const timer = setInterval(() => this.#consider(), CONSIDER_MS);
    try {
      do {
        // Helpers may have been the last to leave, and have left something.
        if (this.#lanes.size === 0) this.#start(false);
        await Promise.race(this.#lanes.values());
      } while (this.#lanes.size > 0 || (!this.#gaps.empty && !this.#stop.signal.aborted));
    } finally {
      clearInterval(timer);
      this.#enough.abort();
    }
    this.#stop.signal.throwIfAborted();
  }

  #start(helper: boolean): void {
    const lane: Lane = {
      helper,
      claim: new Claim([]),
      at: 0,
      end: 0,
      speed: new Speed(),
      written: 0,
      waiting: false,
      opened: false,
      lastAt: 0,
      held: false,
      leave: () => {},
      endpoint: null,
    };
    const work = this.#work(lane)
      .catch((error: unknown) => {
        if (!this.#stop.signal.aborted) this.#stop.abort(error);
      })
      .finally(() => {
        this.#lanes.delete(lane);
        if (this.#working() === 0) this.#enough.abort();
      });
    this.#lanes.set(lane, work);
  }

  /** Lanes that are not just waiting for a socket. */
  #working(): number {
    let count = 0;
    for (const lane of this.#lanes.keys()) if (!lane.waiting) count++;
    return count;
  }

  async #work(lane: Lane): Promise<void> {
    for (;;) {
      const release = await this.#socket(lane);
      // What is claimed now is fetched now: claiming before waiting would hold back the readers.
      if (release === null || !this.#claimNext(lane)) {
        release?.();
        return;
      }
      const before = lane.written;
      let error: unknown = null;
      try {
        await this.#fetch(lane);
      } catch (thrown) {
        error = thrown;
      } finally {
        release();
        for (const run of lane.claim.giveUp()) this.#gaps.give(run);
      }
      this.#stop.signal.throwIfAborted();
      if (error !== null && !(await this.#recover(lane, error, lane.written > before))) return;
      if (this.#working() > this.#mostLanes) return;
    }
  }

  /** Queues for a socket; null when there is nothing left to do with it. */
  async #socket(lane: Lane): Promise<Release | null> {
    lane.waiting = lane.helper;
    const host = lane.endpoint?.host ?? new URL(this.#route.endpoints[0] ?? 'https://none.invalid').host;
    const signal = lane.helper ? this.#enough.signal : this.#stop.signal;
    try {
      return await this.#room.sockets.acquire(lane.helper ? 'piece' : 'fill', host, signal);
    } catch (error) {
      if (!lane.helper) throw error;
      return null;
    } finally {
      lane.waiting = false;
    }
  }

  /** The lowest bytes that nobody fetches, else all that a stuck lane has left, else half of what the busiest one has still to do. */
  #claimNext(lane: Lane): boolean {
    const first = this.#gaps.takeFirst(this.#share());
    if (first !== null) {
      lane.claim = new Claim([first]);
      return true;
    }
    for (const other of this.#lanes.keys()) {
      if (other === lane || !isStuck(other)) continue;
      lane.claim = new Claim(other.claim.giveUp());
      other.leave();
      return true;
    }
    // Half of less than that is not worth the round trips.
    const least = Math.max(2 * PIECE_MIN, (this.#piece ?? 0) / 4);
    let busiest: Lane | undefined;
    for (const other of this.#lanes.keys()) {
      if (other !== lane && other.claim.bytes > (busiest?.claim.bytes ?? least)) busiest = other;
    }
    if (busiest === undefined || !Number.isFinite(busiest.claim.to)) return false;
    const middle = busiest.claim.to - Math.floor(busiest.claim.bytes / 2);
    lane.claim = new Claim(busiest.claim.cut(middle));
    return !lane.claim.done;
  }

  /** How much a lane takes at a time: all of it alone; else a piece, smaller towards the end so that all lanes end together. */
  #share(): number {
    if (this.#piece === null) return Number.POSITIVE_INFINITY;
    return Math.max(this.#piece / 4, Math.min(this.#piece, this.#gaps.bytes / (2 * this.#mostLanes)));
  }

  async #fetch(lane: Lane): Promise<void> {
    lane.opened = false;
    const answer = await this.#open(lane);
    if (answer === null) return;
    lane.opened = true;
    lane.held = false;
    lane.lastAt = performance.now();
    lane.leave = () => answer.body.destroy();
    lane.speed = new Speed();
    const before = lane.written;
    try {
      await pump(answer.body, {
        place: (chunk) => this.#place(lane, chunk),
        enough: () => lane.claim.done && lane.at < lane.end,
        waits: () => {
          lane.held = true;
        },
        waited: (ms) => {
          lane.held = false;
          lane.lastAt = performance.now();
          lane.speed.waited(ms);
        },
      });
      if (lane.end === Number.POSITIVE_INFINITY) this.#learn(lane.at);
      if (!lane.claim.done) throw Object.assign(new Error('the body ended short'), { code: 'UND_ERR_SOCKET' });
      if (lane.endpoint !== null) this.#room.endpoints.succeeded(this.#route, lane.endpoint);
    } catch (error) {
      // Another lane has taken over what was left here.
      if (error instanceof SinkError || !lane.claim.done) throw error;
    } finally {
      this.#room.metrics.bytes.inc({ registry: this.#route.host }, lane.written - before);
    }
  }

  /** Asks for a lane's claim, endpoint by endpoint; null where it turns out that there is nothing to fetch. */
  #open(lane: Lane): Promise<Answer | null> {
    const { endpoints, log } = this.#room;
    return overEndpoints(
      {
        route: this.#route,
        endpoints,
        log,
        signal: this.#stop.signal,
        candidates: () => this.#candidates(),
        judgedLater: true,
        ...(lane.helper ? { waits: [] } : {}),
      },
      async (endpoint) => {
        lane.endpoint = endpoint;
        const { from, to } = lane.claim;
        const whole = from === 0 && (to === Number.POSITIVE_INFINITY || to === this.#size);
        const range =
          whole || this.#rangeless.has(endpoint.href)
            ? null
            : { from, to: to === Number.POSITIVE_INFINITY ? undefined : to };
        const answer = await requestBlob(this.#room, this.#route, endpoint, this.#key, {
          method: 'GET',
          range,
          signal: this.#stop.signal,
          purpose: null,
        });
        try {
          return this.#judge(lane, answer, endpoint, range !== null) ? answer : null;
        } catch (error) {
          if (error instanceof Unexpected) throw await blobError(answer, endpoint);
          answer.body.on('error', () => {}).destroy();
          throw error;
        }
      },
    );
  }

  /** Endpoints in order, those that broke off before behind the others. */
  *#candidates(): Generator<URL> {
    const { endpoints } = this.#room;
    const left = [...endpoints.candidates(this.#route)];
    left.sort((a, b) => (this.#strikes.get(a.href) ?? 0) - (this.#strikes.get(b.href) ?? 0));
    try {
      for (let next = left.shift(); next !== undefined; next = left.shift()) yield next;
    } finally {
      for (const unasked of left) endpoints.released(this.#route, unasked);
    }
  }

  /** Whether an answer brings the claim; false where there is nothing to bring. Notes from which offset on it does. */
  #judge(lane: Lane, answer: Answer, endpoint: URL, ranged: boolean): boolean {
    if (answer.status === 206 && ranged) {
      plain(answer);
      // Another lane's stream arrived here first.
      if (lane.claim.done) {
        answer.body.on('error', () => {}).destroy();
        return false;
      }
      const got = parseContentRange(header(answer.headers, 'content-range'));
      if (got === null || got.from !== lane.claim.from) {
        throw new NonsenseError('a part of the blob that was not asked for');
      }
      this.#learn(got.size);
      lane.at = got.from;
      lane.end = got.to;
      if (lane.helper) {
        this.#proven = true;
        this.#room.punishments.succeeded(endpoint.host);
      }
      return true;
    }
    if (answer.status === 200) {
      plain(answer);
      if (ranged && lane.claim.from > 0) {
        this.#rangeless.add(endpoint.href);
        if (lane.helper) throw new NonsenseError('the whole blob instead of the part that was asked for');
      }
      const ranges = header(answer.headers, 'accept-ranges')?.trim().toLowerCase();
      if (ranges === 'none') this.#mostLanes = 1;
      if (ranges === 'bytes') this.#proven = true;
      const size = bytesOf(header(answer.headers, 'content-length'));
      this.#learn(size);
      lane.at = 0;
      lane.end = size ?? Number.POSITIVE_INFINITY;
      // It brings everything from the start anyway: take whatever is missing, skip what is held.
      if (lane.claim.from > 0) lane.claim.add(this.#gaps.takeAll());
      return true;
    }
    if (answer.status === 416 && ranged && sizeOf416(answer) === lane.claim.from) {
      // All of it was held already.
      this.#learn(lane.claim.from);
      discard(answer.body);
      return false;
    }
    throw new Unexpected();
  }

  /** An answer told the size. The digest is of one content: another size is another content. */
  #learn(size: number | undefined): void {
    if (size !== undefined && this.#size !== undefined && size !== this.#size) {
      throw new NonsenseError(`${size} bytes of a blob that has ${this.#size}`);
    }
    if (size !== undefined && this.#size === undefined) {
      this.#size = size;
      this.#gaps.trim(size);
      for (const lane of this.#lanes.keys()) lane.claim.cut(size);
    }
    if (this.#begun) return;
    this.#begun = true;
    try {
      this.#sink.begin(size);
    } catch (error) {
      throw new SinkError('the sink refuses the size', { cause: error });
    }
  }

  #place(lane: Lane, chunk: Uint8Array): Promise<unknown> {
    const start = lane.at;
    lane.at += chunk.length;
    lane.speed.add(chunk.length);
    lane.lastAt = performance.now();
    // The stream may go on into what nobody has claimed.
    const end = lane.claim.done ? start : lane.claim.to;
    if (end <= lane.at && end < lane.end) {
      const more = this.#gaps.takeAt(end, this.#share());
      lane.claim.add(more === null ? this.#takeUnopened(end) : [more]);
    }
    const wanted = lane.claim.arrived(start, lane.at);
    const [first] = wanted;
    if (wanted.length === 1 && first !== undefined) {
      lane.written += first.to - first.from;
      const all = first.from === start && first.to === lane.at;
      return this.#sink.write(first.from, all ? chunk : chunk.subarray(first.from - start, first.to - start));
    }
    return Promise.all(
      wanted.map(({ from, to }) => {
        lane.written += to - from;
        return this.#sink.write(from, chunk.subarray(from - start, to - start));
      }),
    );
  }

  /** What another lane has claimed from this offset on, but has had no answer for. */
  #takeUnopened(from: number): Extent[] {
    for (const lane of this.#lanes.keys()) {
      if (!lane.opened && !lane.claim.done && lane.claim.from === from) return lane.claim.giveUp();
    }
    return [];
  }

  /** What follows a failure: true to go on, false where this lane ends and others go on. @throws where the download ends. */
  async #recover(lane: Lane, error: unknown, progress: boolean): Promise<boolean> {
    if (error instanceof SinkError) throw error;
    const { endpoints, punishments, log, metrics } = this.#room;
    const { endpoint } = lane;
    metrics.resumptions.inc({ registry: this.#route.host });
    const facts = {
      registry: this.#route.host,
      digest: this.#key.digest satisfies Digest,
      at: lane.at,
      reason: reasonOf(error),
    };
    if (endpoint !== null && (!progress || isTimeout(error))) {
      this.#strikes.set(endpoint.href, (this.#strikes.get(endpoint.href) ?? 0) + 1);
      // What fails before the body was counted where the endpoints were asked.
      if (!progress && lane.opened) endpoints.failed(this.#route, endpoint, error);
    }
    if (lane.helper || this.#working() > 1) {
      log.debug(facts, 'a part of a download broke off');
      if (progress) return true;
      this.#helperFailures++;
      this.#helpAgainAt = performance.now() + BACKOFF_MS * 2 ** this.#helperFailures;
      const punished = endpoint !== null && lane.helper && punishments.failed(endpoint.host, error);
      if (punished || this.#rangeless.size > 0 || this.#helperFailures >= MAX_HELPER_FAILURES) this.#goOnAlone(facts);
      if (lane.helper) return false;
    }
    // Nothing was ever had: whoever asks is told now, in words, and may ask again.
    if (!this.#begun) throw error;
    this.#idle = progress ? 0 : this.#idle + 1;
    this.#refusals = !progress && isRefusal(error) ? this.#refusals + 1 : 0;
    if (this.#idle >= MAX_IDLE_ATTEMPTS || this.#refusals >= MAX_REFUSALS) throw error;
    const wait = this.#idle === 0 ? RESUME_MS : Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (this.#idle - 1));
    const asked = error instanceof StatusError ? Math.min(RETRY_AFTER_MAX_MS, (error.retryAfter ?? 0) * 1000) : 0;
    log.info({ ...facts, attempt: this.#idle }, 'a download broke off and goes on where it stopped');
    await sleep(Math.max(jitter(wait), asked), this.#stop.signal);
    return true;
  }

  #goOnAlone(facts: object): void {
    if (this.#mostLanes === 1) return;
    this.#mostLanes = 1;
    this.#piece = null;
    this.#room.log.info(facts, 'a download goes on over one connection');
  }

  /** Looks whether the transfer is slow, and sends help. */
  #consider(): void {
    if (this.#mostLanes <= 1 || this.#size === undefined || performance.now() < this.#helpAgainAt) return;
    const [lane] = this.#lanes.keys();
    const host = lane?.endpoint?.host;
    if (lane === undefined || host === undefined || !this.#room.punishments.allows(host)) return;
    if (this.#lanes.size === 1) {
      const rate = lane.speed.rate();
      const slow = rate !== null && isSlow(rate, this.#gaps.bytes + lane.claim.bytes);
      if (!slow && !(this.#proven && isStuck(lane))) return;
      if (rate !== null) {
        if (this.#piece === null) this.#room.metrics.parallel.inc({ registry: this.#route.host });
        this.#piece ??= pieceSize(rate);
        for (const run of lane.claim.cut(lane.claim.from + this.#piece)) this.#gaps.give(run);
      }
      this.#start(true);
    }
    // Where nothing is known one helper goes ahead to see whether ranges are honoured; the others follow.
    while (this.#proven && !this.#gaps.empty && this.#lanes.size < this.#mostLanes) this.#start(true);
    if (this.#proven && this.#lanes.size < this.#mostLanes && [...this.#lanes.keys()].some(isStuck)) this.#start(true);
  }
}

/** No byte for so long while others work is not waited out to the stall timeout: whoever has nothing to do takes over. */
const STUCK_MS = 3_000;

function isStuck(lane: Lane): boolean {
  return lane.opened && !lane.held && !lane.claim.done && performance.now() - lane.lastAt > STUCK_MS;
}

/** An answer that is a failure by its status. */
class Unexpected extends Error {}

function isRefusal(error: unknown): boolean {
  if (error instanceof StatusError) return error.status < 500 && error.status !== 429 && error.status !== 408;
  return error instanceof TokenRefusedError || error instanceof NonsenseError || error instanceof RedirectError;
}
