import { isUnknownIssuer } from '../kit/authorities.ts';
import { TooLargeError } from '../kit/http.ts';
import { printable } from '../kit/text.ts';
import { formatSpan, iso } from '../kit/time.ts';
import { type ErrorName, type QuotedReason, RegistryError } from '../oci/errors.ts';
import { movedTo } from '../oci/known-registries.ts';
import { NO_REASON, type OwnReason, quotable } from './own-reason.ts';

/**
 * Where on the way to an answer something failed: at the endpoint itself, at the token endpoint that it names, or at a host that it redirects to
 * (the token endpoint of that host included). Only what the endpoint itself does says something about the endpoint.
 */
export type Where = 'endpoint' | 'realm' | 'target';

/** A response whose status is none of the expected ones. */
export class StatusError extends Error {
  override readonly name = 'StatusError';
  readonly status: number;
  readonly host: string;
  where: Where = 'endpoint';
  /** A denial (401, 403) that every endpoint agrees to. */
  denied = false;
  /** What its `Retry-After` asks for, seconds. */
  readonly retryAfter: number | undefined;
  /** The status of the download host (a CDN behind a redirect), where that is what failed. */
  downloadHostStatus: number | undefined;
  /** It stands for an answer that was not asked for, since the registry said before that it would be this. */
  withheld = false;
  /** A 429 to a HEAD, which says nothing of why. */
  unexplained = false;
  /** What the registry itself says of it. */
  said: OwnReason = NO_REASON;
  /** What happened, without the host. */
  readonly reason: string;

  constructor(status: number, host: string, retryAfter?: number, reason = `it answered ${status}`) {
    super(`${host}: ${reason}`);
    this.reason = reason;
    this.status = status;
    this.host = host;
    this.retryAfter = retryAfter;
  }
}

/** Why no request is sent to a registry now, by what it said before. */
export interface Spent {
  /** Of the endpoint. */
  readonly host: string;
  /** Whom the registry counts: the user of the credentials; null for this gateway's address. For the operator alone. */
  readonly account: string | null;
  /** `reserved`: something is left, for other images. `abuse`: the address sent too many requests of any kind. */
  readonly kind: 'used up' | 'reserved' | 'abuse';
  readonly limit: number | null;
  readonly remaining: number;
  readonly windowMs: number | null;
  /** In how many ms that is otherwise. */
  readonly endsInMs: number;
}

/** A registry's limit is reached: it said so, or would if it were asked. */
export class BudgetError extends StatusError {
  readonly spent: Spent;

  /** @param retryAfter seconds; default: when the limit is new */
  constructor(spent: Spent, retryAfter = spent.endsInMs / 1000) {
    super(429, spent.host, retryAfter, wordsOf(spent));
    this.spent = spent;
  }
}

/** Without the name of an account. */
function wordsOf({ kind, account, limit, remaining, windowMs, endsInMs }: Spent): string {
  const until = iso(Date.now() + endsInMs).replace(/\.\d+Z$/, 'Z');
  const whose = account === null ? "this gateway's address" : "this gateway's account";
  if (kind === 'abuse') return `it has asked ${whose} for a pause until ${until}`;
  const whole = limit === null ? 'pulls' : `${limit} pulls`;
  const span = windowMs === null ? '' : ` in ${formatSpan(windowMs)}`;
  if (kind === 'used up') return `the ${whole}${span} that it allows ${whose} are used up until ${until}`;
  return `${remaining} of the ${whole}${span} that it allows ${whose} are left until ${until}, and kept for images that are not here yet`;
}

/** A token endpoint refused a token; ghcr.io does so with 401 or 403 for a repository that is private or missing. */
export class TokenRefusedError extends Error {
  override readonly name = 'TokenRefusedError';
  readonly status: number;
  readonly host: string;
  readonly where: Where;
  /** As those of {@link StatusError}. */
  readonly denied: boolean;
  readonly said: OwnReason;

  constructor(status: number, host: string, where: Where = 'realm', denied = false, said = NO_REASON) {
    super(`the token endpoint at ${host} answered ${status}`);
    this.status = status;
    this.host = host;
    this.where = where;
    this.denied = denied;
    this.said = said;
  }
}

/** No connection to a host came about: its name does not resolve, it refuses, does not answer, or fails at TLS; or the proxy did. */
export class ConnectError extends Error {
  override readonly name = 'ConnectError';
  readonly host: string;
  readonly where: Where;
  /** The system's or the library's code of what failed. */
  readonly code: string | undefined;

  constructor(host: string, where: Where, cause: unknown) {
    super(reasonOf(cause), { cause });
    this.host = host;
    this.where = where;
    this.code = codeOf(cause);
  }
}

