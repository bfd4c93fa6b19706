import { LRUCache } from 'lru-cache';
import { iso, jitter, sleep } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import { isEndpointFault, isTimeout, isWorthRetrying, reasonOf, SinkError, StatusError } from './failures.ts';
import type { EndpointHealth, Route } from './upstream.ts';

/** Failures in a row after which an endpoint is not asked for a while (its circuit opens). */
const OPEN_AFTER = 3;
/** For how long, doubling with each failed probe; short at first, since a registry that restarts is back in seconds. */
const OPEN_MS = 1_000;
const OPEN_MAX_MS = 30_000;
/** The longest `Retry-After` that is honoured in full. Docker Hub asks for hours, but one probe in ten minutes does it no harm. */
const RATE_LIMIT_MAX_MS = 10 * 60_000;

/** Endpoints with failures whose state is kept. */
const MAX_STATES = 4096;

/** Waits between rounds over all endpoints before a response has begun: clients wait 30 s for headers at most. */
const ROUND_WAITS_MS = [200, 800];
/** A `Retry-After` of no more than this is waited for within the request (public.ecr.aws allows one request a second). */
const SHORT_RETRY_AFTER_S = 2;

/** State of an endpoint that has failed. */
interface CircuitState {
  failures: number;
  /** Until when it is open (`performance.now()`); 0 while closed. */
  until: number;
  /** How often it has opened without a success in between. */
  openings: number;
  /** A request is under way to see whether it works again. */
  probing: boolean;
  lastError: string | null;
  /** The last failure was a timeout, so that trying it as a last resort would cost a client much time. */
  timedOut: boolean;
}

/** A circuit breaker for each endpoint of each registry: which may be asked, in which order. */
export class Endpoints {
  readonly #states = new LRUCache<string, CircuitState>({ max: MAX_STATES });
  readonly #random: () => number;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /**
   * Endpoints in the order to ask; the state of each is looked up when it is reached. First come those that are closed or due for a probe,
   * in the operator's order, then, as a last resort, the open ones: an endpoint that fails fast costs nothing to ask, and may work again by
   * now. One whose last failure was a timeout is left out.
   */
  *candidates(route: Route): Generator<URL> {
    const open: URL[] = [];
    for (const text of route.endpoints) {
      const endpoint = new URL(text);
      const state = this.#states.get(keyOf(route.host, endpoint.href));
      if (state === undefined || state.until === 0) yield endpoint;
      else if (state.until <= performance.now() && !state.probing) {
        state.probing = true;
        yield endpoint;
      } else if (!state.timedOut) open.push(endpoint);
    }
    yield* open;
  }

  /** The last failure of an endpoint, for the error that the client gets where all are left out. */
  lastError(route: Route): string {
    const errors = route.endpoints.map((text) => this.#states.get(keyOf(route.host, text))?.lastError);
    return errors.filter((error) => typeof error === 'string').at(-1) ?? 'no endpoint is known';
  }

  succeeded(route: Route, endpoint: URL): void {
    this.#states.delete(keyOf(route.host, endpoint.href));
  }

  /** Counts a failure if it is the endpoint's own fault; any other shows that the endpoint works. */
  failed(route: Route, endpoint: URL, error: unknown): void {
    if (!isEndpointFault(error)) {
      this.succeeded(route, endpoint);
      return;
    }
    const key = keyOf(route.host, endpoint.href);
    const state = this.#states.get(key) ?? {
      failures: 0,
      until: 0,
      openings: 0,
      probing: false,
      lastError: null,
      timedOut: false,
    };
    this.#states.set(key, state);
    state.failures++;
    state.lastError = reasonOf(error);
    state.timedOut = isTimeout(error);
    const limited = error instanceof StatusError && error.status === 429;
    if (state.failures < OPEN_AFTER && !limited) return;
    // It is open already: this request was sent before that.
    if (state.until > performance.now()) return;
    state.probing = false;
    const wait = jitter(Math.min(OPEN_MAX_MS, OPEN_MS * 2 ** state.openings++), 0.2, this.#random);
    const retryAfter = limited ? Math.min(RATE_LIMIT_MAX_MS, (error.retryAfter ?? 0) * 1000) : 0;
    state.until = performance.now() + Math.max(wait, retryAfter);
  }

  /** A probe was abandoned without a result, so that the next request may probe. */
  released(route: Route, endpoint: URL): void {
    const state = this.#states.get(keyOf(route.host, endpoint.href));
    if (state !== undefined) state.probing = false;
  }

  health(route: Route): EndpointHealth[] {
    const now = performance.now();
    return route.endpoints.map((url) => {
      const state = this.#states.peek(keyOf(route.host, url));
      const open = state !== undefined && state.until > 0;
      return {
        url,
        state: !open ? 'closed' : state.until > now ? 'open' : 'half-open',
        failures: state?.failures ?? 0,
        lastError: state?.lastError ?? null,
        retryAt: open ? iso(Date.now() + state.until - now) : null,
      };
    });
  }
}

function keyOf(registry: string, endpoint: string): string {
  return `${registry} ${new URL(endpoint).href}`;
}

/** What `tryEndpoints` needs. */
export interface FailoverOptions {
  readonly route: Route;
  readonly endpoints: Endpoints;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Another order than `Endpoints.candidates`. */
  readonly candidates?: () => Iterable<URL>;
  /** Milliseconds between rounds, in place of the usual ones. */
  readonly waits?: readonly number[];
  /** The caller reports success itself, once it has read the body. */
  readonly reportsSuccess?: boolean;
}

/** Every endpoint is open after a timeout. */
class AllOpenError extends Error {
  override readonly name = 'AllOpenError';
  readonly code = 'ETIMEDOUT';
}

/**
 * Tries a registry's endpoints in turn until an attempt succeeds. After a 404, which may mean "not mirrored here", the next one is tried too;
 * the failure of the last endpoint is what is thrown. Short network failures are tried again, in further rounds.
 */
export async function tryEndpoints<T>(
  { route, endpoints, log, signal, ...options }: FailoverOptions,
  attempt: (endpoint: URL) => Promise<T>,
): Promise<T> {
  const waits = options.waits ?? ROUND_WAITS_MS;
  for (let round = 0; ; round++) {
    let last: unknown = new AllOpenError(`no endpoint answered in time: ${endpoints.lastError(route)}`);
    let again = false;
    for (const endpoint of options.candidates?.() ?? endpoints.candidates(route)) {
      try {
        signal.throwIfAborted();
        const result = await attempt(endpoint);
        if (options.reportsSuccess !== true) endpoints.succeeded(route, endpoint);
        return result;
      } catch (error) {
        if (signal.aborted) {
          endpoints.released(route, endpoint);
          throw signal.reason;
        }
        if (error instanceof SinkError) throw error;
        endpoints.failed(route, endpoint, error);
        log.debug(
          { registry: route.host, endpoint: endpoint.host, round, reason: reasonOf(error) },
          'an endpoint failed',
        );
        last = error;
        again = isWorthRetrying(error) || waitsBriefly(error);
      }
    }
    const wait = waits[round];
    if (wait === undefined || !again) throw last;
    await sleep(waitsBriefly(last) ? (last.retryAfter ?? 0) * 1000 : jitter(wait), signal);
  }
}

function waitsBriefly(error: unknown): error is StatusError {
  if (!(error instanceof StatusError) || ![429, 503].includes(error.status)) return false;
  return error.retryAfter !== undefined && error.retryAfter <= SHORT_RETRY_AFTER_S;
}
