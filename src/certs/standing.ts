import { iso } from '../kit/time.ts';
import type { Clock } from './clock.ts';
import type { Coverage } from './coverage.ts';
import { type Holdings, isOrderable } from './holdings.ts';
import type { HostRecords } from './host-records.ts';
import { renewalTime } from './schedule.ts';
import type { CertificateInfo } from './service.ts';

/** How it stands with a host: what is held for it, and when it wants the next attempt. */
export class Standing {
  readonly #coverage: Coverage;
  readonly #holdings: Holdings;
  readonly #records: HostRecords;
  readonly #clock: Clock;

  constructor(coverage: Coverage, holdings: Holdings, records: HostRecords, clock: Clock) {
    this.#coverage = coverage;
    this.#holdings = holdings;
    this.#records = records;
    this.#clock = clock;
  }

  /** When this host wants an attempt; null for never. */
  dueAt(host: string): number | null {
    if (!isOrderable(host)) return null;
    const { nextAttempt, renewal } = this.#records.get(host);
    const relied = this.#holdings.relied(host);
    if (relied !== null) return renewalTime(relied, null);
    const own = this.#holdings.own(host);
    // After `--no-cert` nothing is ordered first, but what an operator had ordered is renewed.
    if (own === null) return this.#coverage.find(host)?.order === true ? (nextAttempt ?? 0) : null;
    return Math.max(renewalTime(own, renewal), nextAttempt ?? 0);
  }

  /** Null for a host that is not covered, and for one that has no certificate and is to have none. */
  info(host: string): CertificateInfo | null {
    const covered = this.#coverage.find(host);
    if (covered === null) return null;
    const { lastError } = this.#records.get(host);
    const silent = !covered.order && this.#holdings.served(host) === null && lastError === null;
    return silent ? null : this.describe(host);
  }

  describe(host: string): CertificateInfo {
    const now = this.#clock.now();
    const held = this.#holdings.served(host);
    const { lastError } = this.#records.get(host);
    const at = this.dueAt(host);
    const none = at === null ? 'failed' : 'pending';
    return {
      host,
      state: held === null ? none : held.notAfter > now ? 'valid' : 'expired',
      issuer: held?.issuer ?? null,
      serial: held?.serial ?? null,
      notBefore: held === null ? null : iso(held.notBefore),
      notAfter: held === null ? null : iso(held.notAfter),
      lastError: lastError === null ? null : { type: lastError.type, detail: lastError.detail, at: iso(lastError.at) },
      nextAttempt: at === null ? null : iso(Math.max(at, now)),
    };
  }
}
