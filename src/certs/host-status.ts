import { type Clock, iso } from '../kit/time.ts';
import { adviceOn } from './advice.ts';
import { isOrderable, type ManagedHosts } from './managed-hosts.ts';
import { UNCHECKED_INTERVAL } from './order-attempt.ts';
import { renewalTime } from './schedule.ts';
import type { CertificateInfo, Explanation } from './service.ts';
import type { CertificateEvent, HostRecord, Refusal, StoredCertificate } from './store.ts';
import { isWildcard, namesOf } from './wildcard.ts';
import { coversHost } from './x509.ts';

/** The status of each host: its certificate, its last error, and when the next attempt is due; as facts, and in words for `cert explain`. */
export class HostStatus {
  readonly #hosts: ManagedHosts;
  readonly #clock: Clock;

  constructor(hosts: ManagedHosts, clock: Clock) {
    this.#hosts = hosts;
    this.#clock = clock;
  }

  /** When the next attempt for this host is due; null for never, and while the wildcard is ordered in its place. */
  dueAt(host: string): number | null {
    if (!isOrderable(host)) return null;
    if (this.#hosts.orderFor(host) !== host) {
      // What a host has of its own is renewed until the wildcard is there: that may take long, if its order is refused.
      const own = this.#hosts.issued(host);
      const wide = this.#wildcardOf(host);
      if (own === null || (wide !== null && wide.notAfter > this.#clock.now())) return null;
    }
    const { nextAttempt, renewal } = this.#hosts.record(host);
    const imported = this.#hosts.freshImport(host);
    if (imported !== null) return renewalTime(imported, null);
    const issued = this.#hosts.issued(host);
    // After `--no-cert` nothing is ordered first, but what an operator had ordered is renewed.
    if (issued === null) {
      const planned = this.#hosts.find(host)?.order === true && !this.#hosts.isOnDemand(host);
      return planned ? (nextAttempt ?? 0) : null;
    }
    return Math.max(renewalTime(issued, renewal), nextAttempt ?? 0);
  }

  /** Null for a host that is not covered, and for one that has no certificate and is to have none. */
  info(host: string): CertificateInfo | null {
    const covered = this.#hosts.find(host);
    if (covered === null) return null;
    const { lastError } = this.#hosts.record(this.#subjectOf(host));
    const unwanted = !covered.order && this.#hosts.served(host) === null && lastError === null;
    return unwanted ? null : this.describe(host);
  }

  describe(host: string): CertificateInfo {
    const now = this.#clock.now();
    const served = this.#hosts.served(host);
    const subject = this.#subjectOf(host);
    const { lastError, refused } = this.#hosts.record(subject);
    const at = this.dueAt(subject);
    const none = this.#hosts.isOnDemand(host) ? 'on demand' : at === null ? 'failed' : 'pending';
    return {
      host,
      state:
        served === null || (none === 'on demand' && served.releasedAt !== undefined)
          ? none
          : served.notAfter > now
            ? 'valid'
            : 'expired',
      issuer: served?.issuer ?? null,
      serial: served?.serial ?? null,
      notBefore: served === null ? null : iso(served.notBefore),
      notAfter: served === null ? null : iso(served.notAfter),
      lastError: lastError === null ? null : { type: lastError.type, detail: lastError.detail, at: iso(lastError.at) },
      nextAttempt: at === null ? null : iso(Math.max(at, now)),
      ...(refused === undefined ? {} : { refused: refused.map(printRefusal) }),
      ...(served !== null && served.source === 'acme' && served.name !== host ? { coveredBy: served.name } : {}),
      ...(isWildcard(host) ? { covers: this.#hostsUnder(served) } : {}),
    };
  }

  /** Whether a host has no row of its own in a list, since that of the wildcard says all there is to say of it. */
  isInWildcard(host: string): boolean {
    const order = this.#hosts.orderFor(host);
    const served = this.#hosts.served(host);
    return order !== host && (served === null || served === this.#hosts.served(order));
  }

  /** What stands in the place of a host in a question about its certificate: the wildcard, unless its own is what is served. */
  #subjectOf(host: string): string {
    const order = this.#hosts.orderFor(host);
    const own = this.#hosts.issued(host);
    return order !== host && own !== null && own === this.#hosts.served(host) ? host : order;
  }

  /** What covers a host that the wildcard is ordered for; null where there is nothing yet. */
  #wildcardOf(host: string): StoredCertificate | null {
    const wide = this.#hosts.served(this.#hosts.orderFor(host));
    return wide !== null && coversHost(wide.names, host) ? wide : null;
  }

  /** How many hosts of the table are served under a certificate. */
  #hostsUnder(certificate: StoredCertificate | null): number {
    let count = 0;
    if (certificate === null) return count;
    for (const { host } of this.#hosts.covered) if (this.#hosts.served(host) === certificate) count += 1;
    return count;
  }

  /** @param warnings what else an operator should know, a sentence each */
  explain(host: string, events: readonly CertificateEvent[], warnings: readonly string[]): Explanation {
    const facts: Facts = {
      host,
      info: this.info(host),
      record: this.#hosts.findRecord(this.#subjectOf(host)),
      served: this.#hosts.served(host),
      now: this.#clock.now(),
    };
    const lastError = facts.record?.lastError ?? null;
    return {
      host,
      state: facts.info?.state ?? 'none',
      summary: summarise(facts),
      events: events.map(({ at, event }) => ({ at: iso(at), event })),
      // What this machine sees of itself comes first: a clock that is wrong explains much of what follows.
      advice: [
        ...warnings,
        ...(lastError === null ? [] : adviceOn(lastError, host)),
        ...(facts.record?.refused ?? []).flatMap((refusal) => {
          const { issuer, type, detail } = printRefusal(refusal);
          return [`${issuer}, which is asked first, refused: ${type}: ${detail}`, ...adviceOn(refusal, host)];
        }),
      ],
      nextAttempt: facts.info?.nextAttempt ?? null,
      next: nextStep(facts),
    };
  }
}

/** A CA is named by the host of its directory. */
function printRefusal({ directory, type, detail, at }: Refusal): NonNullable<CertificateInfo['refused']>[number] {
  return { issuer: new URL(directory).host, type, detail, at: iso(at) };
}

interface Facts {
  readonly host: string;
  readonly info: CertificateInfo | null;
  readonly record: HostRecord | null;
  readonly served: StoredCertificate | null;
  readonly now: number;
}

function summarise({ host, info, record, served, now }: Facts): string {
  if (info === null) return `${host} has no certificate, and none is ordered for it`;
  const trouble =
    record?.lastError == null
      ? ''
      : `; since ${iso(record.failingSince ?? record.lastError.at)} ${record.failures} attempt${record.failures === 1 ? ' has' : 's have'} failed, the last with ${record.lastError.type}: ${record.lastError.detail}`;
  if (info.state === 'on demand' && served === null)
    return `${host} has no certificate yet: it is ordered when a client first asks for this host`;
  if (served === null) return `${host} has no certificate yet${trouble}`;
  const from =
    served.releasedAt !== undefined
      ? 'the imported certificate that was taken back, until it has another,'
      : served.source === 'import'
        ? 'an imported certificate'
        : isWildcard(served.name)
          ? `the certificate for ${namesOf(served.name).join(' and ')}`
          : 'a certificate';
  const until = iso(served.notAfter);
  if (isWildcard(host) && served.notAfter > now) {
    return `${info.covers} host${info.covers === 1 ? ' is' : 's are'} served under ${from} from ${served.issuer}, valid until ${until}${trouble}`;
  }
  return served.notAfter > now
    ? `${host} is served under ${from} from ${served.issuer}, valid until ${until}${trouble}`
    : `${host} is served under ${from} from ${served.issuer} that RAN OUT on ${until}: clients refuse it${trouble}`;
}

/**
 * When what happens again, in words. While the name does not lead here most attempts are a look whether it does by now: a CA, which counts
 * failures, is asked once in an hour all the same.
 */
export function triesAgain(record: Pick<HostRecord, 'lastError' | 'uncheckedAt'>, at: string): string {
  const astray = record.lastError?.found?.leadsHere === false;
  const asked = record.uncheckedAt === null ? null : iso(record.uncheckedAt + UNCHECKED_INTERVAL);
  if (!astray || asked === null || asked <= at) return `the gateway tries again at ${at}`;
  return `the gateway tries again at ${at} whether the name leads here by now; the CA is asked then, else at ${asked}`;
}

function nextStep({ host, info, record, served }: Facts): string {
  if (info === null) return `order one with: gateway cert renew ${host}`;
  if (info.state === 'on demand') return `order it at once with: gateway cert renew ${host}`;
  if (served?.source === 'import' && served.releasedAt === undefined)
    return 'import its successor in time (gateway cert import), or an own one is ordered';
  if (info.nextAttempt === null) return `nothing is planned; try with: gateway cert renew ${host}`;
  if (record?.lastError != null) {
    return `${triesAgain(record, info.nextAttempt)}; at once with: gateway cert renew ${host}`;
  }
  if (served === null || served.source === 'import') return `the gateway orders it at ${info.nextAttempt}`;
  const asked = record?.renewal?.fingerprint === served.fingerprint ? ', the time that the CA suggests' : '';
  return `it is renewed at ${info.nextAttempt}${asked}; nothing needs to be done`;
}
