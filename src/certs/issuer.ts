import type { ChallengeType } from '../config/config.ts';
import type { Fence } from '../kit/locks.ts';
import type { Logger } from '../telemetry/log.ts';
import type { StepListener } from './service.ts';
import type { CertificateMaterial } from './x509.ts';

/** Port: a CA with an account of its own. src/acme/ implements it. */
export interface Issuer {
  /** URL of its directory; its identity in the store. */
  readonly directory: string;
  /** For people: the directory's host. */
  readonly name: string;
  /**
   * Carries one order to its end. An order that a kill or a failure left half done is resumed.
   * @throws {IssuerError}; {FencedError} where another node has taken the order over
   */
  obtain(request: IssueRequest): Promise<CertificateMaterial>;
  /** What the CA says about renewing this certificate (RFC 9773); null where it does not speak ARI. @throws {IssuerError} */
  renewalInfo(chain: string, options: { signal: AbortSignal; timeout: number }): Promise<RenewalInfo | null>;
  /** Asks the CA for its directory, whatever is known of it. @throws {IssuerError} where it cannot be asked */
  reach(options: { signal: AbortSignal; timeout: number }): Promise<void>;
  /** Our clock minus the CA's, ms, as its last answer showed; null before any. */
  clockSkew(): number | null;
}

export interface IssueRequest {
  /** What the order is kept under: a host, or `*.<domain>` for that and the domain itself. */
  readonly host: string;
  /** Every name that the certificate is to have. */
  readonly names: readonly string[];
  /** The one challenge type to use. */
  readonly challenge: ChallengeType;
  /** PEM chain of the certificate that the new one replaces, if this CA issued it. */
  readonly replaces: string | null;
  readonly responder: ChallengeResponder;
  readonly onStep: StepListener;
  /** Most time for one answer of the CA, ms. */
  readonly timeout: number;
  readonly signal: AbortSignal;
  /** The lock that the order is made under: what is stored of it is stored under this. */
  readonly under: Fence;
  /** Called once a new order was placed, to count it against the CA's limits; an order that is resumed was counted before. */
  readonly onOrder: () => Promise<void>;
}

/** Where the answers to challenges are published, under the lock of their order. A CA may be told to look once the promise resolves; the function withdraws the answer. */
export interface ChallengeResponder {
  http(token: string, keyAuthorization: string, under?: Fence): Promise<() => Promise<void>>;
  /** @param serverName as the CA will ask: of an address, its reverse name */
  alpn(
    serverName: string,
    certificate: { readonly chain: string; readonly key: string },
    under?: Fence,
  ): Promise<() => Promise<void>>;
  /** @throws {IssuerError} where the record cannot be put, or does not reach the zone's servers */
  dns(answer: DnsAnswer): Promise<() => Promise<void>>;
}

/** The answer to a DNS-01 challenge (RFC 8555 §8.4). */
export interface DnsAnswer {
  /** The order that it is for: `IssueRequest.host`. */
  readonly order: string;
  /** The name to be proved, without `*.`. */
  readonly host: string;
  /** Of the TXT record. */
  readonly value: string;
  readonly under: Fence;
  readonly onStep: StepListener;
  readonly signal: AbortSignal;
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
  /** The name does not lead to this gateway, so the CA was not asked. */
  | 'selfCheck'
  /** The CA offers no such challenge for this host. */
  | 'challengeUnavailable'
  /** Where the record of a DNS-01 challenge has to stand cannot be found out. */
  | 'dnsZone'
  /** The provider of `acme.dns` did not take a record, or did not remove one. */
  | 'dnsProvider'
  /** A server of the zone does not get the record. */
  | 'dnsPropagation'
  /** Not asked yet: a limit of the CA is reached, or the CA asked to wait. */
  | 'waiting'
  | 'internal';

/** Nothing was asked of the CA yet: its order can be gone on with. */
const BEFORE_THE_CA: readonly string[] = ['dnsZone', 'dnsProvider', 'dnsPropagation'] satisfies OwnProblem[];

/** Why there is no certificate, with the CA's own words. */
export class IssuerError extends Error {
  override readonly name = 'IssuerError';
  /** `urn:ietf:params:acme:error:…` as the CA sent it, or one of ours. */
  readonly type: string;
  /** The CA's detail word for word, or ours. */
  readonly detail: string;
  readonly status: number | null;
  /** The CA asked to wait this long, ms. */
  readonly retryAfter: number | null;
  /** The challenge was answered and the CA did not accept it: another type may work. */
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

  /** This kind of challenge could not be answered, so that the CA was not told to look. */
  get unanswered(): boolean {
    return BEFORE_THE_CA.includes(this.type);
  }

  is(word: string): boolean {
    return shortType(this.type) === word;
  }
}

/** `rateLimited` of `urn:ietf:params:acme:error:rateLimited`. */
export function shortType(type: string): string {
  return type.replace(/^urn:ietf:params:acme:error:/, '');
}

/** A larger difference is reported, ms: a certificate that was just issued may not look valid yet. */
const TOLERATED = 60_000;

/** Compares this machine's clock with those of the CAs, by the `Date` of their answers. */
export class ClockSkew {
  readonly #issuers: readonly Issuer[];
  readonly #log: Logger;
  /** Those whose difference has been logged. */
  readonly #logged = new Set<Issuer>();

  constructor(issuers: readonly Issuer[], log: Logger) {
    this.#issuers = issuers;
    this.#log = log;
  }

  warnings(): string[] {
    return this.#issuers.map(skewWarning).filter((warning) => warning !== null);
  }

  /** Logs a difference once, and again only after the clock was right in between. */
  check(): void {
    for (const issuer of this.#issuers) {
      const warning = skewWarning(issuer);
      if (warning === null) this.#logged.delete(issuer);
      else if (!this.#logged.has(issuer)) {
        this.#logged.add(issuer);
        this.#log.warn({ issuer: issuer.name, skew: issuer.clockSkew() }, warning);
      }
    }
  }
}

function skewWarning(issuer: Issuer): string | null {
  const skew = issuer.clockSkew();
  if (skew === null || Math.abs(skew) <= TOLERATED) return null;
  const seconds = Math.round(Math.abs(skew) / 1000);
  return `this machine's clock is ${seconds} s ${skew > 0 ? 'ahead of' : 'behind'} that of ${issuer.name}: set it by NTP`;
}
