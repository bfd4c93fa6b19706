import { Readable } from 'node:stream';
import type { Config } from '../../config/config.ts';
import { parseJsonObject } from '../../kit/json.ts';
import type { Credentials } from '../../oci/credentials.ts';
import { Metrics } from '../../telemetry/metrics.ts';
import {
  type AuthScheme,
  basicAuthorization,
  chooseScheme,
  parseChallenges,
  Tokens,
  USER_AGENT,
} from '../authorization.ts';
import { readPlain } from '../content-encoding.ts';
import { authoritiesFor, isOwnTarget } from '../credential-scope.ts';
import { RedirectError, StatusError } from '../failures.ts';
import { OutgoingConnections, type RawRequest, type ResponseHeaders } from '../net/connections.ts';
import { follow, isRedirect, MAX_REDIRECTS, ProxyChoice, reachOf } from '../net/egress.ts';
import { Trust } from '../net/trust.ts';
import { readOwnReason } from '../own-reason.ts';
import { MAX_WAIT_MS, Pools } from '../pools.ts';
import { POOLS } from '../registry-upstream.ts';
import { RequestMetrics } from '../request-metrics.ts';
import { header, headerList, retryAfterOf } from '../responses.ts';
import type { Route } from '../upstream.ts';

/** The registry that is pushed to; its one endpoint was named by the operator. */
export interface PushDestination extends Omit<Route, 'endpoints' | 'credentials' | 'named'> {
  readonly endpoint: URL;
  readonly credentials: Credentials | null;
}

export interface PushRequest {
  readonly method: RawRequest['method'];
  readonly url: URL;
  /** What the token must open (distribution, *Token Scope*): several, with spaces between. */
  readonly scope: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** A stream can be sent once: what would have to be sent again fails then, see {@link UnsentError}. */
  readonly body?: string | Uint8Array | Readable;
  readonly signal: AbortSignal;
  /** Without a byte taken or given, ms; also from the last byte sent to the answer. */
  readonly patience: number;
}

/** An answer with its body, which is small whatever was asked: nothing is pulled from there but manifests. */
export interface PushAnswer {
  readonly status: number;
  readonly headers: ResponseHeaders;
  readonly body: Buffer;
  /** The URL that gave it. */
  readonly url: URL;
}

/** A body went out and its request must be sent once more, with another token: the caller knows from where. */
class UnsentError extends Error {
  override readonly name = 'UnsentError';
}

/** distribution-spec, *Pushing Manifests*: registries take 4 MiB at least, and hardly any takes more. */
const MAX_ANSWER = 4 * 1024 * 1024;
/** For all of a request without a streamed body, beyond its patience; and for the body of any answer; ms. */
const REQUEST_MS = 60_000;

export interface PushOptions {
  readonly config: Pick<Config['upstream'], 'proxy' | 'caFile' | 'stallTimeout'>;
  /** As `Via` names this gateway. */
  readonly pseudonym: string;
  /** Where the usual proxy variables are read from. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** In which the body of an answer is to end, ms; tests have less. */
  readonly answerTimeout?: number;
}

/** Sends requests to the registry that is pushed to, authorises them, and follows redirects. No retries. */
export class PushRequests {
  readonly #destination: PushDestination;
  readonly #route: Omit<Route, 'credentials' | 'named'>;
  readonly #connections: OutgoingConnections;
  readonly #tokens: Tokens;
  readonly #stallTimeout: number;
  readonly #answerTimeout: number;
  /** As the last challenge had it; null where none came. */
  #scheme: AuthScheme | null = null;

  /** @throws {OperatorError} `CA_INVALID` */
  constructor(destination: PushDestination, { config, pseudonym, environment, answerTimeout }: PushOptions) {
    this.#destination = destination;
    const { endpoint, credentials: _, ...route } = destination;
    this.#route = { ...route, endpoints: [endpoint.href] };
    const choice = new ProxyChoice(config.proxy, environment);
    this.#connections = new OutgoingConnections(choice, new Trust(config.caFile), pseudonym);
    this.#tokens = new Tokens(this.#connections, new Pools(POOLS, MAX_WAIT_MS), new RequestMetrics(new Metrics()));
    this.#stallTimeout = config.stallTimeout;
    this.#answerTimeout = answerTimeout ?? REQUEST_MS;
  }

  get endpoint(): URL {
    return this.#destination.endpoint;
  }

  /** Resolves to the answer whatever its status. @throws what connections, tokens and redirects throw; {UnsentError} */
  async send(request: PushRequest): Promise<PushAnswer> {
    let { url } = request;
    for (let hops = 0; ; hops++) {
      const answer = await this.#authorised(url, request);
      if (!isRedirect(answer.status)) return answer;
      // RFC 9110 §15.4: only 307 and 308 keep the method, and a stream is gone.
      const isRead = request.method === 'GET' || request.method === 'HEAD';
      const keeps = isRead || answer.status === 307 || answer.status === 308;
      if (!keeps || request.body instanceof Readable || hops === MAX_REDIRECTS)
        throw new RedirectError(`a redirect of ${request.method} that cannot be followed`, url.host);
      url = follow(header(answer.headers, 'location'), url, this.endpoint);
    }
  }

