import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { Config } from '../config/config.ts';
import { readBounded } from '../kit/http.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { basicAuthorization, chooseScheme, parseChallenges, Tokens, USER_AGENT } from './authorization.ts';
import { authoritiesFor, isOwnTarget } from './credential-scope.ts';
import { urlAt } from './endpoint-url.ts';
import { isTimeout } from './failures.ts';
import { OutgoingConnections, type RawResponse } from './net/connections.ts';
import { bareHost, follow, isRedirect, MAX_REDIRECTS, ProxyChoice, type ProxyServer, reachOf } from './net/egress.ts';
import { Trust } from './net/trust.ts';
import { MAX_WAIT_MS, Pools } from './pools.ts';
import { POOLS } from './registry-upstream.ts';
import { RequestMetrics } from './request-metrics.ts';
import { header, headerList } from './responses.ts';
import type { Route } from './upstream.ts';

/** Milliseconds for all of it: enough for a slow link, and not too long for a person who waits for the command. */
const CHECK_TIMEOUT = 8_000;
/** For a look at who answers there, after the answer itself has failed, ms. */
const LOOK_TIMEOUT = 2_000;
/** Of an answer, to see whether it is a web page. */
const SAMPLE = 64 * 1024;

/** What an endpoint said to `GET /v2/` (distribution-spec, *Determining Support*), and to whoever comes with the token that it wants. */
export interface RegistryAnswer {
  /** Of the last answer; null where there was none. */
  readonly status: number | null;
  /** Milliseconds until the headers of the first answer had come. */
  readonly ms: number;
  /** The `Date` header, ms since 1970; null where there is none. */
  readonly serverTime: number | null;
  /** The host of the last answer, where redirects led away from the endpoint. */
  readonly redirectedTo: string | null;
  /** `registry`: by its headers or its JSON. `page`: HTML, which no registry sends. */
  readonly looksLike: 'registry' | 'page' | 'other' | null;
  /** Plain HTTP was spoken to a port of HTTPS, or the other way round. */
  readonly otherScheme: boolean;
  /** What the credentials are worth; `anonymous` where there are none: a token was given, or none was asked for. `unknown`: it was not found out. */
  readonly login: 'accepted' | 'refused' | 'anonymous' | 'wanted' | 'unknown';
  /** The proxy on the way. */
  readonly proxy: Pick<ProxyServer, 'host' | 'port' | 'resolves'> | null;
  /** Why there is no answer, or no token; as connections, realms and proxies throw it. */
  readonly failure: Error | null;
  /** Where a certificate was refused, and no proxy is in between: whose it is. */
  readonly certificate: PeerCertificate | null;
}

/** What is known before anybody has answered. */
export const NO_ANSWER: RegistryAnswer = {
  status: null,
  ms: 0,
  serverTime: null,
  redirectedTo: null,
  looksLike: null,
  otherScheme: false,
  login: 'unknown',
  proxy: null,
  failure: null,
  certificate: null,
};

/** Nothing of it was verified. */
export interface PeerCertificate {
  /** `CN=Corp Root, O=Corp`. */
  readonly issuer: string;
  /** ms since 1970. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** Names that it is for, as they are written in it. */
  readonly names: string;
}

type Findings = { -readonly [N in keyof RegistryAnswer]: RegistryAnswer[N] };

/**
 * Asks endpoints of registries as a pull would, through the proxies that pulls use, with what they are logged in with: for `alias add`,
 * `registry set` and `doctor`. It has connections and tokens of its own, so that neither a pull nor the health that is kept of an endpoint is affected.
 */
export class RegistryCheck {
  readonly #choice: ProxyChoice;
  readonly #connections: OutgoingConnections;
  readonly #tokens: Tokens;
  readonly #timeout: number;

