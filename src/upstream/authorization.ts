import { LRUCache } from 'lru-cache';
import type { Askers } from '../kit/askers.ts';
import { SingleFlight } from '../kit/async.ts';
import { parseJsonObject } from '../kit/json.ts';
import type { Credentials } from '../oci/credentials.ts';
import { readPlain } from './content-encoding.ts';
import { authoritiesFor, type CredentialScope, isOwnRealm } from './credential-scope.ts';
import { asDocument, DOCUMENT_MS, type DocumentWork } from './document-deadline.ts';
import { exchange } from './exchange.ts';
import { CredentialsWithheldError, StatusError, TokenRefusedError, type Where } from './failures.ts';
import type { OutgoingConnections, RawRequest, ResponseHeaders } from './net/connections.ts';
import { checkTarget, follow, isRedirect, MAX_REDIRECTS, reachOf } from './net/egress.ts';
import { NO_REASON, type OwnReason } from './own-reason.ts';
import type { Pools } from './pools.ts';
import type { RequestMetrics } from './request-metrics.ts';
import { discard, header, headerList, ownReasonOf, retryAfterOf } from './responses.ts';
import type { Route } from './upstream.ts';

/** One challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1); scheme and parameter names in lower case. */
export interface AuthChallenge {
  readonly scheme: string;
  readonly params: ReadonlyMap<string, string>;
}

const CLIENT_ID = 'registry-gateway';
export const USER_AGENT = `${CLIENT_ID}/0.1 (pull-through gateway)`;

const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]/;

/**
 * Parses a `WWW-Authenticate` header: several challenges in one, commas within quotes, any case. Malformed parts are skipped, since some
 * registries send them.
 */
export function parseChallenges(header: string): AuthChallenge[] {
  const found: { scheme: string; params: Map<string, string> }[] = [];
  let at = 0;

  const skipSpace = (): void => {
    while (header[at] === ' ' || header[at] === '\t') at++;
  };
  const token = (): string => {
    const start = at;
    while (at < header.length && TOKEN.test(header.charAt(at))) at++;
    return header.slice(start, at);
  };
  const quoted = (): string => {
    let text = '';
    for (at++; at < header.length && header[at] !== '"'; at++) {
      if (header[at] === '\\') at++;
      text += header.charAt(at);
    }
    at++;
    return text;
  };
  const bare = (): string => {
    const start = at;
    while (at < header.length && header[at] !== ',' && header[at] !== ' ' && header[at] !== '\t') at++;
    return header.slice(start, at);
  };

  while (at < header.length) {
    const name = token();
    if (name === '') {
      at++;
      continue;
    }
    skipSpace();
    if (header[at] !== '=') {
      found.push({ scheme: name.toLowerCase(), params: new Map() });
      continue;
    }
    at++;
    skipSpace();
    const value = header[at] === '"' ? quoted() : bare();
    found.at(-1)?.params.set(name.toLowerCase(), value);
  }
  return found;
}

/** What a Bearer challenge asks for; together with the credentials it identifies a token. */
export interface TokenDemand {
  readonly realm: string;
  readonly service: string;
  readonly scope: string;
}

/** How requests are authorised. */
export type AuthScheme = { readonly kind: 'basic' } | { readonly kind: 'bearer'; readonly demand: TokenDemand };

/** Characters of a challenge's realm, service and scope together. Thousands are kept; those of real registries have some 200. */
const MAX_DEMAND = 4096;

/**
 * The challenge to respond to: Bearer where offered with a usable realm, Basic only with credentials configured for that registry; null
 * where there is none.
 * @param from the URL whose answer has the challenges
 */
