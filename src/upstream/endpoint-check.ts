import type { Config } from '../config/config.ts';
import { Connections } from './connections.ts';
import { reasonOf } from './failures.ts';
import { ProxyChoice } from './proxies.ts';
import type { Route } from './upstream.ts';

/** Long enough for a slow link, short enough for a person who waits, ms. */
const PATIENCE = 10_000;

/** What an endpoint said to `GET /v2/` (distribution-spec, *Determining Support*). */
export interface EndpointAnswer {
  /** Null where nothing answered. */
  readonly status: number | null;
  /** Until the headers were there. */
  readonly ms: number;
  /** One sentence; null where something answered. */
  readonly problem: string | null;
  /** The server's clock, ms since 1970; null where it does not say. */
  readonly serverTime: number | null;
}

/**
 * Asks endpoints whether they are there, each by itself, through the proxies that pulls use: for `doctor`. Connections of its own, so
 * that neither a pull nor the state of an endpoint is touched.
 */
export class EndpointCheck {
  readonly #connections: Connections;

  constructor(config: Config['upstream'], environment: Readonly<Record<string, string | undefined>> = process.env) {
    this.#connections = new Connections(new ProxyChoice(config.proxy, environment));
  }

  async ask(route: Route, endpoint: string, signal: AbortSignal): Promise<EndpointAnswer> {
    const start = performance.now();
    try {
      const { status, headers, body } = await this.#connections.request(new URL(`${endpoint.replace(/\/$/, '')}/v2/`), {
        method: 'GET',
        headers: { accept: 'application/json, */*' },
        reach: 'operator',
        proxy: route.proxy,
        signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]),
        stallTimeout: PATIENCE,
      });
      body.on('error', () => {}).destroy();
      const date = Date.parse(String(headers.date));
      return {
        status,
        ms: performance.now() - start,
        problem: null,
        serverTime: Number.isNaN(date) ? null : date,
      };
    } catch (error) {
      signal.throwIfAborted();
      return { status: null, ms: performance.now() - start, problem: reasonOf(error), serverTime: null };
    }
  }

  close(): Promise<void> {
    return this.#connections.close();
  }
}
