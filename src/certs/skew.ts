import type { Logger } from '../telemetry/log.ts';
import type { Issuer } from './issuer.ts';

/** Beyond this a clock is called wrong: certificates just issued may look not yet valid, ms. */
const TOLERATED = 60_000;

/** Watches this machine's clock against those of the CAs, as their answers are dated. */
export class ClockSkew {
  readonly #issuers: readonly Issuer[];
  readonly #log: Logger;
  readonly #told = new Set<Issuer>();

  constructor(issuers: readonly Issuer[], log: Logger) {
    this.#issuers = issuers;
    this.#log = log;
  }

  warnings(): string[] {
    return this.#issuers.map(describe).filter((warning) => warning !== null);
  }

  /** Logs once when a clock goes wrong, and again after it was right in between. */
  notice(): void {
    for (const issuer of this.#issuers) {
      const warning = describe(issuer);
      if (warning === null) this.#told.delete(issuer);
      else if (!this.#told.has(issuer)) {
        this.#told.add(issuer);
        this.#log.warn({ issuer: issuer.name, skew: issuer.clockSkew() }, warning);
      }
    }
  }
}

function describe(issuer: Issuer): string | null {
  const skew = issuer.clockSkew();
  if (skew === null || Math.abs(skew) <= TOLERATED) return null;
  const seconds = Math.round(Math.abs(skew) / 1000);
  return `this machine's clock is ${seconds} s ${skew > 0 ? 'ahead of' : 'behind'} that of ${issuer.name}: set it by NTP`;
}
