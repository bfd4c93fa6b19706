import { LRUCache } from 'lru-cache';
import { unlessAborted } from '../kit/async.ts';
import type { AcquireOptions } from '../kit/fair-pool.ts';
import type { Credentials } from '../oci/credentials.ts';
import { parseAccept } from '../oci/media-types.ts';
import type { BlobKey } from '../oci/names.ts';
import {
  type AuthChallenge,
  type AuthScheme,
  basicAuthorization,
  chooseScheme,
  parseChallenges,
  requireOwnRealm,
  type TokenContext,
  type Tokens,
  USER_AGENT,
} from './authorization.ts';
import type { Asked, BudgetAdmission, Budgets } from './budgets.ts';
import { authoritiesFor, isOwnTarget } from './credential-scope.ts';
import { repositoryAt, urlAt } from './endpoint-url.ts';
import { exchange } from './exchange.ts';
import { CredentialsWithheldError, InvalidResponseError, RedirectError, TokenRefusedError } from './failures.ts';
import type { OutgoingConnections, RawResponse } from './net/connections.ts';
import { checkTarget, follow, isRedirect, MAX_REDIRECTS, reachOf } from './net/egress.ts';
import type { Pools, Purpose } from './pools.ts';
import type { RequestMetrics } from './request-metrics.ts';
import {
  blobContradiction,
  cutOff,
  discardWhole,
  header,
  headerList,
  mediaTypeOf,
  statusError,
  type UpstreamResponse,
} from './responses.ts';
import { type Route, rowOf } from './upstream.ts';

/** How many pairs of origin and repository have their authorisation scheme remembered. */
const MAX_SCHEMES = 4096;

export interface UpstreamRequest {
  readonly route: Route;
  readonly endpoint: URL;
  /** Of the registry API: `/v2/library/alpine/manifests/latest`; see `urlAt`. */
  readonly path: string;
  /** As the registry calls it, whatever it is called at the endpoint. */
  readonly repository: string;
  readonly what: Asked;
  readonly method: 'GET' | 'HEAD';
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** See `ManifestOptions.sparing`. */
  readonly sparing?: boolean | undefined;
  /** See `Question.isAdditional`. */
  readonly isAdditional?: boolean | undefined;
  /** The class in which a connection is acquired; null where the caller holds one. */
  readonly purpose: Purpose | null;
  /** Called before a redirect is followed. */
  readonly onRedirect?: ((to: URL) => void) | undefined;
  /** Whose turn it waits for where it acquires a connection, or a token, and how it holds it. */
  readonly holder?: AcquireOptions;
  /** For how long an answer is waited for before the same is asked once more beside, ms; default: as long as for any. */
  readonly hedgeAfter?: number;
}

/** A request that its registry's budget allows. */
interface AdmittedRequest extends UpstreamRequest {
  readonly admission: BudgetAdmission;
}

/** Sends a request to one endpoint where its budget allows that, and authorises it and follows redirects as needed. No retries. */
export class Requester {
  readonly #connections: OutgoingConnections;
  readonly #tokens: Tokens;
  readonly #pools: Pools;
  readonly #stallTimeout: () => number;
  readonly #counted: RequestMetrics;
  readonly #budgets: Budgets;
  /** How a repository's requests to one origin are authorised, so that the next one is not refused first. */
  readonly #schemes = new LRUCache<string, AuthScheme>({ max: MAX_SCHEMES });

  constructor(
    connections: OutgoingConnections,
    tokens: Tokens,
    pools: Pools,
    stallTimeout: () => number,
    counted: RequestMetrics,
    budgets: Budgets,
  ) {
    this.#counted = counted;
    this.#budgets = budgets;
    this.#connections = connections;
    this.#pools = pools;
    this.#tokens = tokens;
    this.#stallTimeout = stallTimeout;
  }

