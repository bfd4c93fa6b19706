import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Target } from '../oci/target.ts';
import type { Reply } from '../proxy/reply.ts';
import type { Connection } from './connections.ts';
import type { ForwardedHeaders } from './forwarded.ts';
import { hostName } from './host.ts';

/** Longest user agent that a log line carries. */
const USER_AGENT_SHOWN = 200;

/** What a request is about, for the log and as a metric's label. */
export type ExchangeKind =
  | Target['what']['kind']
  | 'ping'
  | 'page'
  | 'health'
  | 'challenge'
  | 'redirect'
  | 'refused'
  | 'other';

/** Reason of the abort of what a client has left. */
class ClientLeftError extends Error {
  override readonly name = 'ClientLeftError';

  constructor() {
    super('the client left');
  }
}

/** One request and what became of it: facts read once, then filled in on the way to the log line. */
export class Exchange {
  readonly id = randomUUID();
  readonly started = performance.now();
  readonly connection: Connection;
  readonly method: string;
  /** Lower case, without port; what a trusted proxy was asked for comes before what it asks us for. */
  readonly host: string;
  /** Raw, still percent-encoded, never with a query. */
  readonly path: string;
  readonly query: string;
  readonly clientAddress: string;
  /** Whether the client speaks TLS: to us, or to a trusted proxy in front. */
  readonly secure: boolean;
  readonly userAgent: string;

  kind: ExchangeKind = 'other';
  target: Target | null = null;
  from: Reply['from'] | null = null;
  user: string | null = null;
  status = 0;
  /** Body bytes handed to the connection. */
  bytes = 0;
  /** How the body ended, where it did not end well. */
  cut: 'client left' | 'client stalled' | 'truncated' | null = null;
  /** The client has left before its answer was whole. */
  left = false;
  #leaving: AbortController | null = null;

  constructor(request: IncomingMessage, connection: Connection, forwarded: ForwardedHeaders) {
    this.connection = connection;
    this.method = request.method ?? '';
    const headers = request.headers;
    const client = forwarded.read(connection.address, headers);
    const asked = splitTarget(request.url ?? '/');
    const authority = headers[':authority'] ?? headers.host;
    this.host = hostName(client.host ?? asked.host ?? (typeof authority === 'string' ? authority : undefined));
    this.path = asked.path;
    this.query = asked.query;
    this.clientAddress = client.address;
    this.secure = client.https || connection.secure;
    this.userAgent = (headers['user-agent'] ?? '').slice(0, USER_AGENT_SHOWN);
  }

  /** Aborted when the client leaves. Most answers are ready at once, so it is made only for whoever asks for it. */
  get signal(): AbortSignal {
    if (this.#leaving === null) {
      this.#leaving = new AbortController();
      if (this.left) this.#leaving.abort(new ClientLeftError());
    }
    return this.#leaving.signal;
  }

  leave(): void {
    this.left = true;
    this.cut ??= 'client left';
    this.#leaving?.abort(new ClientLeftError());
  }
}

/** Origin-form and absolute-form (RFC 9112 §3.2); the host of the latter wins over the Host header. */
function splitTarget(url: string): { host: string | undefined; path: string; query: string } {
  let rest = url;
  let host: string | undefined;
  const absolute = url.startsWith('/') ? null : /^https?:\/\/([^/?#]*)/i.exec(url);
  if (absolute !== null) {
    host = absolute[1];
    rest = url.slice(absolute[0].length);
    if (!rest.startsWith('/')) rest = `/${rest}`;
  }
  const mark = rest.indexOf('?');
  return mark < 0 ? { host, path: rest, query: '' } : { host, path: rest.slice(0, mark), query: rest.slice(mark + 1) };
}