export function chooseScheme(
  challenges: readonly AuthChallenge[],
  from: URL,
  credentials: Credentials | null,
  repository: string,
): AuthScheme | null {
  for (const { scheme, params } of challenges) {
    const realm = realmUrl(params.get('realm')?.trim() ?? '', from);
    if (scheme !== 'bearer' || realm === null) continue;
    const scope = params.get('scope') || `repository:${repository}:pull`;
    const service = params.get('service') ?? '';
    if (realm.length + service.length + scope.length > MAX_DEMAND) continue;
    return { kind: 'bearer', demand: { realm, service, scope } };
  }
  const offersBasic = challenges.some((challenge) => challenge.scheme === 'basic');
  return offersBasic && credentials !== null ? { kind: 'basic' } : null;
}

/**
 * The realm as an absolute URL. It should be one, but some registries write a path of their own (`/token`), or a host and a path without a scheme
 * (`auth.example.com/token`); null where it is neither.
 */
function realmUrl(text: string, from: URL): string | null {
  const written = /^[a-z][a-z0-9+-]*:\/\//i.test(text);
  // What begins with a host would be taken for a path, or, with a port, for a scheme.
  const hasHost = /^[\w-]+(\.[\w-]+)*(:\d+)?\//.test(text) && /^[^/]*[.:]/.test(text);
  if (!written && !hasHost && !text.startsWith('/')) return null;
  const url = hasHost && !written ? `${from.protocol}//${text}` : text;
  return URL.canParse(url, from.href) ? new URL(url, from).href : null;
}

