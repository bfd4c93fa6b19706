import { CacheError, type CacheErrorReason } from '../cache/blob-cache.ts';
import { TruncatedError } from '../kit/byte-source.ts';
import { OperatorError, type SentOperatorError } from '../kit/operator-error.ts';
import { type ErrorName, RegistryError } from '../oci/errors.ts';

/** An error as it crosses from one process to the other. */
type Failure =
  | { readonly kind: 'registry'; readonly name: ErrorName; readonly options: Omit<RegistryError['options'], 'cause'> }
  | ({ readonly kind: 'operator' } & SentOperatorError)
  | { readonly kind: 'cache'; readonly reason: CacheErrorReason; readonly message: string }
  | { readonly kind: 'truncated' | 'other'; readonly message: string };

export function encodeFailure(error: unknown): Failure {
  if (error instanceof RegistryError) {
    const { cause: _, ...options } = error.options;
    return { kind: 'registry', name: error.kind, options };
  }
  if (error instanceof OperatorError) {
    const { code, message, next, usage } = error;
    return { kind: 'operator', code, message, next, usage };
  }
  if (error instanceof CacheError) return { kind: 'cache', reason: error.reason, message: error.message };
  const message = error instanceof Error ? error.message : String(error);
  return { kind: error instanceof TruncatedError ? 'truncated' : 'other', message };
}

export function decodeFailure(value: unknown): Error {
  const failure = value as Failure;
  switch (failure.kind) {
    case 'registry':
      return new RegistryError(failure.name, failure.options);
    case 'operator':
      return OperatorError.received(failure);
    case 'cache':
      return new CacheError(failure.reason, failure.message);
    case 'truncated':
      return new TruncatedError(failure.message);
    case 'other':
      return new Error(failure.message);
  }
}
