import { isIP } from 'node:net';
import type { Config } from '../../config/config.ts';
import { urlAt } from '../endpoint-url.ts';
import { reasonClass, reasonOf, trustAdvice } from '../failures.ts';
import type { Route } from '../upstream.ts';
import { OutgoingConnections } from './connections.ts';
import { ProxyChoice } from './egress.ts';
import { Trust } from './trust.ts';

/** Milliseconds: enough for a slow link, and not too long for a person who waits for `doctor`. */
const CHECK_TIMEOUT = 6_000;

/** How an endpoint responded to `GET /v2/` (distribution-spec, *Determining Support*). */
export interface EndpointCheckResult {
  /** Null where there was no response. */
  readonly status: number | null;
  /** Milliseconds until the headers had come. */
  readonly ms: number;
  /** One sentence; null where there was a response. */
  readonly problem: string | null;
  /** What kind of failure it was, as `reasonClass` has it; empty where there was a response. */
  readonly reason: string;
  /** What to do about it, where that is known. */
  readonly next: string | null;
  /** The `Date` header, ms since 1970; null where there is none. */
  readonly serverTime: number | null;
}

/**
 * Checks for `doctor` whether an endpoint responds, through the proxies that pulls use. It has connections of its own, so that neither
 * a pull nor the health that is kept of an endpoint is affected.
 */
export class EndpointCheck {
  readonly #connections: OutgoingConnections;
  readonly #choice: ProxyChoice;

  constructor(
    config: Config['upstream'],
    pseudonym: string,
    environment: Readonly<Record<string, string | undefined>> = process.env,
  ) {
    this.#choice = new ProxyChoice(config.proxy, environment);
    this.#connections = new OutgoingConnections(this.#choice, new Trust(config.caFile), pseudonym);
  }

  /** The proxy on the way to an endpoint, and whether a name has to be looked up here: the proxy's, or where there is none, the endpoint's. */
  way(
    route: Route,
    endpoint: string,
  ): { readonly proxy: { host: string; port: number } | null; readonly resolves: boolean } {
    const url = new URL(endpoint);
    const proxy = this.#choice.for(url, route.proxy);
    return { proxy, resolves: isIP(proxy?.host ?? url.hostname.replace(/^\[|\]$/g, '')) === 0 };
  }

  async ask(route: Route, endpoint: string, signal: AbortSignal): Promise<EndpointCheckResult> {
    const start = performance.now();
    try {
      const { status, headers, body } = await this.#connections.request(urlAt(new URL(endpoint), '/v2/'), {
        method: 'GET',
        headers: { accept: 'application/json, */*' },
        reach: 'operator',
        where: 'endpoint',
        proxy: route.proxy,
        ca: route.ca,
        signal: AbortSignal.any([signal, AbortSignal.timeout(CHECK_TIMEOUT)]),
        stallTimeout: CHECK_TIMEOUT,
      });
      body.on('error', () => {}).destroy();
      const date = Date.parse(String(headers.date));
      return {
        status,
        ms: performance.now() - start,
        problem: null,
        reason: '',
        next: null,
        serverTime: Number.isNaN(date) ? null : date,
      };
    } catch (error) {
      signal.throwIfAborted();
      return {
        status: null,
        ms: performance.now() - start,
        problem: reasonOf(error),
        reason: reasonClass(error),
        next: trustAdvice(error, route.host),
        serverTime: null,
      };
    }
  }

  close(): Promise<void> {
    return this.#connections.close();
  }
}
