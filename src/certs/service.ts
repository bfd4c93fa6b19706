import type { SecureContext } from 'node:tls';

/** What the edge reads at each handshake; immutable, swapped whole. */
export interface ContextSnapshot {
  /** Ready contexts by exact, lower-case host name, without those of hosts that a wildcard covers. */
  readonly byHost: ReadonlyMap<string, SecureContext>;
  /** For clients without SNI (an IP address as host). */
  readonly fallback: SecureContext | null;
  /** Domains whose names one label below are covered by a wildcard certificate: of names that are no host of the table, too. */
  readonly wildcards?: ReadonlySet<string>;
  /** The context of the wildcard certificate of such a domain. */
  readonly wildcard?: (domain: string) => SecureContext | null;
  /** Hosts that are to have a certificate and have none yet. Another process may have got it since: `find` knows. */
  readonly waiting?: ReadonlySet<string>;
  /**
   * Brings the context of a host that is not in `byHost`: where another process holds the certificates, and where one is ordered at its first use,
   * which may take seconds; null where there is none.
   */
  readonly find?: (host: string) => Promise<SecureContext | null>;
}

/** `on demand`: it is ordered when a client first asks for it. */
export type CertificateState = 'valid' | 'pending' | 'failed' | 'expired' | 'on demand';

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
  /** CAs that were asked first and refused, before another issued what there is; left out where none did. */
  readonly refused?: readonly {
    readonly issuer: string;
    readonly type: string;
    readonly detail: string;
    readonly at: string;
  }[];
  /** Where it was not issued for this very host: the wildcard that it is kept under, `*.cr.example`. */
  readonly coveredBy?: string;
  /** Of a wildcard: how many hosts of the table are served under it. */
  readonly covers?: number;
}

/** One line that a person who waits sees: `resolve`, `order`, `challenge`, `validate`, `finalise`, `in use`. */
export interface Step {
  readonly step: string;
  readonly message: string;
}
export type StepListener = (step: Step) => void;

/** A host that must have a certificate. */
export interface CoveredHost {
  readonly host: string;
  /** False after `--no-cert`. */
  readonly order: boolean;
  /** It is ordered when a client first asks for it, or a person does, and renewed from then on. */
  readonly onDemand?: boolean;
}

/** For `cert explain`: a host's status in words, what happened, what it means, what to do. */
export interface Explanation {
  readonly host: string;
  readonly state: CertificateState | 'none';
  /** The status in one sentence. */
  readonly summary: string;
  /** What was tried when, oldest first; what a CA said is quoted word for word. `at` in ISO 8601. */
  readonly events: readonly { readonly at: string; readonly event: string }[];
  /** What the last problem means and what to do about it; empty where all is well. */
  readonly advice: readonly string[];
  /** ISO 8601; null where nothing is planned. */
  readonly nextAttempt: string | null;
  readonly next: string;
}

/** A CA, as `doctor` asks it. */
export interface AskedIssuer {
  /** For people: the directory's host. */
  readonly name: string;
  /** URL of its directory. */
  readonly directory: string;
  /** Asks it now. Never rejects: resolves to what is wrong, in words; null where it answers. */
  check(signal: AbortSignal): Promise<{ readonly type: string; readonly detail: string; readonly next: string } | null>;
  /** Our clock minus the CA's, ms, as its last answer showed; null before any. */
  clockSkew(): number | null;
}

/** What puts records into DNS for challenges, as `doctor` asks it. */
export interface AskedDnsProvider {
  readonly name: string;
  /** Looks whether a record for this host could be put now, and leaves none. Resolves to where that would be. @throws {IssuerError} */
  check(host: string, signal: AbortSignal): Promise<{ readonly zone: string; readonly name: string }>;
}

export interface RemovedImport {
  /** That it was for. */
  readonly names: readonly string[];
  /** That are given back to the CA. */
  readonly hosts: readonly string[];
  /** Those of them that have no certificate until the CA has issued one. */
  readonly bare: readonly string[];
  /** Whether it is shown until each of them has another. */
  readonly stays: boolean;
}

/** The commands of an operator, beside the service; both modes have them. */
export interface CertificateOperations {
  explain(host: string): Promise<Explanation>;
  /** Takes an operator's own certificate (PEM chain, leaf first, and key) into use for every host that its names cover. `force`: though its last issuer is not known here. @throws {OperatorError} */
  importCertificate(
    chain: string,
    key: string,
    force?: boolean,
  ): Promise<{ readonly names: readonly string[]; readonly notAfter: string }>;
  /**
   * Takes the imported certificate that covers the host back out: every host that it covers is given back to the CA, local or not. It is shown until
   * each has another, over restarts, too; `now`: to nobody from now on. @throws {OperatorError} where none covers it
   */
  removeImported(host: string, now: boolean): Promise<RemovedImport>;
  /** What is served for the host: chain and key, PEM. @throws {OperatorError} where none is held. */
  exportCertificate(host: string): { readonly certificate: string; readonly key: string };
  /** A new certificate now, with a new key. @throws {OperatorError} */
  renew(host: string, onStep: StepListener, signal?: AbortSignal): Promise<CertificateInfo>;
  /** What DNS-01 challenges are answered through; null where that is nothing. */
  dnsProvider(): AskedDnsProvider | null;
  /** The CAs that certificates are asked of, in their order; none with an internal CA. */
  issuers(): readonly AskedIssuer[];
  /** What an operator should know now: clock skew, expired certificates. One sentence each. */
  warnings(): string[];
}

/** Certificates, for the edge (contexts, challenges) and for the operator (everything else). Internal CA and ACME both fit behind it. */
export interface CertificateService {
  contexts(): ContextSnapshot;
  /** Covers `hosts`, and begins to order and renew in the background; resolves before anything is ordered. */
  start(hosts: readonly CoveredHost[]): Promise<void>;
  /** The table changed: these hosts are to be covered from now on. Certificates of hosts that left are kept. */
  cover(hosts: readonly CoveredHost[]): void;
  /**
   * One attempt now, for a person who waits; resolves once the certificate is in `contexts()`. Does nothing where a valid one is held, unless `force`.
   * @throws {OperatorError} with the CA's problem type and detail; the background goes on by its table of waits.
   */
  obtain(
    host: string,
    options: { onStep: StepListener; force?: boolean; signal?: AbortSignal },
  ): Promise<CertificateInfo>;
  info(host: string): CertificateInfo | null;
  /** One row for each certificate that is ordered: hosts under a wildcard have none of their own. */
  list(): CertificateInfo[];
  /** Body of `/.well-known/acme-challenge/<token>` (RFC 8555 §8.3), null where no such token is pending. */
  httpChallenge(token: string): string | null;
  /** Contexts for `acme-tls/1` handshakes (RFC 8737) by host: of the TLS-ALPN-01 challenges that are pending now; another map after each change. */
  readonly alpnChallenges: ReadonlyMap<string, SecureContext>;
  /** The local CA that clients must trust (`tls.mode: internal`), offered as a download on the HTTP port; null with ACME. */
  root(): { readonly pem: string; readonly fingerprint: string } | null;
  close(): Promise<void>;
}
