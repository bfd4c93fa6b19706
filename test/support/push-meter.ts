import { once } from 'node:events';
import { createServer, request as forward, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A request to push something, as it went by. */
export interface Metered {
  readonly method: string;
  readonly path: string;
  /** Of its body that was passed on. */
  bytes: number;
  /** Of the answer; 0 until there is one. */
  status: number;
}

/** Stands before a registry, counts what is pushed, and can hold it up. */
export class PushMeter {
  readonly requests: Metered[] = [];
  /** Which requests are held up: nothing of them is passed on. */
  holds: (request: IncomingMessage) => boolean = () => false;
  /** Requests that are, or were. */
  held = 0;
  readonly #server: Server;
  readonly #to: number;

  private constructor(to: number) {
    this.#to = to;
    this.#server = createServer((request, response) => this.#pass(request, response));
  }

  static async start(to: number): Promise<PushMeter> {
    const meter = new PushMeter(to);
    meter.#server.listen(0, '127.0.0.1');
    await once(meter.#server, 'listening');
    return meter;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Bytes of blobs that were passed on. */
  get bytes(): number {
    return this.requests
      .filter(({ path }) => path.includes('/blobs/uploads/'))
      .reduce((sum, one) => sum + one.bytes, 0);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #pass(request: IncomingMessage, response: ServerResponse): void {
    const seen: Metered = { method: request.method ?? '', path: request.url ?? '', bytes: 0, status: 0 };
    this.requests.push(seen);
    if (this.holds(request)) {
      this.held += 1;
      return;
    }
    const to = {
      host: '127.0.0.1',
      port: this.#to,
      method: request.method,
      path: request.url,
      headers: request.headers,
    };
    const passed = forward(to, (answer) => {
      seen.status = answer.statusCode ?? 0;
      response.writeHead(seen.status, answer.headers);
      answer.pipe(response);
    });
    passed.on('error', () => response.destroy());
    // What was passed on of a request that broke off has arrived.
    response.on('close', () => {
      if (!response.writableFinished) passed.destroy();
    });
    request.on('data', (chunk: Buffer) => {
      seen.bytes += chunk.length;
      passed.write(chunk);
    });
    request.on('end', () => passed.end());
  }
}