  /** @throws {BudgetError} {StatusError} 429 where it was not sent, or refused for now by the endpoint itself; see `Budgets` */
  async send(given: UpstreamRequest): Promise<UpstreamResponse> {
    const { sparing = false, isAdditional = false } = given;
    const admission = await this.#budgets.admit({ ...given, sparing, isAdditional }, given.signal);
    try {
      return await this.#sendAdmitted({
        ...given,
        repository: repositoryAt(given.endpoint, given.repository),
        admission,
      });
    } finally {
      admission.close();
    }
  }

  async #sendAdmitted(request: AdmittedRequest): Promise<UpstreamResponse> {
    const { endpoint, admission } = request;
    let url = urlAt(endpoint, request.path);
    for (let hops = 0; ; hops++) {
      const answer = await this.#authorised(url, request);
      const response = { ...answer, url, redirected: hops > 0 };
      if (hops === 0 && response.status === 429) {
        const isJson = /[/+]json$/.test(mediaTypeOf(response));
        throw admission.refused(await statusError(response, endpoint), { headers: response.headers, isJson });
      }
      if (!isRedirect(response.status)) return response;
      await discardWhole(response.body);
      if (hops === MAX_REDIRECTS) throw new RedirectError(`more than ${MAX_REDIRECTS} redirects`, url.host);
      url = follow(header(response.headers, 'location'), url, request.endpoint);
      request.onRedirect?.(url);
    }
  }

  /**
   * One hop. Each origin is authorised separately: where a redirect leads out of the registry's own domain (to another registry, as cr.l5d.io
   * does, or to a CDN) the request carries an anonymous token or nothing.
   * @throws {CredentialsWithheldError} where that is not enough, though there are credentials
   */
  async #authorised(url: URL, request: AdmittedRequest): Promise<RawResponse> {
    const { route, endpoint } = request;
    const { credentials } = route;
    if (credentials === null || isOwnTarget(url, endpoint, route))
      return await this.#authorisedAs(credentials, url, request);
    try {
      const response = await this.#authorisedAs(null, url, request);
      const wanted =
        response.status === 401 && chooseScheme(challengesOf(response), url, credentials, request.repository);
      if (!wanted) return response;
      await discardWhole(response.body);
      throw new CredentialsWithheldError(url.host);
    } catch (error) {
      if (route.credentials !== null && error instanceof TokenRefusedError)
        throw new CredentialsWithheldError(url.host);
      throw error;
    }
  }

  async #authorisedAs(credentials: Credentials | null, url: URL, request: AdmittedRequest): Promise<RawResponse> {
    const key = JSON.stringify([url.origin, request.repository, credentials?.username]);
    const context = {
      scope: request.route,
      registry: rowOf(request.route),
      repository: request.repository,
      where: url.origin === request.endpoint.origin ? 'realm' : 'target',
      endpoint: request.endpoint,
      proxy: request.route.proxy,
      stallTimeout: this.#stallTimeout(),
    } as const;
    const known = this.#schemes.get(key);

    if (known !== undefined) {
      const authorization = await this.#authorization(known, credentials, context, request);
      const response = await this.#once(url, request, authorization);
      if (response.status !== 401) return response;
      if (known.kind === 'bearer') this.#tokens.drop(known.demand, credentials, authorization.slice('Bearer '.length));
      const scheme = chooseScheme(challengesOf(response), url, credentials, request.repository);
      await discardWhole(response.body);
      if (known.kind === 'bearer' && scheme?.kind === 'bearer' && scheme.demand.realm === known.demand.realm) {
        return await this.#authorise(scheme, url, request, key, credentials, context);
      }
      // nvcr.io challenges an expired token with another realm, which does not work: start over without a token.
      this.#schemes.delete(key);
    }
    const response = await this.#once(url, request, null);
    if (response.status !== 401) return response;
    const scheme = chooseScheme(challengesOf(response), url, credentials, request.repository);
    if (scheme === null) return response;
    await discardWhole(response.body);
    return await this.#authorise(scheme, url, request, key, credentials, context);
  }

  /** Sends the request again as a challenge demands; a 401 to that is final. */
  async #authorise(
    scheme: AuthScheme,
    url: URL,
    request: AdmittedRequest,
    key: string,
    credentials: Credentials | null,
    context: TokenContext,
  ): Promise<RawResponse> {
    const authorization = await this.#authorization(scheme, credentials, context, request);
    this.#schemes.set(key, scheme);
    return await this.#once(url, request, authorization);
  }

  async #authorization(
    scheme: AuthScheme,
    credentials: Credentials | null,
    context: TokenContext,
    { signal, holder }: UpstreamRequest,
  ): Promise<string> {
    if (scheme.kind === 'basic') return credentials === null ? '' : basicAuthorization(credentials);
    // Before a kept token is used, too: the operator may have taken the realm away.
    if (credentials !== null) {
      const realm = new URL(scheme.demand.realm);
      checkTarget(realm, context.endpoint, 'a token realm');
      requireOwnRealm(realm, context.scope);
    }
    const kept = this.#tokens.kept(scheme.demand, credentials);
    if (kept !== null) return `Bearer ${kept}`;
    const token = this.#tokens.fetch(scheme.demand, credentials, context, holder?.askers);
    return `Bearer ${await unlessAborted(token, signal)}`;
  }

  /** @param authorization the header's value; null or empty for none */
  async #once(url: URL, request: AdmittedRequest, authorization: string | null): Promise<RawResponse> {
    const { route, endpoint, repository, purpose, hedgeAfter, admission } = request;
    // What another host says moves no budget of this one.
    const isEndpoint = url.origin === endpoint.origin;
    const headers = {
      'user-agent': USER_AGENT,
      // Some registries compress blobs otherwise, and the digest is that of the plain bytes.
      'accept-encoding': 'identity',
      ...request.headers,
      ...(authorization === null || authorization === '' ? {} : { authorization }),
    };
    const raw = {
      method: request.method,
      headers,
      reach: reachOf(url, endpoint, this.#connections),
      where: isEndpoint ? 'endpoint' : 'target',
      proxy: route.proxy,
      ca: authoritiesFor(url, route),
      signal: request.signal,
      stallTimeout: this.#stallTimeout(),
    } as const;
    if (isEndpoint) admission.sends();
    const response = await exchange(url, raw, {
      connections: this.#connections,
      pools: this.#pools,
      registry: rowOf(route),
      purpose,
      holder: { item: repository, ...request.holder },
      counted: this.#counted,
      hedgeAfter,
      mayHedge: () => !isEndpoint || admission.again(),
    });
    if (isEndpoint) admission.answered(response.status, response.headers);
    return response;
  }
}