/** The value of an `Authorization` header (RFC 7617). */
export function basicAuthorization({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/** What of credentials nobody is to read in a stranger's words: a host may repeat them from a header, the form of a POST, or a URL. */
export function secretsOf(credentials: Credentials): string[] {
  const secrets = [credentials.password, credentials.identityToken ?? ''].filter((secret) => secret !== '');
  const written = secrets.flatMap((secret) => [
    secret,
    encodeURIComponent(secret),
    new URLSearchParams({ p: secret }).toString().slice('p='.length),
  ]);
  return [...written, basicAuthorization(credentials).slice('Basic '.length)];
}

/** Bytes of a token endpoint's response, which is a few KiB; Docker Hub's are about 5. */
const RESPONSE_LIMIT = 64 * 1024;
/** *Token Authentication Specification*: 60 s where no `expires_in` is sent, and never less. */
const MIN_LIFETIME_S = 60;
const MAX_LIFETIME_S = 24 * 3600;
/** A token is dropped this much before its end, so that it does not expire on the way to the registry. */
const EXPIRY_MARGIN_S = 3;
const MAX_TOKENS = 4096;
/** Characters of one token, which goes out in a header; Docker Hub's have some 3,000. */
const MAX_TOKEN = 16 * 1024;
/** Characters of all tokens that are kept. */
const MAX_TOKENS_SIZE = 16 * 1024 * 1024;

/** On whose behalf a token is fetched. */
export interface TokenContext {
  /** Where the credentials belong. */
  readonly scope: CredentialScope & Pick<Route, 'ca'>;
  /** The row of the table, and the repository: whose share of the connections the request uses. */
  readonly registry: string;
  readonly repository: string;
  /** Whose token it is: the endpoint's own, or that of a host that it redirects to. */
  readonly where: Extract<Where, 'realm' | 'target'>;
  readonly endpoint: URL;
  readonly proxy: string | null;
  readonly stallTimeout: number;
}

/** Bearer tokens (distribution *Token Authentication*), kept by realm, service, scope and credentials; at most one request runs for each. */
export class Tokens {
  readonly #connections: OutgoingConnections;
  readonly #pools: Pools;
  readonly #counted: RequestMetrics;
  readonly #kept = new LRUCache<string, string>({
    max: MAX_TOKENS,
    maxSize: MAX_TOKENS_SIZE,
    sizeCalculation: (token) => token.length,
  });
  readonly #flights = new SingleFlight<string>();
  /** Realms that take no GET. */
  readonly #wantsPost = new LRUCache<string, true>({ max: MAX_TOKENS });

  constructor(connections: OutgoingConnections, pools: Pools, counted: RequestMetrics) {
    this.#counted = counted;
    this.#connections = connections;
    this.#pools = pools;
  }

  /** The token that is kept, null where it must be fetched. */
  kept(demand: TokenDemand, credentials: Credentials | null): string | null {
    return this.#kept.get(keyOf(demand, credentials)) ?? null;
  }

  /** Forgets a token that the registry refused, unless another request has replaced it meanwhile. */
  drop(demand: TokenDemand, credentials: Credentials | null, token: string): void {
    const key = keyOf(demand, credentials);
    if (this.#kept.peek(key) === token) this.#kept.delete(key);
  }

  /** @throws {CredentialsWithheldError} for a realm that may not have them, {TokenRefusedError} where it refuses, {StatusError} where it fails, and what connections throw. */
  fetch(
    demand: TokenDemand,
    credentials: Credentials | null,
    context: TokenContext,
    askers: Askers | undefined,
  ): Promise<string> {
    const key = keyOf(demand, credentials);
    // A flight for each registry: one that names another's realm must not have that one wait in its own queue.
    const task = async (all: Askers): Promise<string> => {
      const { token, lifetime } = await this.#request(demand, credentials, context, all);
      this.#kept.set(key, token, { ttl: (lifetime - EXPIRY_MARGIN_S) * 1000 });
      return token;
    };
    return this.#flights.do(`${context.registry} ${context.where} ${key}`, task, askers);
  }

  async #request(
    demand: TokenDemand,
    credentials: Credentials | null,
    context: TokenContext,
    askers: Askers,
  ): Promise<{ token: string; lifetime: number }> {
    const url = new URL(demand.realm);
    checkTarget(url, context.endpoint, 'a token realm');
    if (credentials !== null) requireOwnRealm(url, context.scope);
    // Not the signal of one caller: others wait for the same token.
    const ms = Math.min(DOCUMENT_MS, context.stallTimeout * 2);
    const limits = { ms, what: "its token endpoint's answer", askers };
    return await asDocument(context.registry, null, limits, async (work) => {
      const ask = (question: TokenQuestion) => this.#follow(question, credentials !== null, context, work);
      const post = this.#wantsPost.has(demand.realm) || credentials?.identityToken !== undefined;
      if (post) return await ask(byPost(url, demand, credentials));
      try {
        return await ask(byGet(url, demand, credentials));
      } catch (error) {
        if (!(error instanceof StatusError) || !NO_GET.has(error.status)) throw error;
        const token = await ask(byPost(url, demand, credentials));
        // Only now: some proxy on the way may have answered so once, and many a realm that takes GET gives nothing by POST.
        this.#wantsPost.set(demand.realm, true);
        return token;
      }
    });
  }

  async #follow(
    question: TokenQuestion,
    withCredentials: boolean,
    context: TokenContext,
    { signal, holder }: DocumentWork,
  ): Promise<{ token: string; lifetime: number }> {
    const { registry, repository, endpoint, where } = context;
    let { url, ...how } = question;
    for (let hops = 0; ; hops++) {
      const request = {
        ...how,
        reach: reachOf(url, endpoint, this.#connections),
        where: url.origin === endpoint.origin ? 'endpoint' : where,
        proxy: context.proxy,
        ca: authoritiesFor(url, context.scope),
        signal,
        stallTimeout: context.stallTimeout,
      } as const;
      const response = await exchange(url, request, {
        connections: this.#connections,
        pools: this.#pools,
        registry,
        purpose: 'document',
        holder: { item: repository, ...holder },
        counted: this.#counted,
      });
      const { status, headers, body } = response;
      if (status === 200) {
        const encodings = headerList(headers, 'content-encoding');
        return readToken(await readPlain(body, encodings, RESPONSE_LIMIT), url, where);
      }
      if (!isRedirect(status) || hops >= MAX_REDIRECTS) {
        const said = await ownReasonOf(response);
        if ([400, 401, 403, 404].includes(status)) throw new TokenRefusedError(status, url.host, where, false, said);
        throw realmError(status, url, where, `its token endpoint answered ${status}`, { headers, said });
      }
      discard(body);
      const next = follow(header(headers, 'location'), url, endpoint);
      // Without them the realm would give a token that opens less than the operator was promised: better an error that says so.
      if (withCredentials) requireOwnRealm(next, context.scope);
      url = next;
    }
  }
}

