import { LRUCache } from 'lru-cache';
import { unlessAborted } from '../kit/async.ts';
import { iso, jitter, sleep } from '../kit/time.ts';
import { forRepository } from '../oci/credentials.ts';
import { isPattern } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import {
  isBusy,
  isFault,
  isOutOfReach,
  isTimeout,
  isWorthRetrying,
  reasonOf,
  SinkError,
  StatusError,
} from './failures.ts';
import { type EndpointHealth, type Route, rowOf, type Wellbeing } from './upstream.ts';
import { verdict } from './verdict.ts';

/** Failures to connect in a row after which an endpoint counts as out of reach; a connection that did not come about in time is proof enough alone. */
const OPEN_AFTER = 3;
/** Repositories in a row that failed at an endpoint after which other endpoints are asked first for every repository. */
const DEMOTE_AFTER = 3;
/** For how long an endpoint that fails is not tried by itself while others serve; doubles with each failure. Short at first: a restart takes seconds. */
const PAUSE_MS = 1_000;
const PAUSE_MAX_MS = 30_000;
/** How long the others go on without it while one request tries whether it works again. */
const TRIAL_MS = 30_000;

/** Endpoints, and repositories at endpoints, whose state is kept. */
const MAX_STATES = 4096;
const MAX_PATHS = 16_384;
/** For how long what was seen of an endpoint says how it is. */
const SEEN_COUNTS_MS = 15 * 60_000;
/** Repositories that failed lately, as `registry show` lists them. */
const SHOWN_PATHS = 5;

/** Waits between rounds over all endpoints before a response has begun: clients wait 30 s for headers at most. */
const ROUND_WAITS_MS = [200, 800];
/** A `Retry-After` of no more than this is waited for within the request (public.ecr.aws allows one request a second). */
const SHORT_RETRY_AFTER_S = 2;

/** How often something failed, and since when it is left alone. Times are `performance.now()`. */
interface Failing {
  failures: number;
  /** Until when others are preferred. */
  until: number;
}

interface EndpointState extends Failing {
  readonly registry: string;
  /** It cannot be connected to: a request joins the next attempt to do so, or makes it. */
  open: boolean;
  lastError: string;
  /** The attempt to connect that is under way. */
  probe: Promise<void> | null;
}

interface PathState extends Failing {
  readonly key: string;
  readonly repository: string;
  reason: string;
  at: number;
}

export interface EndpointsOptions {
  /** Tries to connect, and closes the connection. @throws {ConnectError} */
  readonly connect: (endpoint: URL, route: Route) => Promise<void>;
  readonly random?: () => number;
}

/**
 * What is known of the endpoints of every registry: which cannot be connected to (a circuit breaker), and which fail for which repository; what
 * they allow is known to `Budgets`. A repository that is slow or fails counts for itself: it changes the order in which endpoints are asked
 * for it, and nothing else.
 */
export class Endpoints {
  readonly #options: Required<EndpointsOptions>;
  readonly #states = new LRUCache<string, EndpointState>({ max: MAX_STATES });
  readonly #paths = new LRUCache<string, PathState>({ max: MAX_PATHS });
  /** Repositories in a row that failed at an endpoint. */
  readonly #failedInARow = new LRUCache<string, Failing & { readonly repositories: Set<string> }>({ max: MAX_STATES });
  /** When an endpoint last answered. */
  readonly #answers = new LRUCache<string, number>({ max: MAX_STATES });

  constructor(options: EndpointsOptions) {
    this.#options = { random: Math.random, ...options };
  }