/** A document (a manifest, a token, a list) did not come whole in the time that there is for one, however steadily it came. */
export class SlowDocumentError extends Error {
  override readonly name = 'TimeoutError';

  constructor(what: string, ms: number) {
    super(`${what} was not whole after ${Math.round(ms / 1000)} s`);
  }
}

/** The registry wants its credentials sent to a host where they do not belong; nothing was sent there. */
export class CredentialsWithheldError extends Error {
  override readonly name = 'CredentialsWithheldError';
  /** With its port, where that is not the default. */
  readonly host: string;

  constructor(host: string) {
    super(`credentials are wanted by ${host}, which is outside the registry's own domain: none were sent`);
    this.host = host;
  }
}

/** A response that contradicts the request or an earlier response: another size, a range that was not asked for, no media type. */
export class InvalidResponseError extends Error {
  override readonly name = 'InvalidResponseError';
}

/** A host with no address that the request may be sent to, though an upstream pointed to it. */
export class ForbiddenAddressError extends Error {
  override readonly name = 'ForbiddenAddressError';
  readonly code = 'EADDRFORBIDDEN';
}

/** A redirect or token realm that is not followed; the message says why, without the signature that its URL may carry. */
export class RedirectError extends Error {
  override readonly name = 'RedirectError';
  /** What happened, without the host. */
  readonly reason: string;

  /** @param host where it leads, or comes from; undefined where that is not known */
  constructor(reason: string, host?: string) {
    super(host === undefined ? reason : `${reason} (${host})`);
    this.reason = reason;
  }
}

/** A failure of the proxy, not of the registry behind it; the message names the proxy. */
export class ProxyError extends Error {
  override readonly name = 'ProxyError';
  readonly code = 'EPROXY';
}

/** The sink of a download failed (a full disk): not a fault of the upstream, and no reason to try again. */
export class SinkError extends Error {
  override readonly name = 'SinkError';
}

/** What was requested, so that an error can name it. */
export interface RequestSubject {
  readonly registry: string;
  readonly repository: string;
  /** The error for a 404. */
  readonly missing: 'manifestUnknown' | 'blobUnknown' | 'nameUnknown';
  /** Tag or digest. */
  readonly reference: string;
  /** What must not be told of the registry, wherever it stands in the registry's own words: hosts of its endpoints, its credentials. */
  readonly hidden?: readonly string[];
}

const TIMEOUT_CODES = new Set([
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'ETIMEDOUT',
]);

/** What the system's error codes mean, in words that an operator can act on. */
const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'it refuses connections',
  ECONNRESET: 'it broke the connection',
  EPIPE: 'it broke the connection',
  UND_ERR_SOCKET: 'it broke the connection',
  ENOTFOUND: 'its name does not resolve',
  EAI_AGAIN: 'its name cannot be resolved now',
  EHOSTUNREACH: 'there is no route to it',
  ENETUNREACH: 'there is no route to it',
  UND_ERR_CONNECT_TIMEOUT: 'no connection came about',
  ETIMEDOUT: 'the connection timed out',
  UND_ERR_HEADERS_TIMEOUT: 'no answer began',
  UND_ERR_BODY_TIMEOUT: 'its answer stalled',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet, or the clock of this machine is behind',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is signed by an authority that this machine does not trust',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is self-signed, and this machine does not trust it',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is signed by an authority that this machine does not trust',
  UNABLE_TO_GET_ISSUER_CERT: 'its certificate is signed by an authority that this machine does not trust',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its certificate is signed by an authority that this machine does not trust',
  ERR_SSL_WRONG_VERSION_NUMBER: 'it does not speak TLS',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'it does not speak TLS',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name',
};

/** The longest reason that is told or kept; what a proxy or a library says is shorter, what a hostile one says need not be. */
const MAX_REASON = 300;

/** One sentence about a failure, with no secret in it: for the log and `registry show`. */
export function reasonOf(error: unknown): string {
  // It may hold a stranger's words (a proxy's status line), and is printed to terminals.
  return printable(fullReason(error), MAX_REASON);
}

function fullReason(error: unknown): string {
  if (error instanceof ProxyError) return error.message;
  if (error instanceof ConnectError && error.cause instanceof ProxyError) return error.cause.message;
  const code = codeOf(error);
  const said = (code === undefined ? undefined : WORDS[code]) ?? ownWords(error);
  if (!(error instanceof ConnectError) || error.where === 'endpoint') return said;
  // The words are about the registry otherwise.
  const what = error.where === 'realm' ? 'its token endpoint' : 'the host that it redirects to,';
  return `${what} ${error.host} cannot be connected to: ${said}`;
}