/** The headers of a request for a manifest. */
export function manifestRequestHeaders(accept: string | undefined): Record<string, string> {
  // ghcr.io answers MANIFEST_UNKNOWN for an index where Accept lacks its type, so for a client without Accept all types are named.
  return { accept: accept ?? parseAccept(undefined).header };
}

export interface BlobRequest {
  readonly method: UpstreamRequest['method'];
  /** `to` is exclusive; null for the whole blob. */
  readonly range: { readonly from: number; readonly to?: number | undefined } | null;
  readonly signal: AbortSignal;
  readonly purpose: UpstreamRequest['purpose'];
  readonly holder?: AcquireOptions;
  readonly hedgeAfter?: number;
  readonly isAdditional?: boolean;
}

/**
 * Requests a blob or a range of it; resolves to the response whatever its status.
 * @throws {InvalidResponseError} for a response to GET with the status of success that cannot be it
 */
export async function requestBlob(
  requester: Requester,
  route: Route,
  endpoint: URL,
  key: BlobKey,
  { range, ...request }: BlobRequest,
): Promise<UpstreamResponse> {
  const headers: Record<string, string> = { accept: '*/*' };
  if (range !== null) headers.range = `bytes=${range.from}-${range.to === undefined ? '' : range.to - 1}`;
  const path = `/v2/${key.repository}/blobs/${key.digest}`;
  const what = 'blobs';
  const response = await requester.send({
    route,
    endpoint,
    path,
    what,
    repository: key.repository,
    headers,
    ...request,
  });
  const isSuccess = response.status === 200 || response.status === 206;
  const wrong = request.method === 'GET' && isSuccess ? blobContradiction(response, key.digest) : null;
  if (wrong === null) return response;
  cutOff(response.body);
  throw new InvalidResponseError(wrong);
}

function challengesOf(response: RawResponse): AuthChallenge[] {
  return parseChallenges(headerList(response.headers, 'www-authenticate'));
}
