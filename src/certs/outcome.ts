import type { AttemptFailed, AttemptNotes } from './attempt.ts';
import { nextWait } from './backoff.ts';
import type { Issuer } from './issuer.ts';
import { lifetime } from './schedule.ts';
import { emptyRecord, type HostRecord, type StoredCertificate } from './store.ts';

/** What is left to remember of a host whose certificate has just come. */
export function recordSuccess(host: string, notes: AttemptNotes, now: number): HostRecord {
  return { ...emptyRecord(host), holds: stillOn(notes.holds, now), challenge: notes.challenge };
}

/** How things stand after a failure: counted, explained, and the next attempt set. Waiting for a turn is no failure. */
export function recordFailure(
  record: HostRecord,
  failure: AttemptFailed,
  context: {
    readonly notes: AttemptNotes;
    /** The certificate that was to be followed. */
    readonly held: StoredCertificate | null;
    readonly issuers: readonly Issuer[];
    readonly now: number;
  },
): HostRecord {
  const { notes, held, issuers, now } = context;
  const { main } = failure;
  const waiting = main.type === 'waiting';
  const failures = record.failures + (waiting ? 0 : 1);
  const failingSince = record.failingSince ?? (waiting ? null : now);
  const runningOut = held !== null && now < held.notAfter + lifetime(held);
  const wait = nextWait({
    failures: Math.max(1, failures),
    failingFor: failingSince === null ? 0 : now - failingSince,
    lifetime: runningOut ? lifetime(held) : null,
  });
  // At least one CA must be willing by then.
  const willing = Math.min(...issuers.map(({ directory }) => notes.holds[directory] ?? 0));
  const lastError = { type: main.type, detail: main.detail, at: now, directory: main.directory };
  return {
    ...record,
    failures,
    failingSince,
    nextAttempt: Math.max(waiting ? 0 : now + wait, Number.isFinite(willing) ? willing : 0),
    lastError: waiting ? (record.lastError ?? lastError) : lastError,
    holds: stillOn(notes.holds, now),
    uncheckedAt: notes.uncheckedAt,
    challenge: notes.challenge,
  };
}

/** Every issuer's problem, word for word. */
export function inWords({ problems }: AttemptFailed, issuers: readonly Issuer[]): string {
  return problems
    .map(({ directory, type, detail }) => {
      const issuer = issuers.find((one) => one.directory === directory);
      return `${issuer === undefined ? '' : `${issuer.name}: `}${type}: ${detail}`;
    })
    .join('; ');
}

function stillOn(holds: Readonly<Record<string, number>>, now: number): Record<string, number> {
  return Object.fromEntries(Object.entries(holds).filter(([, until]) => until > now));
}
