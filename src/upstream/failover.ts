import { jitter, sleep } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Endpoints } from './endpoints.ts';
import { isWorthRetrying, reasonOf, StatusError } from './failures.ts';
import { SinkError } from './pump.ts';
import type { Route } from './upstream.ts';

/** Waits between rounds over all endpoints, for what is asked before the first byte: clients wait 30 s for headers at most. */
const ROUND_WAITS_MS = [200, 800];
/** A registry that asks for no more than this is waited for here (public.ecr.aws: one request a second). */
const SHORT_RETRY_AFTER_S = 2;

export interface FailoverOptions {
  readonly route: Route;
  readonly endpoints: Endpoints;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Another order than the configured one, and other waits between rounds than the usual. */
  readonly candidates?: () => Iterable<URL>;
  readonly waits?: readonly number[];
  /** The caller says itself whether the endpoint did well, when it has seen the body. */
  readonly judgedLater?: boolean;
}

/** Every endpoint is left alone for now, because it did not answer in time. */
class AllOpenError extends Error {
  override readonly name = 'AllOpenError';
  readonly code = 'ETIMEDOUT';
}

/**
 * Asks a registry's endpoints in turn until one gives an answer. A 404 may mean "not mirrored here", so the next is asked too; the answer of the last
 * endpoint is the registry's. Short network failures are tried again.
 */
export async function overEndpoints<T>(
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
        if (options.judgedLater !== true) endpoints.succeeded(route, endpoint);
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