  /** How far a request to this URL may reach, and whether it lies where the credentials may go. */
  isOwn(url: URL): boolean {
    return isOwnTarget(url, this.endpoint, this.#route);
  }

  async close(): Promise<void> {
    await this.#connections.close();
  }

  /** One hop. Where a registry points away from itself (an upload to an object store, by a signed URL) no credentials go. */
  async #authorised(url: URL, request: PushRequest): Promise<PushAnswer> {
    if (!this.isOwn(url)) return await this.#once(url, request, null);
    const { credentials, host } = this.#destination;
    const scope = new Set([request.scope]);
    let tried = await this.#authorization(url, request.scope, request);
    let answer = await this.#once(url, request, tried);
    for (let tries = 0; answer.status === 401 && tries < 2; tries++) {
      const challenges = parseChallenges(headerList(answer.headers, 'www-authenticate'));
      const scheme = chooseScheme(challenges, url, credentials, '');
      if (scheme === null) return answer;
      if (scheme.kind === 'bearer' && tried !== null)
        this.#tokens.drop(this.#demand(request.scope), credentials, tried.slice('Bearer '.length));
      // A kept token may have expired; a new one that is refused may lack a scope that this registry calls otherwise.
      const wanted = tries === 0 || scheme.kind === 'basic' ? request.scope : scheme.demand.scope;
      if (tries === 1 && (scheme.kind === 'basic' || scope.has(wanted))) return answer;
      this.#scheme = scheme;
      if (request.body instanceof Readable) throw new UnsentError(`${host} asks for another token`);
      tried = await this.#authorization(url, wanted, request);
      answer = await this.#once(url, request, tried);
    }
    return answer;
  }

  #demand(scope: string) {
    const scheme = this.#scheme;
    return scheme?.kind === 'bearer' ? { ...scheme.demand, scope } : { realm: '', service: '', scope };
  }

  /** The value of the header; null for none. */
  async #authorization(url: URL, scope: string, { signal }: PushRequest): Promise<string | null> {
    const { credentials, host, proxy } = this.#destination;
    if (this.#scheme === null) return null;
    if (this.#scheme.kind === 'basic') return credentials === null ? null : basicAuthorization(credentials);
    const demand = this.#demand(scope);
    const kept = this.#tokens.kept(demand, credentials);
    if (kept !== null) return `Bearer ${kept}`;
    const where = url.origin === this.endpoint.origin ? 'realm' : 'target';
    const token = await this.#tokens.fetch(
      demand,
      credentials,
      {
        scope: this.#route,
        registry: host,
        repository: scope,
        where,
        endpoint: this.endpoint,
        proxy,
        stallTimeout: this.#stallTimeout,
      },
      undefined,
    );
    signal.throwIfAborted();
    return `Bearer ${token}`;
  }

  async #once(url: URL, request: PushRequest, authorization: string | null): Promise<PushAnswer> {
    const { method, body, patience } = request;
    const limit = body instanceof Readable ? [] : [AbortSignal.timeout(patience + REQUEST_MS)];
    const signal = AbortSignal.any([request.signal, ...limit]);
    const response = await this.#connections.request(url, {
      method,
      headers: {
        'user-agent': USER_AGENT,
        'accept-encoding': 'identity',
        ...request.headers,
        ...(authorization === null ? {} : { authorization }),
      },
      body,
      reach: reachOf(url, this.endpoint, this.#connections),
      where: url.origin === this.endpoint.origin ? 'endpoint' : 'target',
      proxy: this.#destination.proxy,
      ca: authoritiesFor(url, this.#route),
      signal,
      stallTimeout: patience,
    });
    const { status, headers } = response;
    const { body: answer } = response;
    // One that comes byte by byte never stalls.
    const late = setTimeout(() => answer.destroy(new Error('its answer does not end')), this.#answerTimeout);
    try {
      return { status, headers, url, body: await readPlain(answer, encodings(headers), MAX_ANSWER) };
    } finally {
      clearTimeout(late);
    }
  }
}

function encodings(headers: ResponseHeaders): string {
  return headerList(headers, 'content-encoding');
}

/** The failure that an answer is whose status is none of those that were hoped for. */
export function refusal({ status, headers, body, url }: PushAnswer): StatusError {
  const error = new StatusError(status, url.host, retryAfterOf(headers));
  error.said = readOwnReason(parseJsonObject(body) ?? {});
  return error;
}
