import { jitter } from '../kit/jitter.ts';
import { sleep } from '../kit/sleep.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Endpoints } from './endpoints.ts';
import { isWorthRetrying, reasonOf, StatusError } from './failures.ts';
import type { Route } from './upstream.ts';

/** Waits between rounds over all endpoints, for what is asked before the first byte: clients wait 30 s for headers at most. */
const ROUND_WAITS_MS = [200, 800];
/** A registry that asks for no more than this is waited for here (public.ecr.aws: one request a second). */
const SHORT_RETRY_AFTER_S = 2;

/** Every endpoint is left alone for now, because it did not answer in time. */
export class AllOpenError extends Error {
  override readonly name = 'AllOpenError';
  readonly code = 'ETIMEDOUT';
}

/**
 * Asks a registry's endpoints in turn until one gives an answer. A 404 may mean "not mirrored here", so the next is asked too; the answer of the last
 * endpoint is the registry's. Short network failures are tried again.
 */
export async function overEndpoints<T>(
  route: Route,
  endpoints: Endpoints,
  log: Logger,
  signal: AbortSignal,
  attempt: (endpoint: URL) => Promise<T>,
): Promise<T> {
  for (let round = 0; ; round++) {
    let last: unknown = new AllOpenError(`no endpoint answered in time: ${endpoints.lastError(route)}`);
    let again = false;
    for (const endpoint of endpoints.candidates(route)) {
      try {
        signal.throwIfAborted();
        const result = await attempt(endpoint);
        endpoints.succeeded(route, endpoint);
        return result;
      } catch (error) {
        if (signal.aborted) {
          endpoints.released(route, endpoint);
          throw signal.reason;
        }
        endpoints.failed(route, endpoint, error);
        log.debug(
          { registry: route.host, endpoint: endpoint.host, round, reason: reasonOf(error) },
          'an endpoint failed',
        );
        last = error;
        again = isWorthRetrying(error) || waitsBriefly(error);
      }
    }
    const wait = ROUND_WAITS_MS[round];
    if (wait === undefined || !again) throw last;
    await sleep(waitsBriefly(last) ? (last.retryAfter ?? 0) * 1000 : jitter(wait), signal);
  }
}

function waitsBriefly(error: unknown): error is StatusError {
  if (!(error instanceof StatusError) || ![429, 503].includes(error.status)) return false;
  return error.retryAfter !== undefined && error.retryAfter <= SHORT_RETRY_AFTER_S;
}
