import { isDenied, StatusError, TokenRefusedError } from './failures.ts';

/**
 * What follows from the failures of all endpoints that were asked, one each: the error to report.
 *
 * - Where one of them did not answer the question (no connection, 5xx, 429, no sense), nobody knows whether what was asked for exists. That
 *   failure is reported, whatever the others said.
 * - Where all answered, and one with 401 or 403: that. It is marked as `denied` where all did, and each for itself (or its token endpoint
 *   for it), not a host that it redirects to.
 * - Where all answered that there is no such thing: the 404.
 */
export function verdict(failures: readonly unknown[]): unknown {
  const unanswered = failures.filter((error) => !isAnswer(error));
  if (unanswered.length > 0) return unanswered.find(isBreakdown) ?? unanswered.at(-1);
  const denials = failures.filter(isDenied);
  const [denial] = denials;
  if (denial === undefined) return failures.at(-1) ?? new Error('no endpoint is known');
  if (denials.length < failures.length || denials.some(({ where }) => where === 'target')) return denial;
  if (denial instanceof TokenRefusedError) {
    // A new one: others may wait for the same token.
    return new TokenRefusedError(denial.status, denial.host, denial.where, true, denial.said);
  }
  denial.denied = true;
  return denial;
}

/** Whether it says something about what was asked for. */
function isAnswer(error: unknown): boolean {
  return isDenied(error) || (error instanceof StatusError && error.status === 404);
}

/** Whether the endpoint failed, rather than refused to understand the request. */
function isBreakdown(error: unknown): boolean {
  return !(error instanceof StatusError) || error.status === 429 || error.status === 408 || error.status >= 500;
}