  /**
   * Endpoints in the order to ask: the operator's, but those that lately failed for the repository after the others, and those that could not
   * be connected to at the end. Of those that have been left alone for a while, one request tries each again.
   */
  candidates(route: Route, repository: string): URL[] {
    const ranked = route.endpoints.map((text) => {
      const endpoint = new URL(text);
      return { endpoint, rank: this.#rank(route, endpoint, repository) };
    });
    const best = Math.min(...ranked.map(({ rank }) => rank));
    for (const { endpoint, rank } of ranked) {
      // Otherwise it would be asked only where all others fail.
      if (rank === 2 && best < 2) this.#probeInBackground(route, endpoint);
    }
    return ranked.sort((a, b) => a.rank - b.rank).map(({ endpoint }) => endpoint);
  }

  #rank(route: Route, endpoint: URL, repository: string): 0 | 1 | 2 {
    if (this.#states.get(keyOf(route, endpoint))?.open === true) return 2;
    if (route.endpoints.length === 1) return 0;
    const row = this.#failedInARow.get(keyOf(route, endpoint));
    if (row !== undefined && row.failures >= DEMOTE_AFTER && isLeftAlone(row)) return 1;
    const path = this.#paths.get(pathKey(route, endpoint, repository));
    return path !== undefined && isLeftAlone(path) ? 1 : 0;
  }

  /**
   * To be called before an endpoint is asked. Where it could not be connected to, waits for the attempt that is under way, or makes it.
   * @throws {ConnectError} where it still cannot be connected to
   */
  async admit(route: Route, endpoint: URL, signal: AbortSignal): Promise<void> {
    const state = this.#states.get(keyOf(route, endpoint));
    if (state?.open === true) await unlessAborted(this.#probe(state, route, endpoint), signal);
  }

  /** Whether every endpoint of a registry could not be connected to when it was last tried. */
  areOutOfReach(route: Route): boolean {
    return (
      this.#states.size > 0 &&
      route.endpoints.every((text) => this.#states.peek(keyOf(route, new URL(text)))?.open === true)
    );
  }

  /** How many endpoints of which registry could not be connected to when they were last tried. */
  outOfReach(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const { registry, open } of this.#states.values())
      if (open) counts.set(registry, (counts.get(registry) ?? 0) + 1);
    return counts;
  }

  /**
   * Whether an endpoint of a row of the table is asked after others, or cannot be connected to. Of a pattern: whether that is so of any host that
   * matches it, since the endpoints of all of them are one line of the row.
   */
  isSetAside(row: Route, endpoint: string): boolean {
    if (isPattern(row.host)) {
      for (const { registry, open } of this.#states.values()) if (open && registry === row.host) return true;
      return false;
    }
    const key = keyOf(row, new URL(endpoint));
    if (this.#states.peek(key)?.open === true) return true;
    const failed = this.#failedInARow.peek(key);
    return failed !== undefined && failed.failures >= DEMOTE_AFTER && failed.until > performance.now();
  }

  /** A request was answered as it should be. */
  succeeded(route: Route, endpoint: URL, repository: string): void {
    this.#answered(route, endpoint);
    this.#failedInARow.delete(keyOf(route, endpoint));
    this.#paths.delete(pathKey(route, endpoint, repository));
  }

  /** Takes note of a failure where it was: that no connection came about for the endpoint, anything else for the repository. */
  failed(route: Route, endpoint: URL, repository: string, error: unknown): void {
    if (error instanceof StatusError && error.status === 429) {
      // What it allows is no fault of it.
      if (!error.withheld) this.#answered(route, endpoint);
      return;
    }
    if (isOutOfReach(error)) {
      this.#couldNotConnect(route, endpoint, error);
      return;
    }
    if (!isFault(error)) {
      this.succeeded(route, endpoint, repository);
      return;
    }
    this.#answered(route, endpoint);
    const key = pathKey(route, endpoint, repository);
    const path = this.#paths.get(key) ?? { failures: 0, until: 0, key, repository, reason: '', at: 0 };
    path.reason = reasonOf(error);
    path.at = performance.now();
    this.#pause(path);
    this.#paths.set(key, path);
    const row = this.#failedInARow.get(keyOf(route, endpoint)) ?? { failures: 0, until: 0, repositories: new Set() };
    if (row.repositories.size < DEMOTE_AFTER) row.repositories.add(repository);
    row.failures = row.repositories.size;
    if (row.failures >= DEMOTE_AFTER) row.until = path.at + this.#jittered(PAUSE_MAX_MS);
    this.#failedInARow.set(keyOf(route, endpoint), row);
  }

  health(route: Route): EndpointHealth[] {
    const now = performance.now();
    return route.endpoints.map((text) => {
      const endpoint = new URL(text);
      const state = this.#states.peek(keyOf(route, endpoint));
      const failing = [...this.#paths.values()]
        .filter(({ repository, key }) => key === pathKey(forRepository(route, repository), endpoint, repository))
        .sort((a, b) => b.at - a.at)
        .slice(0, SHOWN_PATHS)
        .map(({ repository, reason, at }) => ({ repository, reason, at: iso(Date.now() + at - now) }));
      const open = state?.open === true;
      const [latest] = failing;
      return {
        url: text,
        state: !open ? 'closed' : state.probe === null ? 'open' : 'half-open',
        failures: state?.failures ?? 0,
        lastError: state?.lastError ?? (latest === undefined ? null : `${latest.repository}: ${latest.reason}`),
        retryAt: open ? iso(Date.now() + Math.max(0, state.until - now)) : null,
        failing,
      };
    });
  }

  wellbeing(route: Route): Wellbeing {
    const since = performance.now() - SEEN_COUNTS_MS;
    const states = route.endpoints.map((text): Wellbeing => {
      const key = keyOf(route, new URL(text));
      const state = this.#states.peek(key);
      if (state !== undefined && state.until > since) return state.open ? 'down' : 'partly';
      if (state !== undefined || (this.#answers.peek(key) ?? -Infinity) < since) return 'unknown';
      const failures = this.#failedInARow.peek(key)?.failures ?? 0;
      return failures >= DEMOTE_AFTER ? 'down' : failures > 0 ? 'partly' : 'well';
    });
    if (states.every((state) => state === 'down')) return 'down';
    if (states.some((state) => state === 'down' || state === 'partly')) return 'partly';
    return states.includes('well') ? 'well' : 'unknown';
  }

  /** It has answered, whatever the answer was: it can be connected to. */
  #answered(route: Route, endpoint: URL): void {
    const key = keyOf(route, endpoint);
    this.#answers.set(key, performance.now());
    this.#states.delete(key);
  }

  #couldNotConnect(route: Route, endpoint: URL, error: unknown): void {
    const key = keyOf(route, endpoint);
    const registry = rowOf(route);
    const state = this.#states.get(key) ?? { registry, failures: 0, until: 0, open: false, lastError: '', probe: null };
    this.#states.set(key, state);
    state.lastError = reasonOf(error);
    this.#pause(state);
    state.open ||= state.failures >= OPEN_AFTER || isTimeout(error);
  }

  /** One attempt to connect for all who ask meanwhile. */
  #probe(state: EndpointState, route: Route, endpoint: URL): Promise<void> {
    state.probe ??= this.#options.connect(endpoint, route).then(
      () => {
        state.probe = null;
        this.#answered(route, endpoint);
      },
      (error: unknown) => {
        state.probe = null;
        state.lastError = reasonOf(error);
        this.#pause(state);
        throw error;
      },
    );
    return state.probe;
  }

  #probeInBackground(route: Route, endpoint: URL): void {
    const state = this.#states.get(keyOf(route, endpoint));
    if (state === undefined || state.probe !== null || state.until > performance.now()) return;
    this.#probe(state, route, endpoint).catch(() => {
      // It is noted in the state.
    });
  }

  #pause(failing: Failing): void {
    const pause = Math.min(PAUSE_MAX_MS, PAUSE_MS * 2 ** Math.min(16, failing.failures++));
    failing.until = performance.now() + this.#jittered(pause);
  }

