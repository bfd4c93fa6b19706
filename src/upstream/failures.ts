import { TooLargeError } from '../kit/bounded.ts';
import { type ErrorName, RegistryError } from '../oci/errors.ts';
import { ForbiddenAddressError } from './dial.ts';
import { ProxyError } from './proxies.ts';
import { RedirectError } from './redirects.ts';

/** An upstream answered with a status that is none of the expected ones. */
export class StatusError extends Error {
  override readonly name = 'StatusError';
  readonly status: number;
  readonly host: string;
  /** Seconds. */
  readonly retryAfter: number | undefined;
  /** The status of the download host, where that is what failed. */
  behind: number | undefined;
  /** The registry's own error code: `NAME_UNKNOWN`. */
  code: string | undefined;

  constructor(status: number, host: string, retryAfter?: number, reason = `it answered ${status}`) {
    super(`${host}: ${reason}`);
    this.status = status;
    this.host = host;
    this.retryAfter = retryAfter;
  }
}

/** A token endpoint said no: with the registry's own 401 or 403, as ghcr.io does for what is private or missing. */
export class TokenRefusedError extends Error {
  override readonly name = 'TokenRefusedError';
  readonly status: number;

  constructor(status: number, host: string) {
    super(`the token endpoint at ${host} answered ${status}`);
    this.status = status;
  }
}

/** An answer that makes no sense: another size than before, a range that was not asked for, no media type. */
export class NonsenseError extends Error {
  override readonly name = 'NonsenseError';
}

/** What was asked for, so that an error can name it. */
export interface Asked {
  readonly registry: string;
  readonly repository: string;
  /** The error for a 404. */
  readonly missing: 'manifestUnknown' | 'blobUnknown' | 'nameUnknown';
  /** Tag or digest. */
  readonly reference: string;
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
  ETIMEDOUT: 'no connection came about',
  UND_ERR_HEADERS_TIMEOUT: 'no answer began',
  UND_ERR_BODY_TIMEOUT: 'its answer stalled',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is signed by an authority that this machine does not trust',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is signed by an authority that this machine does not trust',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is signed by an authority that this machine does not trust',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its certificate is signed by an authority that this machine does not trust',
  ERR_SSL_WRONG_VERSION_NUMBER: 'it does not speak TLS',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'it does not speak TLS',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name',
};

/** One sentence about a failure, with no secret in it: for errors, the log and `registry show`. */
export function reasonOf(error: unknown): string {
  if (error instanceof ProxyError) return error.message;
  const code = codeOf(error);
  return (code === undefined ? undefined : WORDS[code]) ?? (error instanceof Error ? error.message : String(error));
}

export function isTimeout(error: unknown): boolean {
  const code = codeOf(error);
  return (code !== undefined && TIMEOUT_CODES.has(code)) || (error instanceof Error && error.name === 'TimeoutError');
}

/** Whether a failure speaks against the endpoint itself, not against what was asked of it. */
export function isEndpointFault(error: unknown): boolean {
  if (error instanceof StatusError) return error.status >= 500 || error.status === 429 || error.status === 408;
  return !(error instanceof TokenRefusedError || error instanceof RegistryError);
}

/** Whether asking the same endpoint again may help at once. */
export function isWorthRetrying(error: unknown): boolean {
  if (error instanceof StatusError)
    return [500, 502, 503, 504].includes(error.status) && error.retryAfter === undefined;
  const final = [TokenRefusedError, RegistryError, ForbiddenAddressError, RedirectError, NonsenseError, TooLargeError];
  return !isTimeout(error) && !final.some((type) => error instanceof type) && !isCertificateError(error);
}

/** The catalogue's word for a failure (oci/errors.ts). Every upstream status has its place here. */
export function toRegistryError(error: unknown, asked: Asked): RegistryError {
  if (error instanceof RegistryError) return error;
  const { registry, repository, reference } = asked;
  const facts = { registry, repository, reference, digest: reference, reason: reasonOf(error) };
  const make = (kind: ErrorName, retryAfter?: number): RegistryError =>
    new RegistryError(kind, { facts, cause: error, ...(retryAfter === undefined ? {} : { retryAfter }) });

  if (error instanceof TokenRefusedError) {
    if (error.status === 401) return make('upstreamUnauthorized');
    return make(error.status === 403 ? 'upstreamDenied' : 'upstreamFailed');
  }
  if (error instanceof StatusError) {
    if (error.status === 401) return make('upstreamUnauthorized');
    if (error.status === 403) return make('upstreamDenied');
    if (error.status === 404) return make(asked.missing);
    if (error.status === 429) return make('upstreamRateLimited', error.retryAfter ?? DEFAULT_RETRY_AFTER_S);
    if (error.status === 408) return make('upstreamTimeout');
    return make('upstreamFailed', error.retryAfter);
  }
  const wrong = [NonsenseError, RedirectError, ForbiddenAddressError, TooLargeError];
  if (wrong.some((type) => error instanceof type)) return make('upstreamWrong');
  return make(isTimeout(error) ? 'upstreamTimeout' : 'upstreamFailed');
}

/** Docker Hub says no time with some of its 429s; its window refills steadily, so a minute brings something. */
const DEFAULT_RETRY_AFTER_S = 60;

function isCertificateError(error: unknown): boolean {
  const code = codeOf(error) ?? '';
  return WORDS[code]?.includes('certificate') ?? code.startsWith('ERR_TLS');
}

/** The most telling code of an error and what caused it. */
function codeOf(error: unknown): string | undefined {
  for (let at: unknown = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    const { code } = at as { code?: unknown };
    if (typeof code === 'string' && WORDS[code] !== undefined) return code;
    if (at instanceof AggregateError && at.errors.length > 0) return codeOf(at.errors[0]);
  }
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' ? code : undefined;
}
