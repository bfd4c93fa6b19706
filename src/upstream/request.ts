import type { Readable } from 'node:stream';
import type { Budget, Purpose } from './budget.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import type { Connections, RawResponse } from './connections.ts';
import { discardWhole, type Headers, header, headerList } from './headers.ts';
import { follow, isRedirect, MAX_REDIRECTS, RedirectError, reachOf } from './redirects.ts';
import {
  basic,
  type Credentials,
  type Demand,
  demandOf,
  type TokenContext,
  type Tokens,
  USER_AGENT,
} from './tokens.ts';
import type { Route } from './upstream.ts';

/** How a repository's requests to one origin are authorised; remembered so that the next one is not refused first. */
type Scheme = { readonly kind: 'basic' } | { readonly kind: 'bearer'; readonly demand: Demand };

/** Remembered schemes; the oldest go first. */
const MAX_SCHEMES = 4096;

export interface Ask {
  readonly route: Route;
  readonly endpoint: URL;
  /** Behind the endpoint: `/v2/library/alpine/manifests/latest`. */
  readonly path: string;
  readonly repository: string;
  readonly method: 'GET' | 'HEAD';
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** What the sockets are wanted for; null where the caller holds a permit for them. */
  readonly purpose: Purpose | null;
}

/** The last answer after challenges and redirects; its body is to be read to the end or destroyed. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Readable;
  /** Where it came from in the end. */
  readonly url: URL;
}

/** One request to one endpoint, with what it takes to be answered: tokens, Basic credentials, redirects. No retries. */
export class Requester {
  readonly #connections: Connections;
  readonly #tokens: Tokens;
  readonly #sockets: Budget;
  readonly #stallTimeout: number;
  readonly #schemes = new Map<string, Scheme>();

  constructor(connections: Connections, tokens: Tokens, sockets: Budget, stallTimeout: number) {
    this.#connections = connections;
    this.#sockets = sockets;
    this.#tokens = tokens;
    this.#stallTimeout = stallTimeout;
  }

  async send(ask: Ask): Promise<Answer> {
    let url = new URL(ask.endpoint.href.replace(/\/$/, '') + ask.path);
    for (let hops = 0; ; hops++) {
      const response = await this.#authorised(url, ask);
      if (!isRedirect(response.status)) return { ...response, url };
      await discardWhole(response.body);
      if (hops === MAX_REDIRECTS)
        throw new RedirectError(`more than ${MAX_REDIRECTS} redirects, the last from ${url.host}`);
      url = follow(header(response.headers, 'location'), url, ask.endpoint);
    }
  }

  /**
   * One hop. Each origin is authorised for itself: the operator's credentials are for the endpoint's own, and whatever else a redirect
   * leads to (another registry, as cr.l5d.io does, or a CDN) is asked with an anonymous token or with nothing.
   */
  async #authorised(url: URL, ask: Ask): Promise<RawResponse> {
    const credentials = url.origin === ask.endpoint.origin ? ask.route.credentials : null;
    const key = JSON.stringify([url.origin, ask.repository, credentials?.username]);
    const context = { endpoint: ask.endpoint, proxy: ask.route.proxy, stallTimeout: this.#stallTimeout };
    const known = this.#schemes.get(key);

    if (known !== undefined) {
      const authorization = await this.#authorization(known, credentials, context, ask.signal);
      const response = await this.#once(url, ask, authorization);
      if (response.status !== 401) return response;
      if (known.kind === 'bearer') this.#tokens.drop(known.demand, credentials, authorization.slice('Bearer '.length));
      const asked = choose(challengesOf(response), credentials, ask.repository);
      const same = known.kind === 'bearer' && asked?.kind === 'bearer' && asked.demand.realm === known.demand.realm;
      if (!same) this.#schemes.delete(key);
      else {
        await discardWhole(response.body);
        return await this.#answerTo(asked, url, ask, key, credentials, context);
      }
      // nvcr.io challenges an expired token with a realm that leads nowhere: start over without one.
      await discardWhole(response.body);
    }
    const response = await this.#once(url, ask, null);
    if (response.status !== 401) return response;
    const asked = choose(challengesOf(response), credentials, ask.repository);
    if (asked === null) return response;
    await discardWhole(response.body);
    return await this.#answerTo(asked, url, ask, key, credentials, context);
  }

  /** Answers a challenge once; a 401 after that is final. */
  async #answerTo(
    scheme: Scheme,
    url: URL,
    ask: Ask,
    key: string,
    credentials: Credentials | null,
    context: TokenContext,
  ): Promise<RawResponse> {
    const authorization = await this.#authorization(scheme, credentials, context, ask.signal);
    this.#schemes.delete(key);
    this.#schemes.set(key, scheme);
    for (const oldest of this.#schemes.keys()) {
      if (this.#schemes.size <= MAX_SCHEMES) break;
      this.#schemes.delete(oldest);
    }
    return await this.#once(url, ask, authorization);
  }

  async #authorization(
    scheme: Scheme,
    credentials: Credentials | null,
    context: TokenContext,
    signal: AbortSignal,
  ): Promise<string> {
    if (scheme.kind === 'basic') return credentials === null ? '' : basic(credentials);
    const kept = this.#tokens.kept(scheme.demand, credentials);
    return `Bearer ${kept ?? (await unlessAborted(this.#tokens.fetch(scheme.demand, credentials, context), signal))}`;
  }

  async #once(url: URL, ask: Ask, authorization: string | null): Promise<RawResponse> {
    const release = ask.purpose === null ? () => {} : await this.#sockets.acquire(ask.purpose, url.host, ask.signal);
    try {
      const response = await this.#connections.request(url, {
        method: ask.method,
        headers: {
          'user-agent': USER_AGENT,
          // Some registries compress blobs, whose digest is over the plain bytes.
          'accept-encoding': 'identity',
          ...ask.headers,
          ...(authorization === null || authorization === '' ? {} : { authorization }),
        },
        reach: reachOf(url, ask.endpoint, this.#connections),
        proxy: ask.route.proxy,
        signal: ask.signal,
        stallTimeout: this.#stallTimeout,
      });
      response.body.once('close', release);
      return response;
    } catch (error) {
      release();
      throw error;
    }
  }
}

function challengesOf(response: RawResponse): Challenge[] {
  return parseChallenges(headerList(response.headers, 'www-authenticate'));
}

/** The challenge to answer: Bearer where offered, Basic only with credentials of that registry. */
function choose(challenges: readonly Challenge[], credentials: Credentials | null, repository: string): Scheme | null {
  for (const challenge of challenges) {
    const demand = demandOf(challenge, `repository:${repository}:pull`);
    if (demand !== null) return { kind: 'bearer', demand };
  }
  const wantsBasic = challenges.some((challenge) => challenge.scheme === 'basic');
  return wantsBasic && credentials !== null ? { kind: 'basic' } : null;
}

/** A wait that its owner may leave while others go on waiting for the same. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const leave = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', leave, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave));
  });
}
