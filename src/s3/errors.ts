import { S3ServiceException } from '@aws-sdk/client-s3';
import type { StoreTrouble } from '../cache/blob-tier.ts';
import { printable } from '../kit/text.ts';

/** Of a store's own words, characters. */
const MAX_WORDS = 500;
/** What is kept of an error of the SDK. */
const KEPT: ReadonlySet<string> = new Set(['name', 'message', 'stack', 'code', '$fault', '$metadata']);

/**
 * The same error without what else the store has answered: with a signature that does not match that is the whole signed request, the token of a
 * session among its headers, and logs write down all that an error has.
 */
export function withoutAnswer(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  for (const name of Object.keys(error)) if (!KEPT.has(name)) Reflect.deleteProperty(error, name);
  const { message, stack = '' } = error;
  const words = printable(message, MAX_WORDS);
  Object.defineProperty(error, 'message', { value: words });
  Object.defineProperty(error, 'stack', { value: stack.replace(message, () => words) });
  return error;
}

/** The object is not there: a miss, whoever removed it. */
export function isMissing(error: unknown): boolean {
  return error instanceof S3ServiceException && (error.name === 'NoSuchKey' || error.name === 'NotFound');
}

/** The object ends before the first byte that was asked for. */
export function isTooShort(error: unknown): boolean {
  return error instanceof S3ServiceException && error.name === 'InvalidRange';
}

/** In words and in a class. */
export function troubleOf(error: unknown): { readonly trouble: StoreTrouble; readonly message: string } {
  const message = error instanceof Error ? error.message || error.name : String(error);
  return { trouble: classOf(error), message };
}

const CREDENTIALS: ReadonlySet<string> = new Set([
  'CredentialsProviderError',
  'InvalidAccessKeyId',
  'SignatureDoesNotMatch',
  'ExpiredToken',
  'InvalidToken',
  'TokenRefreshRequired',
]);
const REGION: ReadonlySet<string> = new Set([
  'PermanentRedirect',
  'AuthorizationHeaderMalformed',
  'IllegalLocationConstraintException',
]);
const UNREACHABLE: ReadonlySet<unknown> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EPIPE',
]);

function classOf(error: unknown): StoreTrouble {
  if (!(error instanceof Error)) return 'other';
  const { name } = error;
  if (CREDENTIALS.has(name)) return 'credentials';
  if (name === 'RequestTimeTooSkewed' || name === 'RequestExpired') return 'clock';
  if (name === 'NoSuchBucket') return 'no-bucket';
  if (REGION.has(name)) return 'region';
  if (UNREACHABLE.has((error as NodeJS.ErrnoException).code)) return 'unreachable';
  if (error.message === 'Region is missing') return 'region';
  if (name === 'TimeoutError' || name === 'AbortError') return 'slow';
  if (error instanceof S3ServiceException) {
    const { httpStatusCode } = error.$metadata;
    if (httpStatusCode === 403) return 'denied';
    if (httpStatusCode === 301 || httpStatusCode === 307) return 'region';
    if (httpStatusCode === 404) return 'no-bucket';
  }
  return 'other';
}
