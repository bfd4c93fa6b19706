import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { IncomingHttpHeaders } from 'node:http';
import { Agent, type RequestOptions, request } from 'node:https';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { TestGateway } from './gateway.ts';

/** How much of a body is kept where the whole was not asked for, bytes: enough for any error of the registry API. */
const KEPT = 4096;
/** How long a request may go without a byte, ms. */
const TIMEOUT = 60_000;

export interface SendOptions extends RequestOptions {
  readonly port: number;
  readonly path: string;
  /** Keep the whole body. Else its first 4 KiB are kept, and the rest is hashed only. */
  readonly keep?: boolean;
  /** Bytes of the body so far; `leave` resets the connection. Called first with 0, when the headers are there. */
  readonly onBytes?: ((bytes: number, leave: () => void) => void) | undefined;
  /** Called with the first bytes; no more are taken until what it returns resolves. */
  readonly pause?: (() => Promise<void>) | undefined;
  readonly onSocket?: (socket: Socket, reused: boolean) => void;
}

export interface Received {
  /** 0 where no answer came. */
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: number;
  /** Of the bytes that came, `sha256:<hex>`. */
  readonly digest: string;
  /** As many bytes came as Content-Length said, and the answer ended as it should. */
  readonly whole: boolean;
  readonly body: Buffer;
  readonly text: string;
  /** Why it is not whole, where the client met an error. */
  readonly error: Error | null;
  /** Milliseconds from the request to the first and to the last byte of the body. */
  readonly firstByte: number;
  readonly total: number;
}

/** One request over HTTPS to this machine (`host` 127.0.0.1, SNI `localhost` unless the options say otherwise). Never rejects. */
export function send({ keep = false, onBytes, pause, onSocket, ...options }: SendOptions): Promise<Received> {
  const started = performance.now();
  return new Promise((resolve) => {
    const hash = createHash('sha256');
    const kept: Buffer[] = [];
    let [status, bytes, keptBytes, firstByte, whole] = [0, 0, 0, 0, false];
    let headers: IncomingHttpHeaders = {};
    let error: Error | null = null;
    const sent = request({ host: '127.0.0.1', servername: 'localhost', timeout: TIMEOUT, ...options });
    const failed = (cause: Error): void => {
      error ??= new Error(
        `${options.method ?? 'GET'} ${options.path} on a ${sent.reusedSocket ? 'kept' : 'new'} connection: ${cause.message}`,
        { cause },
      );
    };
    sent.on('timeout', () => sent.destroy(new Error(`no byte in ${TIMEOUT} ms`)));
    sent.on('error', failed);
    sent.on('socket', (socket) => onSocket?.(socket, sent.reusedSocket));
    sent.on('response', (response) => {
      status = response.statusCode ?? 0;
      headers = response.headers;
      const leave = (): void => void sent.destroy();
      onBytes?.(0, leave);
      response.on('error', failed);
      response.once('data', () => {
        if (pause === undefined) return;
        response.pause();
        void pause().then(() => response.resume());
      });
      response.on('data', (chunk: Buffer) => {
        if (bytes === 0) firstByte = performance.now() - started;
        hash.update(chunk);
        bytes += chunk.length;
        if (keep || keptBytes < KEPT) {
          kept.push(keep ? chunk : chunk.subarray(0, KEPT - keptBytes));
          keptBytes += chunk.length;
        }
        onBytes?.(bytes, leave);
      });
      response.on('end', () => {
        const promised = response.headers['content-length'];
        const bodiless = options.method === 'HEAD' || status === 304;
        whole = response.complete && (promised === undefined || bodiless || Number(promised) === bytes);
      });
    });
    sent.on('close', () => {
      const body = Buffer.concat(kept);
      const digest = `sha256:${hash.digest('hex')}`;
      const total = performance.now() - started;
      resolve({ status, headers, bytes, digest, whole, body, text: body.toString(), error, firstByte, total });
    });
    sent.end();
  });
}

/** As {@link send}. @throws where the answer did not come whole */
export async function sendWhole(options: SendOptions): Promise<Received> {
  const received = await send(options);
  if (received.error !== null) throw received.error;
  if (!received.whole) throw new Error(`${options.path} was broken off after ${received.bytes} bytes`);
  return received;
}

/** The CA that a gateway with `tls.mode: internal` made. */
export function caOf(gateway: TestGateway): string {
  return readFileSync(join(gateway.dataDir, 'ca.crt'), 'utf8');
}

export interface GatewayClient {
  get(path: string, options?: Omit<SendOptions, 'port' | 'path'>): Promise<Received>;
  close(): void;
}

/** A client of the gateway's own listener whose connections are kept. `ca` where its file is out of reach. */
export function openClient(gateway: TestGateway, ca = caOf(gateway)): GatewayClient {
  const agent = new Agent({ keepAlive: true, ca });
  return {
    get: (path, options = {}) => send({ agent, port: gateway.httpsPort, path, ...options }),
    close: () => agent.destroy(),
  };
}