  /** @throws {OperatorError} `CA_INVALID` */
  constructor(
    config: Pick<Config['upstream'], 'proxy' | 'caFile'>,
    pseudonym: string,
    {
      environment = process.env,
      timeout = CHECK_TIMEOUT,
    }: { environment?: Readonly<Record<string, string | undefined>>; timeout?: number } = {},
  ) {
    this.#timeout = timeout;
    this.#choice = new ProxyChoice(config.proxy, environment);
    this.#connections = new OutgoingConnections(this.#choice, new Trust(config.caFile), pseudonym);
    this.#tokens = new Tokens(this.#connections, new Pools(POOLS, MAX_WAIT_MS), new RequestMetrics(new Metrics()));
  }

  /** The proxy on the way to an endpoint; null where there is none. */
  proxyFor(route: Route, endpoint: string): ProxyServer | null {
    return this.#choice.for(new URL(endpoint), route.proxy);
  }

  /** Ends within ten seconds. @throws the signal's reason */
  async ask(route: Route, endpoint: string, signal: AbortSignal): Promise<RegistryAnswer> {
    const url = new URL(endpoint);
    const found: Findings = { ...NO_ANSWER };
    const within = AbortSignal.any([signal, AbortSignal.timeout(this.#timeout)]);
    try {
      found.proxy = this.#choice.for(url, route.proxy);
      await this.#ask(route, url, within, found);
    } catch (error) {
      signal.throwIfAborted();
      found.failure = error as Error;
      // Where nobody answered in all that time nobody is there to be looked at.
      if (found.proxy === null && found.status === null && !isTimeout(error))
        await this.#look(url, route, signal, found);
    }
    return found;
  }

  close(): Promise<void> {
    return this.#connections.close();
  }

  async #ask(route: Route, endpoint: URL, signal: AbortSignal, found: Findings): Promise<void> {
    const start = performance.now();
    let url = urlAt(endpoint, '/v2/');
    let response = await this.#send(route, endpoint, url, signal);
    found.ms = performance.now() - start;
    for (let hops = 0; isRedirect(response.status) && hops < MAX_REDIRECTS; hops++) {
      response.body.on('error', () => {}).destroy();
      url = follow(header(response.headers, 'location'), url, endpoint);
      response = await this.#send(route, endpoint, url, signal);
    }
    if (url.origin !== endpoint.origin) found.redirectedTo = url.host;
    await readInto(found, response);
    found.otherScheme = url.protocol === 'http:' && found.status === 400 && found.looksLike !== 'registry';
    if (found.status === 200) found.login = route.credentials === null ? 'anonymous' : 'unknown';
    if (found.status === 401) await this.#logIn(route, endpoint, url, response, signal, found);
  }

  /** With what the registry is logged in with, else with the token that everybody gets. */
  async #logIn(
    route: Route,
    endpoint: URL,
    url: URL,
    response: RawResponse,
    signal: AbortSignal,
    found: Findings,
  ): Promise<void> {
    const credentials = isOwnTarget(url, endpoint, route) ? route.credentials : null;
    const challenges = parseChallenges(headerList(response.headers, 'www-authenticate'));
    if (challenges.length > 0) found.looksLike = 'registry';
    const scheme = chooseScheme(challenges, url, credentials, '');
    if (scheme === null) {
      found.login = challenges.some((one) => one.scheme === 'basic') ? 'wanted' : 'unknown';
      return;
    }
    let authorization: string;
    try {
      authorization =
        scheme.kind === 'basic'
          ? basicAuthorization(credentials ?? { username: '', password: '' })
          : `Bearer ${await this.#tokens.fetch(
              // Of no repository, as `docker login` asks for it: what a token may open is each repository's own question.
              { ...scheme.demand, scope: '' },
              credentials,
              {
                scope: route,
                registry: route.host,
                repository: '',
                where: url.origin === endpoint.origin ? 'realm' : 'target',
                endpoint,
                proxy: route.proxy,
                stallTimeout: this.#timeout / 2,
              },
              undefined,
            )}`;
    } catch (error) {
      signal.throwIfAborted();
      found.failure = error as Error;
      return;
    }
    const again = await this.#send(route, endpoint, url, signal, authorization);
    await readInto(found, again);
    // A token of no repository may open nothing, not even /v2/: that it was given says enough.
    const isGiven = again.status !== 401 || scheme.kind === 'bearer';
    found.login = credentials === null ? 'anonymous' : isGiven ? 'accepted' : 'refused';
  }

  #send(route: Route, endpoint: URL, url: URL, signal: AbortSignal, authorization?: string): Promise<RawResponse> {
    return this.#connections.request(url, {
      method: 'GET',
      headers: {
        accept: 'application/json, */*',
        'accept-encoding': 'identity',
        'user-agent': USER_AGENT,
        ...(authorization === undefined ? {} : { authorization }),
      },
      reach: reachOf(url, endpoint, this.#connections),
      where: url.origin === endpoint.origin ? 'endpoint' : 'target',
      proxy: route.proxy,
      ca: authoritiesFor(url, route),
      signal,
      stallTimeout: this.#timeout,
    });
  }

  /** Who is there, where the answer failed: the certificate that was refused, or TLS in place of plain HTTP. Nothing is sent. */
  async #look(url: URL, route: Route, signal: AbortSignal, found: Findings): Promise<void> {
    const within = AbortSignal.any([signal, AbortSignal.timeout(LOOK_TIMEOUT)]);
    const certificate = await peerCertificate(url, within);
    if (url.protocol === 'http:') found.otherScheme = certificate !== null;
    else if (certificate !== null) found.certificate = certificate;
    else {
      // It does not speak TLS: perhaps what it speaks is HTTP.
      const plain = new URL(url);
      plain.protocol = 'http:';
      plain.port = url.port === '' ? '443' : url.port;
      const answered = await this.#send(
        { ...route, endpoints: [plain.href] },
        plain,
        urlAt(plain, '/v2/'),
        within,
      ).then(
        (response) => response.body.on('error', () => {}).destroy(),
        () => null,
      );
      found.otherScheme = answered !== null;
    }
    signal.throwIfAborted();
  }
}