/** Statuses of a token endpoint that has no GET (RFC 9110 §15.5.6, §15.6.2). */
const NO_GET: ReadonlySet<number> = new Set([405, 501]);

/** One way to ask for a token. */
interface TokenQuestion extends Pick<RawRequest, 'method' | 'headers' | 'body'> {
  readonly url: URL;
}

const TOKEN_HEADERS = { accept: 'application/json', 'accept-encoding': 'identity', 'user-agent': USER_AGENT };

/** distribution, *Token Authentication Specification*. */
function byGet(realm: URL, { service, scope }: TokenDemand, credentials: Credentials | null): TokenQuestion {
  const url = new URL(realm);
  if (service !== '') url.searchParams.set('service', service);
  for (const each of scope.split(' ')) if (each !== '') url.searchParams.append('scope', each);
  if (credentials === null) return { method: 'GET', url, headers: TOKEN_HEADERS };
  url.searchParams.set('account', credentials.username);
  return { method: 'GET', url, headers: { ...TOKEN_HEADERS, authorization: basicAuthorization(credentials) } };
}

/** distribution, *OAuth2 Token Authentication*: for endpoints that take no GET. Without credentials: RFC 6749 §4.4, as a client that has no secret. */
function byPost(url: URL, { service, scope }: TokenDemand, credentials: Credentials | null): TokenQuestion {
  const form = new URLSearchParams({ service, scope, client_id: CLIENT_ID });
  if (credentials === null) form.set('grant_type', 'client_credentials');
  else if (credentials.identityToken !== undefined) {
    form.set('grant_type', 'refresh_token');
    form.set('refresh_token', credentials.identityToken);
  } else {
    form.set('grant_type', 'password');
    form.set('username', credentials.username);
    form.set('password', credentials.password);
  }
  const headers = { ...TOKEN_HEADERS, 'content-type': 'application/x-www-form-urlencoded' };
  return { method: 'POST', url, headers, body: form.toString() };
}

/** @throws {CredentialsWithheldError} */
export function requireOwnRealm(url: URL, scope: CredentialScope): void {
  if (!isOwnRealm(url, scope)) throw new CredentialsWithheldError(url.host);
}

function realmError(
  status: number,
  url: URL,
  where: Where,
  reason: string,
  { headers = {}, said = NO_REASON }: { headers?: ResponseHeaders; said?: OwnReason } = {},
): StatusError {
  const error = new StatusError(status, url.host, retryAfterOf(headers), reason);
  error.where = where;
  error.said = said;
  return error;
}

function keyOf(demand: TokenDemand, credentials: Credentials | null): string {
  const { username, password, identityToken } = credentials ?? {};
  return JSON.stringify([demand.realm, demand.service, demand.scope, username, password, identityToken]);
}

function readToken(body: Buffer, url: URL, where: Where): { token: string; lifetime: number } {
  const fields = parseJsonObject(body) ?? {};
  const token = fields.token || fields.access_token;
  // It is sent in a header: visible ASCII only.
  if (typeof token !== 'string' || token.length > MAX_TOKEN || !/^[\x21-\x7e]+$/.test(token))
    throw realmError(200, url, where, 'its token endpoint gave no token');
  const expiresIn = typeof fields.expires_in === 'number' && Number.isFinite(fields.expires_in) ? fields.expires_in : 0;
  return { token, lifetime: Math.min(MAX_LIFETIME_S, Math.max(MIN_LIFETIME_S, expiresIn)) };
}
