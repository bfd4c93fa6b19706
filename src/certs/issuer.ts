import type { ChallengeType } from '../config/config.ts';
import type { CertificateMaterial } from './certificate.ts';
import type { Narrator } from './service.ts';

/** Port: a CA with an account of its own. src/acme/ implements it. */
export interface Issuer {
  /** URL of its directory; its identity in the store. */
  readonly directory: string;
  /** For people: the directory's host. */
  readonly name: string;
  /**
   * One order to its end. An order that a kill or a failure left half done is taken up again.
   * @throws {IssuerError}
   */
  obtain(request: IssueRequest): Promise<CertificateMaterial>;
  /** What the CA says about renewing this certificate (RFC 9773); null where it does not speak ARI. @throws {IssuerError} */
  renewalInfo(chain: string, options: { signal: AbortSignal; timeout: number }): Promise<RenewalInfo | null>;
  /** Our clock minus the CA's, ms, as its last answer showed; null before any. */
  clockSkew(): number | null;
}

export interface IssueRequest {
  readonly host: string;
  /** The one way of validation to use. */
  readonly challenge: ChallengeType;
  /** PEM chain that the new certificate stands in for, if this CA issued it. */
  readonly replaces: string | null;
  readonly responder: ChallengeResponder;
  readonly narrate: Narrator;
  /** Most time for one answer of the CA, ms. */
  readonly timeout: number;
  readonly signal: AbortSignal;
  /** Called before an order is placed; a resumed one is not counted again. */
  readonly onOrder: () => void;
}

/** Where the answers to challenges are put up for the CA to see; the function takes them down. */
export interface ChallengeResponder {
  http(token: string, content: string): () => void;
  alpn(host: string, certificate: { readonly chain: string; readonly key: string }): () => void;
}

/** Times in epoch milliseconds. */
export interface RenewalInfo {
  readonly windowStart: number;
  readonly windowEnd: number;
  readonly explanation: string | null;
  /** Ask again after this many milliseconds; null where the CA did not say. */
  readonly retryAfter: number | null;
}

/** Problem types that are ours rather than a CA's. */
export type OwnProblem =
  /** The CA could not be reached, or its answer broke off. */
  | 'network'
  | 'timeout'
  /** What the CA sent is not what the protocol says. */
  | 'badAnswer'
  /** The name does not lead here, so the CA was not asked. */
  | 'selfCheck'
  /** The CA offers no such challenge for this host. */
  | 'challengeUnavailable'
  /** Its turn has not come: a limit, or the CA asked to wait. */
  | 'waiting'
  | 'internal';

/** Why there is no certificate, with the CA's own words. */
export class IssuerError extends Error {
  override readonly name = 'IssuerError';
  /** `urn:ietf:params:acme:error:…` as the CA sent it, or one of ours. */
  readonly type: string;
  /** The CA's detail word for word, or ours. */
  readonly detail: string;
  readonly status: number | null;
  /** The CA asked for this much patience, ms. */
  readonly retryAfter: number | null;
  /** The challenge was answered and the CA did not accept it: another way may work. */
  readonly challengeFailed: boolean;
  /** Directory URL; null where no CA was involved. */
  readonly directory: string | null;

  constructor(
    type: string,
    detail: string,
    options: {
      status?: number;
      retryAfter?: number | null;
      challengeFailed?: boolean;
      directory?: string | null;
      cause?: unknown;
    } = {},
  ) {
    super(`${shortType(type)}: ${detail}`, options.cause === undefined ? undefined : { cause: options.cause });
    this.type = type;
    this.detail = detail;
    this.status = options.status ?? null;
    this.retryAfter = options.retryAfter ?? null;
    this.challengeFailed = options.challengeFailed ?? false;
    this.directory = options.directory ?? null;
  }

  is(word: string): boolean {
    return shortType(this.type) === word;
  }
}

/** `rateLimited` of `urn:ietf:params:acme:error:rateLimited`. */
export function shortType(type: string): string {
  return type.replace(/^urn:ietf:params:acme:error:/, '');
}
