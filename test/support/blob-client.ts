import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import type { TestGateway } from './gateway.ts';

export interface Received {
  readonly status: number;
  readonly bytes: number;
  /** Of the bytes that came, `sha256:<hex>`. */
  readonly digest: string;
  /** As many bytes came as Content-Length said, and the answer ended as it should. */
  readonly whole: boolean;
  /** The body of an answer other than 200 and 206, at most its first 4 KiB. */
  readonly text: string;
}

export interface GetOptions {
  readonly headers?: Readonly<Record<string, string>>;
  /** Bytes so far; `leave` resets the connection. Called first with 0, when the headers are there. */
  readonly onBytes?: (bytes: number, leave: () => void) => void;
}

export interface BlobClient {
  get(path: string, options?: GetOptions): Promise<Received>;
  close(): void;
}

/** A client of the gateway's own listener that hashes what it gets and keeps nothing of it. `ca` where its file is out of reach. */
export function openBlobClient(gateway: TestGateway, ca?: string): BlobClient {
  const agent = new Agent({ keepAlive: true, ca: ca ?? readFileSync(join(gateway.dataDir, 'ca.crt')) });
  return {
    close: () => agent.destroy(),
    get: (path, { headers = {}, onBytes } = {}) =>
      new Promise<Received>((resolve) => {
        const hash = createHash('sha256');
        let [status, bytes, text, ended] = [0, 0, '', false];
        let promised: number | undefined;
        const over = (): void => {
          if (ended) return;
          ended = true;
          resolve({ status, bytes, text, whole: false, digest: `sha256:${hash.digest('hex')}` });
        };
        const sent = request({
          agent,
          host: '127.0.0.1',
          port: gateway.httpsPort,
          servername: 'localhost',
          path,
          headers,
        });
        const leave = (): void => void sent.destroy();
        sent.on('error', over);
        sent.on('close', over);
        sent.on('response', (response) => {
          status = response.statusCode ?? 0;
          promised =
            response.headers['content-length'] === undefined ? undefined : Number(response.headers['content-length']);
          onBytes?.(0, leave);
          response.on('error', over);
          response.on('data', (chunk: Buffer) => {
            hash.update(chunk);
            bytes += chunk.length;
            if (status >= 300 && text.length < 4096) text += chunk.toString();
            onBytes?.(bytes, leave);
          });
          response.on('end', () => {
            if (ended) return;
            ended = true;
            const whole = response.complete && (promised === undefined || promised === bytes);
            resolve({ status, bytes, text, whole, digest: `sha256:${hash.digest('hex')}` });
          });
        });
        sent.end();
      }),
  };
}
