import { S3ServiceException } from '@aws-sdk/client-s3';

/** The object is not there: a miss, whoever removed it. */
export function isMissing(error: unknown): boolean {
  return error instanceof S3ServiceException && (error.name === 'NoSuchKey' || error.name === 'NotFound');
}

/** The object ends before the first byte that was asked for. */
export function isTooShort(error: unknown): boolean {
  return error instanceof S3ServiceException && error.name === 'InvalidRange';
}

/** What a failure of the store is about, for messages and for metrics. */
export type S3Trouble = 'unreachable' | 'credentials' | 'denied' | 'clock' | 'no-bucket' | 'region' | 'slow' | 'other';

/** In words and in a class. */
export function troubleOf(error: unknown): { readonly trouble: S3Trouble; readonly message: string } {
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

function classOf(error: unknown): S3Trouble {
  if (!(error instanceof Error)) return 'other';
  const { name } = error;
  if (CREDENTIALS.has(name)) return 'credentials';
  if (name === 'RequestTimeTooSkewed' || name === 'RequestExpired') return 'clock';
  if (name === 'NoSuchBucket') return 'no-bucket';
  if (REGION.has(name)) return 'region';
  if (name === 'TimeoutError' || name === 'AbortError') return 'slow';
  if (UNREACHABLE.has((error as NodeJS.ErrnoException).code)) return 'unreachable';
  if (error instanceof S3ServiceException) {
    const { httpStatusCode } = error.$metadata;
    if (httpStatusCode === 403) return 'denied';
    if (httpStatusCode === 301 || httpStatusCode === 307) return 'region';
    if (httpStatusCode === 404) return 'no-bucket';
  }
  return 'other';
}
