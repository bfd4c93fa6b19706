import type { AcquireOptions } from '../kit/fair-pool.ts';
import { isTimeout } from './failures.ts';
import type { OutgoingConnections, RawRequest, RawResponse } from './net/connections.ts';
import type { Pools, Purpose } from './pools.ts';
import type { RequestMetrics } from './request-metrics.ts';
import { cutOff } from './responses.ts';

/**
 * For how long an answer is waited for before the same is asked once more beside it (a hedged request), ms. Some registries lose a request now and then, and answer
 * the next one at once. Slow links answer later than this too, so that the first goes on.
 */
const HEDGE_AFTER_MS = 10_000;
/** Within a body that broke off: the registry has answered before, and a client waits in the middle of its blob. */
export const RESUMING_HEDGE_MS = 3_000;
/** For how long the one beside is waited for before it is renewed, ms: a registry that was silent for a while and is well again answers soon. */
const RENEW_MS = 3_000;

/** What a request holds while it is on the way. */
export interface ExchangeOptions {
  readonly connections: OutgoingConnections;
  readonly pools: Pools;
  /** The row of the table whose share of the connections it uses. */
  readonly registry: string;
  /** The class in which a connection is acquired; null where the caller holds one. */
  readonly purpose: Purpose | null;
  readonly holder: AcquireOptions;
  /** Counts how it went. */
  readonly counted: RequestMetrics;
  /** Default: {@link HEDGE_AFTER_MS}. */
  readonly hedgeAfter?: number | undefined;
  /** Whether it may be sent once more beside now; default: always. */
  readonly mayHedge?: (() => boolean) | undefined;
}

/**
 * Sends one request and waits until its answer begins, hedged: see {@link askHedged}. Its permit is given back when the body is closed.
 * @throws {ConnectError} where no connection comes about; {RegistryError} gatewayBusy where none is to be had
 */
export async function exchange(
  url: URL,
  request: RawRequest,
  {
    connections,
    pools,
    registry,
    purpose,
    holder,
    counted,
    hedgeAfter = HEDGE_AFTER_MS,
    mayHedge = () => true,
  }: ExchangeOptions,
): Promise<RawResponse> {
  const { signal, stallTimeout, where } = request;
  const release = purpose === null ? () => {} : await pools.acquire(purpose, registry, signal, holder);
  const start = performance.now();
  const asked = askHedged({ signal, stallTimeout, hedgeAfter, mayHedge }, async (own, isFirst) => {
    // The caller's permit, if any, is that of the first.
    const done = isFirst ? release : await pools.acquire(purpose ?? 'segment', registry, own, holder);
    try {
      const response = await connections.request(url, { ...request, signal: own });
      response.body.once('close', done);
      return response;
    } catch (error) {
      done();
      throw error;
    }
  });
  try {
    const response = await asked;
    counted.answered(registry, where, response, performance.now() - start);
    return response;
  } catch (error) {
    // That nobody waits for it any more is no failure of the registry.
    if (!signal.aborted) counted.failed(registry, where, error, performance.now() - start);
    throw error;
  }
}

interface HedgeOptions {
  readonly signal: AbortSignal;
  readonly hedgeAfter: number;
  readonly mayHedge: () => boolean;
  /** The longest that the first request waits for an answer to begin, ms. */
  readonly stallTimeout: number;
}

/**
 * Sends a request, and where no answer begins for long, the same once more beside, and that again and again until the first one's stall timeout:
 * whichever is answered is used. One beside that is under way when the first gives up has its time, too.
 */
function askHedged(
  { signal, hedgeAfter, mayHedge, stallTimeout }: HedgeOptions,
  send: (signal: AbortSignal, isFirst: boolean) => Promise<RawResponse>,
): Promise<RawResponse> {
  return new Promise((resolve, reject) => {
    let settled = false;
    /** Why the first ended without an answer. */
    let failure: unknown = null;
    let beside: AbortController | null = null;
    /** Those that have no answer yet. */
    const waiting = new Set<AbortController>();

    const settle = (winner: AbortController | null): void => {
      settled = true;
      clearTimeout(timer);
      for (const other of waiting) if (other !== winner) other.abort(new Error('another request was answered first'));
    };
    const fail = (error: unknown): void => {
      settle(null);
      reject(error);
    };
    const failed = (own: AbortController, error: unknown, isFirst: boolean): void => {
      waiting.delete(own);
      if (settled) return;
      if (signal.aborted) fail(error);
      else if (isFirst && beside !== null && waiting.has(beside) && isTimeout(error)) failure = error;
      else if (isFirst) fail(error);
      // One beside that fails says nothing about the first.
      else if (own === beside && failure !== null) fail(failure);
    };
    const start = (isFirst: boolean): AbortController => {
      const own = new AbortController();
      waiting.add(own);
      send(AbortSignal.any([signal, own.signal]), isFirst).then(
        (response) => {
          if (settled) {
            cutOff(response.body);
            return;
          }
          settle(own);
          resolve(response);
        },
        (error: unknown) => failed(own, error, isFirst),
      );
      return own;
    };
    const sendBeside = (): void => {
      if (failure !== null) {
        fail(failure);
        return;
      }
      if (mayHedge()) {
        beside?.abort(new Error('it had no answer for long'));
        beside = start(false);
      }
      timer = setTimeout(sendBeside, RENEW_MS);
    };
    // Well before the stall timeout, which ends the first.
    let timer = setTimeout(sendBeside, Math.min(hedgeAfter, stallTimeout / 2));
    start(true);
  });
}