  #jittered(ms: number): number {
    return jitter(ms, 0.2, this.#options.random);
  }
}

/** Whether others go first; where the pause is over, the one who asks tries it, and the others go on without it meanwhile. */
function isLeftAlone(failing: Failing): boolean {
  const now = performance.now();
  if (failing.until > now) return true;
  failing.until = now + TRIAL_MS;
  return false;
}

/** What can be connected to does not depend on the path of an endpoint, but on the proxy between. */
function keyOf({ host, proxy }: Route, endpoint: URL): string {
  return `${host} ${endpoint.origin} ${proxy ?? ''}`;
}

/** With other credentials an endpoint may answer otherwise. */
function pathKey(route: Route, endpoint: URL, what: string): string {
  return `${keyOf(route, endpoint)}${endpoint.pathname} ${route.credentials?.username ?? ''} ${what}`;
}

/** What `tryEndpoints` needs. */
export interface FailoverOptions {
  readonly route: Route;
  readonly repository: string;
  readonly endpoints: Endpoints;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Whether a failure ends it, whatever other endpoints might answer; default: none does. */
  readonly isFinal?: (error: unknown) => boolean;
  /** Another order than `Endpoints.candidates`. */
  readonly candidates?: () => Iterable<URL>;
  /** Milliseconds between rounds, in place of the usual ones. */
  readonly waits?: readonly number[];
  /** The caller reports success itself, once it has read the body. */
  readonly reportsSuccess?: boolean;
}

/**
 * Tries a registry's endpoints in turn until an attempt succeeds, those whose failure may be short again in further rounds. A 404 may mean "not
 * mirrored here", so that the next one is asked too.
 * @throws the {@link verdict} on all their answers
 */
export async function tryEndpoints<T>(
  { route, repository, endpoints, log, signal, ...options }: FailoverOptions,
  attempt: (endpoint: URL) => Promise<T>,
): Promise<T> {
  const waits = options.waits ?? ROUND_WAITS_MS;
  const failures = new Map<string, unknown>();
  for (let round = 0; ; round++) {
    for (const endpoint of options.candidates?.() ?? endpoints.candidates(route, repository)) {
      // What it said before stands.
      if (failures.has(endpoint.href) && !mayPass(failures.get(endpoint.href))) continue;
      try {
        signal.throwIfAborted();
        await endpoints.admit(route, endpoint, signal);
        const result = await attempt(endpoint);
        if (options.reportsSuccess !== true) endpoints.succeeded(route, endpoint, repository);
        return result;
      } catch (error) {
        if (signal.aborted) {
          if (isTimeout(signal.reason)) endpoints.failed(route, endpoint, repository, signal.reason);
          throw signal.reason;
        }
        if (error instanceof SinkError || isBusy(error) || options.isFinal?.(error) === true) throw error;
        endpoints.failed(route, endpoint, repository, error);
        log.debug(
          { registry: route.host, endpoint: endpoint.host, repository, round, reason: reasonOf(error) },
          'an endpoint failed',
        );
        failures.set(endpoint.href, error);
      }
    }
    const all = [...failures.values()];
    const wait = waits[round];
    if (wait === undefined || !all.some(mayPass)) throw verdict(all);
    const asked = Math.max(...all.map((error) => (waitsBriefly(error) ? (error.retryAfter ?? 0) * 1000 : 0)));
    await sleep(Math.max(asked, jitter(wait)), signal);
  }
}

function mayPass(error: unknown): boolean {
  return isWorthRetrying(error) || waitsBriefly(error);
}

function waitsBriefly(error: unknown): error is StatusError {
  if (!(error instanceof StatusError) || ![429, 503].includes(error.status)) return false;
  return error.retryAfter !== undefined && error.retryAfter <= SHORT_RETRY_AFTER_S;
}
