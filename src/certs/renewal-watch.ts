import type { Clock } from './clock.ts';
import type { Issuer, RenewalInfo } from './issuer.ts';
import { checkAfterFailure, firstCheck, recordRenewal } from './schedule.ts';
import type { RenewalRecord, StoredCertificate } from './store.ts';

/** Questions on their way at once: a start with a thousand certificates must not meet the CA as a flood. */
const PARALLEL = 4;
/** Renewal information is a small static document; nobody waits for it, ms. */
const ANSWER_TIMEOUT = 20_000;

/** Asks the CAs, each time when it is time to, whether a certificate is to be renewed (RFC 9773): early, or at once after a revocation. */
export class RenewalWatch {
  readonly #issuers: readonly Issuer[];
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  readonly #asking = new Map<string, Promise<void>>();
  /** By fingerprint: where there was no answer to keep, the time to ask again. */
  readonly #again = new Map<string, number>();

  constructor(parts: { issuers: readonly Issuer[]; clock: Clock; signal: AbortSignal }) {
    this.#issuers = parts.issuers;
    this.#clock = parts.clock;
    this.#signal = parts.signal;
  }

  /** Begins a question if it is time to, and tells when to look again; `done` hears the answer, null where there is none. */
  look(
    certificate: StoredCertificate,
    renewal: RenewalRecord | null,
    now: number,
    done: (renewal: RenewalRecord | null) => void,
  ): number {
    const issuer = this.#issuers.find(({ directory }) => directory === certificate.directory);
    if (issuer === undefined) return Number.POSITIVE_INFINITY;
    const { fingerprint } = certificate;
    const known = renewal?.fingerprint === fingerprint ? renewal : null;
    const at = this.#again.get(fingerprint) ?? known?.checkAt ?? certificate.obtainedAt + firstCheck(certificate);
    if (at > now) return at;
    // The end of a question brings the next look.
    if (this.#asking.has(fingerprint) || this.#asking.size >= PARALLEL) return Number.POSITIVE_INFINITY;
    const asking = this.#ask(issuer, certificate).then((answer) => {
      this.#asking.delete(fingerprint);
      if (answer === null) this.#again.set(fingerprint, this.#clock.now() + checkAfterFailure(certificate));
      else this.#again.delete(fingerprint);
      if (this.#signal.aborted) return;
      done(answer === null ? null : recordRenewal(certificate, answer, known, this.#clock.now()));
    });
    this.#asking.set(fingerprint, asking);
    return Number.POSITIVE_INFINITY;
  }

  async idle(): Promise<void> {
    await Promise.allSettled(this.#asking.values());
  }

  async #ask(issuer: Issuer, certificate: StoredCertificate): Promise<RenewalInfo | null> {
    try {
      return await issuer.renewalInfo(certificate.chain, { signal: this.#signal, timeout: ANSWER_TIMEOUT });
    } catch {
      // Without an answer the share of the lifetime holds, or what the CA said before.
      return null;
    }
  }
}
