import { printable } from '../kit/text.ts';
import type { ResponseHeaders } from './net/connections.ts';
import { header, headerList } from './responses.ts';

/** What an answer says is left of a limit. Every number is a stranger's, and bounded here. */
export interface RateLimit {
  readonly limit: number | null;
  readonly remaining: number;
  /** For how long the limit holds, ms; null where the answer does not say. */
  readonly windowMs: number | null;
  /** In how many ms what is left is more again; null where the answer does not say. */
  readonly resetMs: number | null;
  /** Whom the registry counts, as it calls them: an address, or the id of an account. */
  readonly source: string | null;
}

/** Longer windows than a day are not believed: whoever names one would be left alone for good. */
export const LONGEST_WINDOW_MS = 86_400_000;
const SHORTEST_WINDOW_MS = 1_000;
/** An address or an identifier, as `docker-ratelimit-source` has it. */
const MAX_SOURCE = 64;
/** From here on `ratelimit-reset` is a time (GitLab: seconds since 1970), and no span. */
const EPOCH_S = 1_000_000_000;

/**
 * Reads what is left of a limit; null where nothing is said of one. In the order of belief: Docker Hub's `ratelimit-remaining: 76;w=21600` and
 * `ratelimit-limit` (`w`: its window in seconds), the same with `x-` before it, and `RateLimit: "default";r=50;t=30` with `RateLimit-Policy:
 * "default";q=100;w=60` (draft-ietf-httpapi-ratelimit-headers).
 * @param now ms since 1970
 */
export function rateLimitIn(headers: ResponseHeaders, now: number = Date.now()): RateLimit | null {
  const of = (name: string) => header(headers, `ratelimit-${name}`) ?? header(headers, `x-ratelimit-${name}`) ?? '';
  const remaining = leadingNumber(of('remaining'));
  const source = printable(header(headers, 'docker-ratelimit-source') ?? '', MAX_SOURCE) || null;
  if (remaining !== null) {
    return {
      limit: leadingNumber(of('limit')),
      remaining,
      windowMs: windowOf(parameter(of('remaining'), 'w') ?? parameter(of('limit'), 'w')),
      resetMs: resetOf(leadingNumber(of('reset')), now),
      source,
    };
  }
  // One policy is read, the first: registries have one.
  const [state = ''] = headerList(headers, 'ratelimit').split(',');
  const left = parameter(state, 'r');
  if (left === null) return null;
  const [policy = ''] = headerList(headers, 'ratelimit-policy').split(',');
  return {
    limit: parameter(policy, 'q'),
    remaining: left,
    windowMs: windowOf(parameter(policy, 'w')),
    resetMs: resetOf(parameter(state, 't'), now),
    source,
  };
}

/** `76` of `76;w=21600`; null for what is no number of a dozen digits at most. */
function leadingNumber(text: string): number | null {
  const digits = /^\s*(\d{1,12})(?:\s*[;,].*)?$/.exec(text)?.[1];
  return digits === undefined ? null : Number(digits);
}

/** A whole number of nine digits at most; `w=1e300` is none. */
function parameter(text: string, name: string): number | null {
  const digits = new RegExp(`;\\s*${name}=(\\d{1,9})\\s*(?:[;,]|$)`).exec(text)?.[1];
  return digits === undefined ? null : Number(digits);
}

function windowOf(seconds: number | null): number | null {
  if (seconds === null || seconds === 0) return null;
  return Math.min(LONGEST_WINDOW_MS, Math.max(SHORTEST_WINDOW_MS, seconds * 1000));
}

function resetOf(seconds: number | null, now: number): number | null {
  if (seconds === null) return null;
  const ms = seconds >= EPOCH_S ? seconds * 1000 - now : seconds * 1000;
  return Math.min(LONGEST_WINDOW_MS, Math.max(SHORTEST_WINDOW_MS, ms));
}
