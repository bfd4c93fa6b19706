import { expect } from 'vitest';
import { OperatorError } from '../../src/kit/operator-error.ts';

/** The OperatorError that `run` throws; anything else fails the test. */
export function refusal(run: () => unknown): OperatorError {
  let thrown: unknown;
  try {
    run();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(OperatorError);
  return thrown as OperatorError;
}

/** The OperatorError that a promise rejects with; anything else fails the test. */
export async function rejection(promise: Promise<unknown>): Promise<OperatorError> {
  const thrown = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(OperatorError);
  return thrown as OperatorError;
}