function ownWords(error: unknown): string {
  // The platform's own timeout (AbortSignal.timeout) speaks of an operation, and not of who was waited for.
  if (error instanceof DOMException && error.name === 'TimeoutError') return 'no answer came in time';
  return error instanceof Error ? error.message : String(error);
}

/**
 * One sentence about a failure for clients, who may be strangers: names, addresses and ports of what lies behind a registry (endpoints, token
 * endpoints, redirects' targets, proxies) are the operator's own, and only `reasonOf` has them.
 */
function toldReasonOf(error: unknown): string {
  if (error instanceof ProxyError || (error instanceof ConnectError && error.cause instanceof ProxyError))
    return 'the proxy on the way to it failed';
  if (error instanceof TokenRefusedError) return `its token endpoint answered ${error.status}`;
  if (error instanceof StatusError || error instanceof RedirectError) return error.reason;
  if (error instanceof ForbiddenAddressError) return 'it points to an address that a registry may not point to';
  const fitForAll = [InvalidResponseError, TooLargeError, SlowDocumentError, RegistryError];
  if (fitForAll.some((type) => error instanceof type)) return (error as Error).message;
  const words = WORDS[codeOf(error) ?? ''] ?? (isTimeout(error) ? 'no answer came in time' : 'the connection failed');
  if (!(error instanceof ConnectError) || error.where === 'endpoint') return words;
  const what = error.where === 'realm' ? 'its token endpoint' : 'the host that it redirects to';
  return `${what} cannot be connected to: ${words}`;
}

/** What kind of failure is behind an error, for metrics: of few values, and never a stranger's words. Empty where no registry failed. */
export function reasonClass(error: unknown): string {
  if (error instanceof RegistryError) return error.cause === undefined ? '' : reasonClass(error.cause);
  const found = causes(error);
  if (found.some((cause) => cause instanceof ProxyError)) return 'proxy';
  if (found.some(isCertificateError)) return 'certificate';
  const code = codeOf(error) ?? '';
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'name';
  if (error instanceof ConnectError) return isTimeout(error.cause) ? 'connect timeout' : 'connect';
  if (error instanceof TokenRefusedError) return 'token';
  if (error instanceof StatusError) return error.status >= 500 ? 'status 5xx' : `status ${error.status}`;
  if (isTimeout(error)) return 'timeout';
  const wrong = [InvalidResponseError, RedirectError, ForbiddenAddressError, TooLargeError, CredentialsWithheldError];
  if (wrong.some((type) => error instanceof type)) return 'wrong answer';
  return error instanceof Error ? 'broken off' : '';
}

export function isTimeout(error: unknown): boolean {
  const code = codeOf(error);
  return (code !== undefined && TIMEOUT_CODES.has(code)) || (error instanceof Error && error.name === 'TimeoutError');
}

/** Whether an endpoint could not be connected to, so that no request will reach it. */
export function isOutOfReach(error: unknown): boolean {
  return error instanceof ConnectError && error.where === 'endpoint';
}

/** Whether a failure says nothing about what was asked for: it may be there, but was not given. */
export function isFault(error: unknown): boolean {
  if (error instanceof StatusError) return error.status >= 500 || error.status === 429 || error.status === 408;
  if (error instanceof TokenRefusedError) return !isDenied(error);
  return !(error instanceof CredentialsWithheldError || error instanceof RegistryError);
}

/** Whether it is a 401 or 403, whoever answered so. */
export function isDenied(error: unknown): error is StatusError | TokenRefusedError {
  const answered = error instanceof StatusError || error instanceof TokenRefusedError;
  return answered && (error.status === 401 || error.status === 403);
}

/** Whether this gateway had no connection to spare for the request: no endpoint is at fault, and none can help. */
export function isBusy(error: unknown): error is RegistryError {
  return error instanceof RegistryError && error.kind === 'gatewayBusy';
}

/** Whether the same request to the same endpoint may succeed a moment later. */
export function isWorthRetrying(error: unknown): boolean {
  if (error instanceof StatusError)
    return [500, 502, 503, 504].includes(error.status) && error.retryAfter === undefined;
  const final = [
    TokenRefusedError,
    CredentialsWithheldError,
    RegistryError,
    ForbiddenAddressError,
    RedirectError,
    InvalidResponseError,
    TooLargeError,
  ];
  return !isTimeout(error) && !final.some((type) => error instanceof type) && !isCertificateError(error);
}

/** Docker Hub sends some 429s without a Retry-After; its limit refills steadily, so that after a minute some requests are allowed. */
const DEFAULT_RETRY_AFTER_S = 60;

/** The longest wait that a client is told, seconds: the window of Docker Hub's limit. A client that believed in years would never come back. */
const MAX_RETRY_AFTER_S = 6 * 3600;

