import type { SecureContext } from 'node:tls';

/** What the edge reads at each handshake; immutable, swapped whole. */
export interface ContextSnapshot {
  /** Ready contexts by exact, lower-case host name. */
  readonly byHost: ReadonlyMap<string, SecureContext>;
  /** For clients without SNI (an IP address as host). */
  readonly fallback: SecureContext | null;
}

export type CertificateState = 'valid' | 'pending' | 'failed' | 'expired';

/** One row of `cert ls`; times in ISO 8601. */
export interface CertificateInfo {
  readonly host: string;
  readonly state: CertificateState;
  /** The issuer's common name, as in the certificate. */
  readonly issuer: string | null;
  readonly serial: string | null;
  readonly notBefore: string | null;
  readonly notAfter: string | null;
  readonly lastError: { readonly type: string; readonly detail: string; readonly at: string } | null;
  readonly nextAttempt: string | null;
}

/** One line that a person who waits sees: `resolve`, `order`, `challenge`, `validate`, `finalise`, `in use`. */
export interface Step {
  readonly step: string;
  readonly message: string;
}
export type Narrator = (step: Step) => void;

/** A host that must have a certificate; `order: false` after `--no-cert`. */
export interface CoveredHost {
  readonly host: string;
  readonly order: boolean;
}

/** Certificates, for the edge (contexts, challenges) and for the operator (everything else). Internal CA and ACME both fit behind it. */
export interface CertificateService {
  contexts(): ContextSnapshot;
  /** Loads what is stored and begins to look after `hosts`; resolves before anything is ordered. */
  start(hosts: readonly CoveredHost[]): Promise<void>;
  /** The table changed: these hosts are to be covered from now on. Certificates of hosts that left are kept. */
  cover(hosts: readonly CoveredHost[]): void;
  /**
   * One attempt now, for a person who waits; resolves once the certificate is in `contexts()`. Does nothing where a valid one is held, unless `force`.
   * @throws {OperatorError} with the CA's problem type and detail; the background goes on by its table of waits.
   */
  obtain(host: string, options: { narrate: Narrator; force?: boolean; signal?: AbortSignal }): Promise<CertificateInfo>;
  info(host: string): CertificateInfo | null;
  list(): CertificateInfo[];
  /** Body of `/.well-known/acme-challenge/<token>` (RFC 8555 §8.3), null where no such token is pending. */
  httpChallenge(token: string): string | null;
  /** Context for an `acme-tls/1` handshake (RFC 8737) for this host; null where none is pending. */
  alpnChallenge(host: string): SecureContext | null;
  /** True while any TLS-ALPN-01 challenge is pending: only then are ClientHellos peeked at. */
  alpnPending(): boolean;
  close(): Promise<void>;
}
