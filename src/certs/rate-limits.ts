import type { Fence } from '../kit/locks.ts';
import { isIPv6, parseAddress } from '../kit/networks.ts';
import { registeredDomain } from '../kit/registered-domain.ts';
import type { CertStore, LedgerEntry } from './store.ts';

const HOUR = 3_600_000;

/** A documented limit of a CA. Orders are held back here, so that the CA never has to refuse one. */
export interface CaLimit {
  readonly kind: LedgerEntry['kind'];
  readonly count: number;
  readonly period: number;
  /** What is counted together. */
  readonly scope: 'account' | 'domain' | 'host';
  /** In words: `the CA gives … `. */
  readonly words: string;
}

/**
 * https://letsencrypt.org/docs/rate-limits/ as documented in late 2026. Renewals by ARI that name what they replace are exempt from all. What is
 * not here cannot be met: 10 new accounts of one address in 3 hours (there is one), 20 requests for a nonce a second (8 orders run at once),
 * and the pause of a name after 1,152 failures without a success, at 5 an hour ten days, which a person ends by the link in the CA's answer.
 */
const LETS_ENCRYPT: readonly CaLimit[] = [
  {
    // So that one account does not fill the CA's queue; an import of many aliases meets it first.
    kind: 'order',
    count: 300,
    period: 3 * HOUR,
    scope: 'account',
    words: '300 new orders in 3 hours',
  },
  {
    // Of all accounts together: others may issue below the same registered domain, which the CA then says by 429.
    kind: 'certificate',
    count: 50,
    period: 168 * HOUR,
    scope: 'domain',
    words: '50 certificates for one registered domain in 7 days',
  },
  {
    // The same set of names again: what a start that loses its store would order over and over.
    kind: 'certificate',
    count: 5,
    period: 168 * HOUR,
    scope: 'host',
    words: '5 certificates for one name in 7 days',
  },
  {
    // A name that does not lead here costs the CA connections from several countries each time.
    kind: 'failedValidation',
    count: 5,
    period: HOUR,
    scope: 'host',
    words: '5 failed validations of one name in an hour',
  },
];

/** The limits of the CA behind a directory; none are known of others, which say so by 429. */
export function limitsOf(directory: string): readonly CaLimit[] {
  return /^https:\/\/acme-v02\.api\.letsencrypt\.org\//.test(directory) ? LETS_ENCRYPT : [];
}

/** Why an order has to wait, and until when. */
export interface Postponement {
  /** Epoch milliseconds. */
  readonly at: number;
  readonly why: string;
}

/** Keeps orders below the documented rate limits of a CA. What counts is kept in the store, so a restart forgets none of it. */
export class RateLimits {
  readonly #store: CertStore;
  readonly #now: () => number;
  readonly #limits: (directory: string) => readonly CaLimit[];
  /** Orders that may still become certificates, as `directory host`. */
  readonly #open = new Map<string, { directory: string; host: string }>();

  constructor(store: CertStore, now: () => number, limits: typeof limitsOf = limitsOf) {
    this.#store = store;
    this.#now = now;
    this.#limits = limits;
  }

  /** Null where this host may be ordered from this CA now. */
  async postponement(directory: string, host: string): Promise<Postponement | null> {
    const limits = this.#limits(directory);
    if (limits.length === 0) return null;
    const now = this.#now();
    const longest = Math.max(...limits.map(({ period }) => period));
    const ledger = await this.#store.ledger(directory, now - longest);
    let longestWait: Postponement | null = null;
    for (const limit of limits) {
      const counted = ledger.filter(
        (entry) => entry.kind === limit.kind && entry.at > now - limit.period && countTogether(limit, entry.host, host),
      );
      const open =
        limit.kind === 'certificate'
          ? [...this.#open.values()].filter((o) => o.directory === directory && countTogether(limit, o.host, host))
              .length
          : 0;
      if (counted.length + open < limit.count) continue;
      // The entry whose leaving makes room; with orders still open, look again once the oldest has left.
      const leaving = counted[Math.max(0, counted.length + open - limit.count)] ?? counted.at(-1);
      const at = leaving === undefined ? now + OPEN_ORDER_LASTS : leaving.at + limit.period;
      if (longestWait === null || at > longestWait.at) longestWait = { at, why: `this CA gives ${limit.words}` };
    }
    return longestWait;
  }

  /** @param exempt a renewal that follows ARI counts against no limit */
  async ordered(directory: string, host: string, exempt: boolean, under?: Fence): Promise<void> {
    if (exempt || this.#limits(directory).length === 0) return;
    this.#open.set(`${directory} ${host}`, { directory, host });
    await this.#store.addLedger(directory, { at: this.#now(), kind: 'order', host }, under);
  }

  async ended(
    directory: string,
    host: string,
    outcome: 'certificate' | 'failedValidation' | 'failed',
    under?: Fence,
  ): Promise<void> {
    const counted = this.#open.delete(`${directory} ${host}`);
    if (outcome === 'failed' || this.#limits(directory).length === 0) return;
    if (outcome === 'certificate' && !counted) return;
    await this.#store.addLedger(directory, { at: this.#now(), kind: outcome, host }, under);
  }
}

/** How long to wait for orders that are open where nothing else is counted yet, ms. */
const OPEN_ORDER_LASTS = 60_000;

function countTogether(limit: CaLimit, one: string, other: string): boolean {
  if (limit.scope === 'account') return true;
  if (limit.scope === 'host') return one === other;
  return ownerOf(one) === ownerOf(other);
}

/** Bits of an IPv6 address that one owner has, and a CA counts as one domain. */
const OWNER_PREFIX = 64;

/**
 * What a CA counts together: the domain that was registered, by the public suffix list with its private part (`a.github.io` is one), of an IPv4
 * address itself, and of an IPv6 address its /64.
 */
function ownerOf(host: string): string {
  const address = parseAddress(host);
  if (address !== null && isIPv6(address)) {
    return address.parts
      .slice(0, OWNER_PREFIX / 16)
      .map((part) => part.toString(16))
      .join(':');
  }
  if (address !== null) return address.toString();
  return registeredDomain(host) ?? host;
}
