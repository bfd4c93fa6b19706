import { jitter } from '../kit/time.ts';
import { isEndpointFault, isTimeout, reasonOf, StatusError } from './failures.ts';
import type { EndpointHealth, Route } from './upstream.ts';

/** Failures in a row after which an endpoint is left alone for a while. */
const OPEN_AFTER = 3;
/** How long, doubling with each failed probe; short at first, since a registry that restarts is back in seconds. */
const OPEN_MS = 1_000;
const OPEN_MAX_MS = 30_000;
/** A registry may ask for hours (Docker Hub); another endpoint serves meanwhile, and one probe in a while does no harm. */
const RATE_LIMIT_MAX_MS = 10 * 60_000;

interface State {
  failures: number;
  /** Until when it is open (performance.now()); 0 while closed. */
  until: number;
  openings: number;
  probing: boolean;
  lastError: string | null;
  /** Each request to it takes long to fail: it is not tried as a last resort. */
  slow: boolean;
}

/** A circuit breaker for each endpoint of each registry: which to ask, in which order. */
export class Endpoints {
  readonly #states = new Map<string, State>();
  readonly #random: () => number;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /**
   * Endpoints in the order to ask, decided as each is reached. First those that are healthy or due for a probe, as the operator listed them.
   * Then, as a last resort, the open ones: an endpoint that fails fast costs nothing to ask, and may just have come back. One that only
   * times out is left out.
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
      } else if (!state.slow) open.push(endpoint);
    }
    yield* open;
  }

  /** Why an endpoint that is left out is left out, for the error that the client gets. */
  lastError(route: Route): string {
    const errors = route.endpoints.map((text) => this.#states.get(keyOf(route.host, text))?.lastError);
    return errors.filter((error) => typeof error === 'string').at(-1) ?? 'no endpoint is known';
  }

  succeeded(route: Route, endpoint: URL): void {
    this.#states.delete(keyOf(route.host, endpoint.href));
  }

  /** Counts a failure if it is the endpoint's own fault; anything else shows that it lives. */
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
      slow: false,
    };
    this.#states.set(key, state);
    state.failures++;
    state.lastError = reasonOf(error);
    state.slow = isTimeout(error);
    const limited = error instanceof StatusError && error.status === 429;
    if (state.failures < OPEN_AFTER && !limited) return;
    // Requests that were under way when it opened say nothing new.
    if (state.until > performance.now()) return;
    state.probing = false;
    const wait = jitter(Math.min(OPEN_MAX_MS, OPEN_MS * 2 ** state.openings++), 0.2, this.#random);
    const asked = limited ? Math.min(RATE_LIMIT_MAX_MS, (error.retryAfter ?? 0) * 1000) : 0;
    state.until = performance.now() + Math.max(wait, asked);
  }

  /** A probe ended without an answer, because whoever asked left: the next one may try. */
  released(route: Route, endpoint: URL): void {
    const state = this.#states.get(keyOf(route.host, endpoint.href));
    if (state !== undefined) state.probing = false;
  }

  health(route: Route): EndpointHealth[] {
    const now = performance.now();
    return route.endpoints.map((url) => {
      const state = this.#states.get(keyOf(route.host, url));
      const open = state !== undefined && state.until > 0;
      return {
        url,
        state: !open ? 'closed' : state.until > now ? 'open' : 'half-open',
        failures: state?.failures ?? 0,
        lastError: state?.lastError ?? null,
        retryAt: open ? new Date(Date.now() + state.until - now).toISOString() : null,
      };
    });
  }
}

function keyOf(registry: string, endpoint: string): string {
  return `${registry} ${new URL(endpoint).href}`;
}