/** Maps a failure to the catalogue of errors for clients (oci/errors.ts). Every upstream status is mapped here. */
export function toRegistryError(error: unknown, subject: RequestSubject): RegistryError {
  if (error instanceof RegistryError) return error;
  const { registry, repository, reference } = subject;
  const facts = { registry, repository, reference, digest: reference, reason: toldReasonOf(error) };
  const says = saysOf(error, subject);
  const reason = error instanceof ConnectError ? `${error.host}: ${reasonOf(error)}` : reasonOf(error);
  const whose = error instanceof BudgetError && error.spent.account !== null ? ` (account ${error.spent.account})` : '';
  const operatorReason = `${reason}${whose}${says === undefined ? '' : `, and says: ${says.message}`}`;
  const denied = isDenied(error) && error.denied ? { denied: true } : {};
  const make = (kind: ErrorName, retryAfter?: number, next?: string | null): RegistryError =>
    new RegistryError(kind, {
      facts,
      ...(next ? { next } : {}),
      operatorReason,
      cause: error,
      ...(says === undefined ? {} : { says }),
      ...(retryAfter === undefined ? {} : { retryAfter: Math.min(retryAfter, MAX_RETRY_AFTER_S) }),
      ...denied,
    });

  // Docker Hub does not tell what it has not from what is private.
  const moved = movedTo(registry, repository);
  if (error instanceof TokenRefusedError) {
    if (error.status === 401) return make('upstreamUnauthorized', undefined, moved);
    return error.status === 403 ? make('upstreamDenied', undefined, moved) : make('upstreamFailed');
  }
  if (error instanceof BudgetError) return make('upstreamBudgetSpent', error.retryAfter);
  if (error instanceof StatusError) {
    if (error.status === 401) return make('upstreamUnauthorized', undefined, moved);
    if (error.status === 403) return make('upstreamDenied', undefined, moved);
    if (error.status === 404) return make(subject.missing, undefined, moved);
    if (error.status === 429) return make('upstreamRateLimited', error.retryAfter ?? DEFAULT_RETRY_AFTER_S);
    if (error.status === 408) return make('upstreamTimeout');
    // RFC 5842 §7.2: what is there is a gateway, and the request was on its way round.
    if (error.status === 508) return make('upstreamLoop');
    return make('upstreamFailed', error.retryAfter);
  }
  if (error instanceof CredentialsWithheldError) {
    // The host is named although the client may be a stranger: the registry tells it to whoever asks.
    return new RegistryError('credentialsWithheld', { facts: { registry, realm: error.host }, cause: error });
  }
  const wrong = [InvalidResponseError, RedirectError, ForbiddenAddressError, TooLargeError];
  if (wrong.some((type) => error instanceof type)) return make('upstreamWrong');
  return make(isTimeout(error) ? 'upstreamTimeout' : 'upstreamFailed', undefined, trustAdvice(error, registry));
}

/** The registry's own words for a refusal, where it has any. */
function saysOf(error: unknown, { registry, hidden = [] }: RequestSubject): QuotedReason | undefined {
  if (!(error instanceof StatusError || error instanceof TokenRefusedError)) return undefined;
  const message = quotable(error.said.message, hidden);
  if (message === '') return undefined;
  const by = error.where === 'realm' ? `the token endpoint of ${registry}` : registry;
  return { by, message, code: quotable(error.said.code, hidden) };
}

/** What an operator does about a certificate that nobody here trusts; null for every other failure. */
export function trustAdvice(error: unknown, registry: string): string | null {
  if (!isUnknownIssuer(error)) return null;
  // What a registry trusts besides is no concern of a proxy.
  if (causes(error).some((cause) => cause instanceof ProxyError))
    return "its operator names the authority that signed the proxy's certificate: upstream.caFile, or the store of the gateway's machine";
  return `its operator names the authority that signed it: gateway registry set ${registry} --ca FILE, upstream.caFile for all registries, or the store of the gateway's machine`;
}

export function isCertificateError(error: unknown): boolean {
  const code = codeOf(error) ?? '';
  return WORDS[code]?.includes('certificate') ?? code.startsWith('ERR_TLS');
}

/** An error and what caused it. */
function causes(error: unknown): unknown[] {
  return error instanceof Error ? [error, ...causes(error.cause)] : [];
}

/** The first code of an error or its causes that `WORDS` explains, else the error's own. */
function codeOf(error: unknown): string | undefined {
  for (let at: unknown = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    const { code } = at as { code?: unknown };
    if (typeof code === 'string' && WORDS[code] !== undefined) return code;
    if (at instanceof AggregateError && at.errors.length > 0) return codeOf(at.errors[0]);
  }
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' ? code : undefined;
}
