import { OperatorError } from '../kit/operator-error.ts';
import type { Output } from './output.ts';

/** Says what a program failed of. Returns its exit code: 1 failed, 2 bad usage. */
export function sayFailure(
  error: unknown,
  { output, env, signal }: { readonly output: Output; readonly env: NodeJS.ProcessEnv; readonly signal: AbortSignal },
): number {
  output.progressEnd();
  if (signal.aborted) {
    output.error(new OperatorError('STOPPED', 'stopped before it was done'));
    return 1;
  }
  output.error(error instanceof OperatorError ? error : unexpected(error, env));
  return error instanceof OperatorError && error.usage ? 2 : 1;
}

/** A fault of this program: one line, and the stack only for whoever asks. */
function unexpected(error: unknown, env: NodeJS.ProcessEnv): OperatorError {
  const detail =
    error instanceof Error ? (env.GATEWAY_LOG_LEVEL === 'debug' ? error.stack : error.message) : String(error);
  return new OperatorError('INTERNAL', `unexpected failure: ${detail}`, {
    next: 'GATEWAY_LOG_LEVEL=debug shows where; please report it',
    cause: error,
  });
}
