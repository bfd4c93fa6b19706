import type { IncomingHttpHeaders } from 'node:http';

/** What a request was for. `cdn` is the other origin that blobs redirect to. */
export type RequestKind = 'ping' | 'token' | 'manifest' | 'blob' | 'tags' | 'referrers' | 'cdn' | 'other';

export interface LoggedRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly query: string;
  readonly kind: RequestKind;
  readonly repository: string | undefined;
  /** Tag or digest. */
  readonly reference: string | undefined;
  readonly headers: IncomingHttpHeaders;
  /** A number per TCP connection, in order of arrival. */
  readonly connection: number;
  /** How many requests of this kind and reference came before. */
  readonly nth: number;
  readonly at: number;
  /** Bytes that the client asked for: `Range`, parsed; undefined for the whole. */
  readonly range: { readonly from: number; readonly to: number | undefined } | undefined;
  status: number;
  /** Body bytes handed to the socket so far. */
  sent: number;
  /** True once the answer ended or broke off. */
  done: boolean;
}

/** Every request that reached the fake, in order. */
export class RequestLog {
  readonly all: LoggedRequest[] = [];

  of(filter: RequestFilter): LoggedRequest[] {
    return this.all.filter((request) => matches(request, filter));
  }

  count(filter: RequestFilter = {}): number {
    return this.of(filter).length;
  }

  /** Body bytes sent in all to requests that match. */
  bytes(filter: RequestFilter = {}): number {
    return this.of(filter).reduce((sum, request) => sum + request.sent, 0);
  }

  clear(): void {
    this.all.length = 0;
  }
}

export type RequestFilter = Partial<
  Pick<LoggedRequest, 'method' | 'path' | 'kind' | 'repository' | 'reference' | 'status'>
>;

function matches(request: LoggedRequest, filter: RequestFilter): boolean {
  return Object.entries(filter).every(([name, value]) => request[name as keyof RequestFilter] === value);
}
