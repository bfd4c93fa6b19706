import type { Logger } from '../telemetry/log.ts';
import type { Issuer } from './issuer.ts';

/** Time, so that tests can let months pass. */
export interface Clock {
  /** Epoch milliseconds. */
  now(): number;
  /** Calls back once after `ms`; the function returned calls it off. */
  after(ms: number, call: () => void): () => void;
}

/** A timer keeps no process alive: the listeners do. */
export const systemClock: Clock = {
  now: Date.now,
  after(ms, call) {
    const timer = setTimeout(call, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

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
    return this.#issuers.map(describe).filter((warning) => warning !== null);
  }

  /** Logs a difference once, and again only after the clock was right in between. */
  check(): void {
    for (const issuer of this.#issuers) {
      const warning = describe(issuer);
      if (warning === null) this.#logged.delete(issuer);
      else if (!this.#logged.has(issuer)) {
        this.#logged.add(issuer);
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
