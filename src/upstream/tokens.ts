import { readBounded } from '../kit/bounded.ts';
import { SingleFlight } from '../kit/single-flight.ts';
import type { Budget } from './budget.ts';
import type { Challenge } from './challenge.ts';
import type { Connections } from './connections.ts';
import { StatusError, TokenRefusedError } from './failures.ts';
import { discard, header, retryAfterOf } from './headers.ts';
import { checkPointed, follow, isRedirect, MAX_REDIRECTS, reachOf } from './redirects.ts';

/** A token answer is a few KiB; Docker Hub's are about 5. */
const TOKEN_LIMIT = 64 * 1024;
/** Token specification: where nothing is said, 60 s; and clients must not rely on less. */
const MIN_LIFETIME_S = 60;
const MAX_LIFETIME_S = 24 * 3600;
/** Given up a little early, for the way to the registry takes time. */
const EARLY_S = 3;
/** Tokens kept; the oldest go first. */
const MAX_TOKENS = 4096;

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** Who wants a token, and from where. */
export interface TokenContext {
  readonly endpoint: URL;
  readonly proxy: string | null;
  readonly stallTimeout: number;
}

/** What a Bearer challenge asks for: with the credentials it is the key of the token. */
export interface Demand {
  readonly realm: string;
  readonly service: string;
  readonly scope: string;
}

/** Reads a Bearer challenge; null without a usable realm. */
export function demandOf(challenge: Challenge, scope: string): Demand | null {
  const realm = challenge.params.get('realm');
  if (challenge.scheme !== 'bearer' || realm === undefined || !URL.canParse(realm)) return null;
  return { realm, service: challenge.params.get('service') ?? '', scope: challenge.params.get('scope') || scope };
}

/** Bearer tokens (distribution *Token Authentication*), kept by realm, service, scope and credentials; one fetch in flight for each. */
export class Tokens {
  readonly #connections: Connections;
  readonly #sockets: Budget;
  readonly #kept = new Map<string, { token: string; expires: number }>();
  readonly #flights = new SingleFlight<string>();

  constructor(connections: Connections, sockets: Budget) {
    this.#connections = connections;
    this.#sockets = sockets;
  }

  /** The token at hand, null where it must be fetched. */
  kept(demand: Demand, credentials: Credentials | null): string | null {
    const found = this.#kept.get(keyOf(demand, credentials));
    return found !== undefined && found.expires > performance.now() ? found.token : null;
  }

  /** Forgets a token that was refused, unless another has taken its place meanwhile. */
  drop(demand: Demand, credentials: Credentials | null, token: string): void {
    const key = keyOf(demand, credentials);
    if (this.#kept.get(key)?.token === token) this.#kept.delete(key);
  }

  /** @throws {TokenRefusedError} where the realm refuses, {StatusError} where it fails, and what connections throw. */
  fetch(demand: Demand, credentials: Credentials | null, context: TokenContext): Promise<string> {
    const key = keyOf(demand, credentials);
    return this.#flights.do(key, async () => {
      const { token, lifetime } = await this.#ask(demand, credentials, context);
      this.#kept.delete(key);
      this.#kept.set(key, { token, expires: performance.now() + (lifetime - EARLY_S) * 1000 });
      for (const oldest of this.#kept.keys()) {
        if (this.#kept.size <= MAX_TOKENS) break;
        this.#kept.delete(oldest);
      }
      return token;
    });
  }

  async #ask(
    demand: Demand,
    credentials: Credentials | null,
    context: TokenContext,
  ): Promise<{ token: string; lifetime: number }> {
    let url = new URL(demand.realm);
    checkPointed(url, context.endpoint, 'a token realm');
    if (demand.service !== '') url.searchParams.set('service', demand.service);
    for (const scope of demand.scope.split(' ')) if (scope !== '') url.searchParams.append('scope', scope);
    const headers: Record<string, string> = {
      accept: 'application/json',
      'accept-encoding': 'identity',
      'user-agent': USER_AGENT,
    };
    if (credentials !== null) {
      url.searchParams.set('account', credentials.username);
      headers.authorization = basic(credentials);
    }
    // Whoever waits may leave; others wait for the same token.
    const signal = AbortSignal.timeout(context.stallTimeout * 2);
    for (let hops = 0; ; hops++) {
      const release = await this.#sockets.acquire('document', url.host, signal);
      const response = await this.#connections
        .request(url, {
          method: 'GET',
          headers,
          reach: reachOf(url, context.endpoint, this.#connections),
          proxy: context.proxy,
          signal,
          stallTimeout: context.stallTimeout,
        })
        .finally(release);
      if (response.status === 200) return readToken(await readBounded(response.body, TOKEN_LIMIT), url);
      discard(response.body);
      if (!isRedirect(response.status) || hops >= MAX_REDIRECTS) {
        const retryAfter = retryAfterOf(response.headers);
        if ([400, 401, 403, 404].includes(response.status)) throw new TokenRefusedError(response.status, url.host);
        throw new StatusError(response.status, url.host, retryAfter);
      }
      const next = follow(header(response.headers, 'location'), url, context.endpoint);
      if (next.origin !== url.origin) delete headers.authorization;
      url = next;
    }
  }
}

export const USER_AGENT = 'registry-gateway/0.1 (pull-through gateway)';

export function basic({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

function keyOf(demand: Demand, credentials: Credentials | null): string {
  return JSON.stringify([demand.realm, demand.service, demand.scope, credentials?.username, credentials?.password]);
}

function readToken(body: Buffer, url: URL): { token: string; lifetime: number } {
  let answer: unknown;
  try {
    answer = JSON.parse(body.toString('utf8'));
  } catch {
    answer = null;
  }
  const fields = (typeof answer === 'object' && answer !== null ? answer : {}) as Record<string, unknown>;
  const token = fields.token || fields.access_token;
  // It goes into a header: nothing but visible ASCII.
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token))
    throw new StatusError(200, url.host, undefined, 'no token in the answer');
  const said = typeof fields.expires_in === 'number' && Number.isFinite(fields.expires_in) ? fields.expires_in : 0;
  return { token, lifetime: Math.min(MAX_LIFETIME_S, Math.max(MIN_LIFETIME_S, said)) };
}
