import { Agent, request } from 'node:http';
import { Agent as TlsAgent, request as tlsRequest } from 'node:https';

/** A client's connections over TLS, kept alive, from an address of its own where one is given. */
export function connections(most: number, localAddress?: string): TlsAgent {
  const own = localAddress === undefined ? {} : { localAddress };
  return new TlsAgent({ keepAlive: true, maxSockets: most, rejectUnauthorized: false, ...own });
}

/** A client's connections to whatever the URL names, TLS or not, kept alive. */
export function connectionsTo(url: string, most: number): Agent {
  return url.startsWith('https:') ? connections(most) : new Agent({ keepAlive: true, maxSockets: most });
}

export interface Got {
  readonly status: number;
  readonly bytes: number;
  /** Seconds from the request to the first body byte, and to the last. */
  readonly first: number;
  readonly last: number;
}

/**
 * One GET to its last byte, or until the client has `take` bytes of it and leaves; its bytes go to `onChunk`.
 * @throws where the answer broke off, or nothing came for `timeout` ms
 */
export function get(
  url: string,
  options: {
    /** Left out: a connection of its own. */
    readonly agent?: Agent;
    readonly headers?: Readonly<Record<string, string>>;
    readonly take?: number;
    readonly timeout?: number;
    readonly signal?: AbortSignal;
    readonly onChunk?: (chunk: Buffer) => void;
  },
): Promise<Got> {
  const { agent = connectionsTo(url, 1), headers = {}, take = Number.POSITIVE_INFINITY, timeout = 30_000 } = options;
  const started = performance.now();
  const since = (): number => (performance.now() - started) / 1000;
  return new Promise((resolve, reject) => {
    const ask = url.startsWith('https:') ? tlsRequest : request;
    const { signal } = options;
    const asked = ask(url, { agent, headers, timeout, ...(signal === undefined ? {} : { signal }) }, (response) => {
      const status = response.statusCode ?? 0;
      let bytes = 0;
      let first = 0;
      const done = (): void => {
        if (options.agent === undefined) agent.destroy();
        resolve({ status, bytes, first, last: since() });
      };
      response.on('data', (chunk: Buffer) => {
        if (bytes === 0) first = since();
        const wanted = chunk.subarray(0, take - bytes);
        bytes += wanted.length;
        options.onChunk?.(wanted);
        if (bytes < take) return;
        done();
        if (!response.complete) response.destroy();
      });
      response.once('error', reject);
      response.once('close', () => {
        if (response.complete) done();
        else reject(new Error(`${url}: ${status}, broke off after ${bytes} bytes`));
      });
    });
    asked.once('timeout', () => asked.destroy(new Error(`${url}: nothing came for ${timeout} ms`)));
    asked.once('error', reject);
    asked.end();
  });
}
