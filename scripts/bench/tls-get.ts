import { Agent, request } from 'node:https';

/** A client's connections, kept alive, from an address of its own where one is given. */
export function connections(most: number, localAddress?: string): Agent {
  const own = localAddress === undefined ? {} : { localAddress };
  return new Agent({ keepAlive: true, maxSockets: most, rejectUnauthorized: false, ...own });
}

export interface Got {
  readonly status: number;
  readonly bytes: number;
}

/**
 * One GET to its last byte, or until the client has `take` bytes of it and leaves; its bytes go to `onChunk`.
 * @throws where the answer broke off, or nothing came for `timeout` ms
 */
export function get(
  url: string,
  options: {
    readonly agent: Agent;
    readonly headers?: Readonly<Record<string, string>>;
    readonly take?: number;
    readonly timeout?: number;
    readonly onChunk?: (chunk: Buffer) => void;
  },
): Promise<Got> {
  const { agent, headers = {}, take = Number.POSITIVE_INFINITY, timeout = 30_000, onChunk } = options;
  return new Promise((resolve, reject) => {
    const asked = request(url, { agent, headers, timeout }, (response) => {
      const status = response.statusCode ?? 0;
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        const wanted = chunk.subarray(0, take - bytes);
        bytes += wanted.length;
        onChunk?.(wanted);
        if (bytes < take) return;
        resolve({ status, bytes });
        if (!response.complete) response.destroy();
      });
      response.once('error', reject);
      response.once('close', () => {
        if (response.complete) resolve({ status, bytes });
        else reject(new Error(`${url}: ${status}, broke off after ${bytes} bytes`));
      });
    });
    asked.once('timeout', () => asked.destroy(new Error(`${url}: nothing came for ${timeout} ms`)));
    asked.once('error', reject);
    asked.end();
  });
}
