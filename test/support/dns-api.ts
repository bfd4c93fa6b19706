import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { onTestFinished } from 'vitest';

/** A TXT record in a zone of a provider. */
export interface ApiRecord {
  readonly id: string;
  /** Whole, without a dot at the end. */
  readonly name: string;
  readonly value: string;
  readonly ttl: number;
}

export interface ApiReply {
  readonly status: number;
  readonly body: unknown;
}

/** A DNS provider's HTTP API on loopback, as strict as the real one, with the zones of one account; ends with the test. */
export abstract class DnsApi {
  /** Its base, for `acme.dns.endpoint`. */
  endpoint = '';
  readonly zones: ReadonlyMap<string, ApiRecord[]>;
  /** What is answered next in place of what was asked for. */
  next: ApiReply | null = null;
  #ids = 0;

  constructor(zones: readonly string[]) {
    this.zones = new Map(zones.map((zone) => [zone, []]));
  }

  async start(): Promise<this> {
    const server = createServer((request, response) => {
      void (async () => {
        const body = await text(request);
        const reply = this.next ?? this.answer(request, body);
        this.next = null;
        response.writeHead(reply.status, { 'content-type': 'application/json' }).end(JSON.stringify(reply.body));
      })();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    });
    this.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return this;
  }

  /** The values of a name, in their order. */
  values(name: string): string[] {
    return this.all()
      .filter((record) => record.name === name)
      .map(({ value }) => value)
      .toSorted();
  }

  all(): ApiRecord[] {
    return [...this.zones.values()].flat();
  }

  protected id(): string {
    this.#ids += 1;
    return String(this.#ids).padStart(9, '7');
  }

  /** Whether it was there. */
  protected drop(id: string): boolean {
    for (const records of this.zones.values()) {
      const at = records.findIndex((record) => record.id === id);
      if (at >= 0) return records.splice(at, 1).length === 1;
    }
    return false;
  }

  protected abstract answer(request: IncomingMessage, body: string): ApiReply;
}