async function readInto(found: Findings, { status, headers, body }: RawResponse): Promise<void> {
  const date = Date.parse(String(headers.date));
  const text = await readBounded(body, SAMPLE).then(String, () => '');
  const type = header(headers, 'content-type')?.toLowerCase() ?? '';
  found.status = status;
  if (!Number.isNaN(date)) found.serverTime = date;
  const isPage = type.startsWith('text/html') || /^\s*<(!doctype|html)/i.test(text);
  const isRegistry = headers['docker-distribution-api-version'] !== undefined || /^\s*\{/.test(text);
  found.looksLike = isPage ? 'page' : isRegistry ? 'registry' : 'other';
}

/** Null where no TLS is spoken. */
function peerCertificate(url: URL, signal: AbortSignal): Promise<PeerCertificate | null> {
  return new Promise((resolve) => {
    const host = bareHost(url.hostname);
    const port = Number(url.port) || (url.protocol === 'https:' ? 443 : 80);
    const isName = !/^[\d.]+$|:/.test(host);
    // Nothing is sent to it, and nothing of it is believed.
    const socket: TLSSocket = connectTls(
      { host, port, rejectUnauthorized: false, ...(isName ? { servername: host } : {}) },
      () => {
        const certificate = socket.getPeerX509Certificate();
        socket.destroy();
        if (certificate === undefined) return resolve(null);
        const { issuer, validFromDate, validToDate, subjectAltName = '' } = certificate;
        resolve({
          issuer: issuer.split('\n').reverse().join(', '),
          notBefore: validFromDate.getTime(),
          notAfter: validToDate.getTime(),
          names: subjectAltName.replaceAll(/(DNS|IP Address):/g, ''),
        });
      },
    );
    socket.on('error', () => resolve(null));
    signal.addEventListener('abort', () => {
      socket.destroy();
      resolve(null);
    });
  });
}
