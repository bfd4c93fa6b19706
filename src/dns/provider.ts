import type { DnsPlace, DnsRecord } from '../certs/dns-01.ts';
import type { DnsProviderName } from '../config/config.ts';

/** How records get into zones. @throws {IssuerError} `dnsProvider`, all of them, in the provider's own words where it has any */
export interface DnsProvider {
  /** As `acme.dns.provider` has it. */
  readonly kind: DnsProviderName;
  /** For people; no secret is in it. */
  readonly name: string;
  /** Does nothing where the value is there; leaves the others of the name alone. */
  add(record: DnsRecord, signal: AbortSignal): Promise<void>;
  /** Does nothing where the value is gone. */
  remove(record: DnsRecord, signal: AbortSignal): Promise<void>;
  /** Whether its credentials work, and are good for the zone; nothing is changed. */
  check(place: DnsPlace, signal: AbortSignal): Promise<void>;
}

/** A secret as it is now: a file may have another one than at the last time. @throws {IssuerError} */
export type Secret = () => Promise<string>;

/**
 * Seconds that others may remember a record. Short: the next challenge has another value at the same name. Some APIs refuse less than this
 * for accounts that pay nothing.
 */
export const TTL = 60;
/** What the free plans of Alibaba Cloud DNS and DNSPod take at least, s. */
export const TTL_FREE_PLAN = 600;
