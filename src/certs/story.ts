import { iso } from '../kit/time.ts';
import { adviceFor } from './advice.ts';
import type { CertificateInfo, Story } from './service.ts';
import type { CertificateEvent, HostRecord, StoredCertificate } from './store.ts';

/** Tells how it stands with one host, for `cert explain`. */
export function tellStory(facts: {
  readonly host: string;
  readonly info: CertificateInfo | null;
  readonly record: HostRecord | null;
  readonly held: StoredCertificate | null;
  readonly events: readonly CertificateEvent[];
  readonly warnings: readonly string[];
  readonly now: number;
}): Story {
  const { host, info, record, events, warnings } = facts;
  const advice = record?.lastError ? [adviceFor(record.lastError.type)] : [];
  return {
    host,
    state: info?.state ?? 'none',
    summary: summarise(facts),
    events: events.map(({ at, event }) => ({ at: iso(at), event })),
    advice: [...advice, ...warnings],
    nextAttempt: info?.nextAttempt ?? null,
    next: next(facts),
  };
}

function summarise({ host, info, record, held, now }: Parameters<typeof tellStory>[0]): string {
  if (info === null) return `${host} has no certificate, and none is ordered for it`;
  const trouble =
    record?.lastError == null
      ? ''
      : `; since ${iso(record.failingSince ?? record.lastError.at)} ${record.failures} attempt${record.failures === 1 ? ' has' : 's have'} failed, the last with ${record.lastError.type}: ${record.lastError.detail}`;
  if (held === null) return `${host} has no certificate yet${trouble}`;
  const from = held.source === 'import' ? 'an imported certificate' : 'a certificate';
  const until = iso(held.notAfter);
  return held.notAfter > now
    ? `${host} is served under ${from} from ${held.issuer}, valid until ${until}${trouble}`
    : `${host} is served under ${from} from ${held.issuer} that RAN OUT on ${until}: clients refuse it${trouble}`;
}

function next({ host, info, record, held }: Parameters<typeof tellStory>[0]): string {
  if (info === null) return `order one with: gateway cert renew ${host}`;
  if (held?.source === 'import') return 'import its successor in time (gateway cert import), or an own one is ordered';
  if (info.nextAttempt === null) return `nothing is planned; try with: gateway cert renew ${host}`;
  if (record?.lastError != null) {
    return `the gateway tries again at ${info.nextAttempt}; at once with: gateway cert renew ${host}`;
  }
  if (held === null) return `the gateway orders it at ${info.nextAttempt}`;
  const asked = record?.renewal?.fingerprint === held.fingerprint ? ', the time that the CA suggests' : '';
  return `it is renewed at ${info.nextAttempt}${asked}; nothing needs to be done`;
}
