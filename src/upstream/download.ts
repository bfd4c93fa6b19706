import { sleep } from '../kit/time.ts';
import type { Digest } from '../oci/digest.ts';
import type { BlobKey, BlobSink } from '../oci/transfer.ts';
import { blobError, requestBlob } from './blobs.ts';
import type { Release } from './budget.ts';
import { Division } from './division.ts';
import { overEndpoints } from './failover.ts';
import { isTimeout, NonsenseError, reasonOf } from './failures.ts';
import { cutOff } from './headers.ts';
import { Help } from './help.ts';
import { Lane } from './lane.ts';
import { type Part, readPart } from './part.ts';
import { pump, SinkError } from './pump.ts';
import type { Answer } from './request.ts';
import type { Room } from './room.ts';
import { Setbacks } from './setbacks.ts';
import type { Route } from './upstream.ts';

/** How often it is considered whether more connections would help. */
const CONSIDER_MS = 100;

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

class Download {
  readonly #room: Room;
  readonly #route: Route;
  readonly #key: BlobKey;
  readonly #sink: BlobSink;
  readonly #lanes = new Map<Lane, Promise<void>>();
  readonly #division: Division;
  readonly #help: Help;
  readonly #setbacks = new Setbacks();
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

  constructor(room: Room, route: Route, key: BlobKey, sink: BlobSink, signal: AbortSignal) {
    this.#room = room;
    this.#route = route;
    this.#key = key;
    this.#sink = sink;
    this.#division = new Division(sink.held, () => this.#lanes.keys(), room.config.connections);
    this.#help = new Help(room, route.host, this.#division);
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
      } while (this.#lanes.size > 0 || (!this.#division.taken && !this.#stop.signal.aborted));
    } finally {
      clearInterval(timer);
      this.#enough.abort();
    }
    this.#stop.signal.throwIfAborted();
  }

  #consider(): void {
    if (this.#size !== undefined) this.#help.consider(this.#lanes, () => this.#start(true));
  }

  #start(helper: boolean): void {
    const lane = new Lane(helper);
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
      if (release === null || !this.#division.claimNext(lane)) {
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
        this.#division.giveUp(lane);
        // A probe whose download ended for another reason has told nothing: the next one may try.
        if (lane.endpoint !== null) this.#room.endpoints.released(this.#route, lane.endpoint);
      }
      this.#stop.signal.throwIfAborted();
      if (error !== null && !(await this.#recover(lane, error, lane.written - before))) return;
      if (this.#working() > this.#division.mostLanes) return;
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

  async #fetch(lane: Lane): Promise<void> {
    lane.opened = false;
    const answer = await this.#open(lane);
    if (answer === null) return;
    lane.open(() => answer.body.destroy());
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
          // Another lane's stream arrived here first.
          const part = lane.claim.done ? 'late' : readPart(answer, range === null ? null : from);
          if (part === null) throw await blobError(answer, endpoint);
          if (part !== 'late' && this.#accept(lane, part, endpoint, range !== null)) return answer;
          cutOff(answer.body);
          endpoints.released(this.#route, endpoint);
          return null;
        } catch (error) {
          cutOff(answer.body);
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

  /** Notes from which offset on an answer brings the claim; false where there is nothing to bring. */
  #accept(lane: Lane, part: Part, endpoint: URL, ranged: boolean): boolean {
    this.#learn(part.size);
    // All of it was held already.
    if (part.kind === 'end') return false;
    if (part.kind === 'part') {
      lane.at = part.from;
      lane.end = part.to;
      if (!lane.helper) return true;
      this.#help.proven = true;
      this.#room.punishments.succeeded(endpoint.host);
      return true;
    }
    const { claim } = lane;
    if (ranged && claim.from > 0) {
      this.#rangeless.add(endpoint.href);
      if (lane.helper) throw new NonsenseError('the whole blob instead of the part that was asked for');
    }
    if (part.ranges === false) this.#division.mostLanes = 1;
    if (part.ranges === true) this.#help.proven = true;
    lane.at = 0;
    lane.end = part.size ?? Number.POSITIVE_INFINITY;
    // It brings everything from the start anyway: take whatever is missing, skip what is held.
    if (claim.from > 0) this.#division.takeAll(lane);
    return true;
  }

  /** An answer told the size. The digest is of one content: another size is another content. */
  #learn(size: number | undefined): void {
    if (size !== undefined && this.#size !== undefined && size !== this.#size) {
      throw new NonsenseError(`${size} bytes of a blob that has ${this.#size}`);
    }
    if (size !== undefined && this.#size === undefined) {
      this.#size = size;
      this.#division.trim(size);
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
    const start = lane.advance(chunk.length);
    // The stream may go on into what nobody has claimed.
    const end = lane.claim.done ? start : lane.claim.to;
    if (end <= lane.at && end < lane.end) this.#division.extend(lane, end);
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

  /** What follows a failure: true to go on, false where this lane ends and others go on. @throws where the download ends. */
  async #recover(lane: Lane, error: unknown, brought: number): Promise<boolean> {
    if (error instanceof SinkError) throw error;
    const { endpoints, log, metrics } = this.#room;
    const { endpoint } = lane;
    const progress = brought > 0;
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
    const alone = !lane.helper && this.#working() === 1;
    if (!alone && !progress) {
      this.#help.failed(lane, error, this.#rangeless.size > 0, facts);
      if (lane.helper) return false;
    }
    // Nothing was ever had: whoever asks is told now, in words, and may ask again.
    if (!this.#begun) throw error;
    const wait = this.#setbacks.after(error, brought);
    if (wait === null) throw error;
    log[alone ? 'info' : 'debug'](
      { ...facts, attempt: this.#setbacks.idle },
      'a download broke off and goes on where it stopped',
    );
    if (wait > 0) await sleep(wait, this.#stop.signal);
    return true;
  }
}
