import { type Fence, FencedError, type Lock, type Locks } from '../kit/locks.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { type Clock, iso } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import { adviceOn } from './advice.ts';
import { type HostStatus, triesAgain } from './host-status.ts';
import { type Issuer, IssuerError } from './issuer.ts';
import type { ManagedHosts } from './managed-hosts.ts';
import { AttemptFailed, type AttemptNotes, type OrderAttempts } from './order-attempt.ts';
import { lifetime, nextWait } from './schedule.ts';
import type { CertificateInfo, Step, StepListener } from './service.ts';
import { emptyRecord, type HostRecord, type StoredCertificate } from './store.ts';

/** How long the lock of a name outlives a node that vanished during an order, ms: longer than any pause of a living one. */
export const ORDER_LEASE = { leaseMs: 60_000 };

/** The lock under which a host is ordered, and what is known of it is written. */
export function hostLock(host: string): string {
  return `certificate ${host}`;
}

export interface OrderManagerParts {
  readonly attempts: OrderAttempts;
  readonly issuers: readonly Issuer[];
  readonly hosts: ManagedHosts;
  readonly status: HostStatus;
  readonly locks: Locks;
  /** Resolves once every process of this gateway shows the certificates that there are now. */
  readonly published: () => Promise<void>;
  readonly log: Logger;
  readonly clock: Clock;
  /** Ends every order. */
  readonly signal: AbortSignal;
  /** One ended, well or not. */
  readonly ended: () => void;
}

/**
 * The orders that are running, one a host, here and in the whole fleet; the outcome of each is taken into use, recorded and reported.
 */
export class OrderManager {
  readonly #parts: OrderManagerParts;
  readonly #running = new Map<string, RunningOrder>();

  constructor(parts: OrderManagerParts) {
    this.#parts = parts;
  }

  isRunning(host: string): boolean {
    return this.#running.has(host);
  }

  /** Resolves when none runs any more. */
  async idle(): Promise<void> {
    await Promise.allSettled([...this.#running.values()].map(({ done }) => done));
  }

  /** @param scheduled begun by the schedule of this node: nothing is ordered where another node has been at it meanwhile */
  startOrJoin(host: string, scheduled = false): RunningOrder {
    const running = this.#running.get(host);
    if (running !== undefined) return running;
    const order = new RunningOrder(async (onStep) => {
      try {
        // Begins after the order is known as running.
        await null;
        return await this.#run(host, onStep, scheduled);
      } finally {
        this.#running.delete(host);
        this.#parts.ended();
      }
    });
    this.#running.set(host, order);
    return order;
  }

  async #run(host: string, listener: StepListener, scheduled: boolean): Promise<CertificateInfo> {
    const { hosts, status, log, clock, signal } = this.#parts;
    const before = hosts.issued(host);
    const { holds, uncheckedAt, challenge } = hosts.record(host);
    let notes: AttemptNotes = { holds: { ...holds }, uncheckedAt, challenge, found: null };
    const events: Promise<void>[] = [];
    const onStep: StepListener = (step) => {
      log.debug({ host, step: step.step }, step.message);
      if (step.message.startsWith('warning')) events.push(hosts.addEvent(host, step.message));
      listener(step);
    };
    let lock: Lock | null = null;
    try {
      const triedBefore = hosts.record(host).lastError?.at;
      const { granted, waited } = await this.#acquire(host, onStep);
      lock = granted;
      await hosts.refresh(host);
      const held = hosts.issued(host);
      if (held === null || held.fingerprint === before?.fingerprint) {
        const record = hosts.record(host);
        // Each node has the same schedule: what is due at all of them is ordered by the first, and the others find how that went.
        if (scheduled && (status.dueAt(host) ?? Number.POSITIVE_INFINITY) > clock.now()) return status.describe(host);
        if (waited && record.lastError !== null && record.lastError.at !== triedBefore)
          throw this.#failedElsewhere(record);
        notes = { ...notes, holds: { ...record.holds }, uncheckedAt: record.uncheckedAt, challenge: record.challenge };
        const attemptSignal = AbortSignal.any([signal, lock.lost]);
        const { certificate, refused } = await this.#parts.attempts.run(
          { host, record, held, onStep, signal: attemptSignal, under: lock },
          notes,
        );
        await Promise.all(events);
        await this.#succeeded(host, certificate, { notes, refused }, lock);
        for (const problem of refused) await this.#tellRefusal(host, problem, notes);
        // It is kept and in use here, whatever becomes of another process; one that is not told asks for it.
        await this.#parts.published().catch(() => {});
        onStep(inUse(certificate));
      } else {
        // Another node got it while this one waited for the lock.
        onStep(inUse(held));
      }
      return status.describe(host);
    } catch (error) {
      signal.throwIfAborted();
      await Promise.all(events);
      if (error instanceof OperatorError && error.code === 'CERTIFICATE_REFUSED') throw error;
      if (error instanceof FencedError || lock?.lost.aborted === true) throw this.#takenOver(host, error);
      throw await this.#failed(host, asFailure(error), before, notes, lock);
    } finally {
      await lock?.release();
    }
  }

  async #acquire(host: string, onStep: StepListener): Promise<{ granted: Lock; waited: boolean }> {
    const { locks, signal } = this.#parts;
    const name = hostLock(host);
    const free = await locks.tryAcquire(name, ORDER_LEASE);
    if (free !== null) return { granted: free, waited: false };
    onStep({ step: 'order', message: 'another node of this gateway is ordering it; waiting for that' });
    return { granted: await locks.acquire(name, { ...ORDER_LEASE, signal }), waited: true };
  }

  async #succeeded(
    host: string,
    certificate: StoredCertificate,
    { notes, refused }: { readonly notes: AttemptNotes; readonly refused: readonly IssuerError[] },
    under: Fence,
  ): Promise<void> {
    const { hosts, log, clock } = this.#parts;
    const { issuer, serial } = certificate;
    const notAfter = iso(certificate.notAfter);
    await this.#remember(recordSuccess(host, notes, refused, clock.now()), under);
    await hosts.addEvent(host, `${issuer} issued a certificate (by ${notes.challenge}), valid until ${notAfter}`);
    log.info({ host, issuer, serial, notAfter }, 'a new certificate is in use');
  }

  /** A CA that is asked first and refuses may never issue again, although the next one does: whoever has configured it is to know. */
  async #tellRefusal(host: string, { type, detail, ...problem }: IssuerError, { found }: AttemptNotes): Promise<void> {
    if (type === 'waiting') return;
    const { hosts, log, issuers } = this.#parts;
    const issuer = nameOf(problem, issuers);
    const advice = adviceOn({ type, detail, found }, host).join('; ');
    await hosts.addEvent(host, `${issuer} had refused it before: ${type}: ${detail}; ${advice}`);
    log.warn({ host, issuer, problem: type, detail }, 'a CA refused a certificate that the next one issued');
  }

  /** Records the failure; the error tells whoever waits what it was and what follows. */
  async #failed(
    host: string,
    failure: AttemptFailed,
    held: StoredCertificate | null,
    notes: AttemptNotes,
    under: Fence | null,
  ): Promise<OperatorError> {
    const { issuers, hosts, status, log, clock } = this.#parts;
    const now = clock.now();
    const { main } = failure;
    const record = recordFailure(hosts.record(host), failure, { notes, held, issuers, now });
    if (!(await this.#remember(record, under))) return this.#takenOver(host, failure);
    // A renewal that a person asked for early is not pressing.
    const again = iso(status.dueAt(host) ?? record.nextAttempt ?? now);
    const problems = inWords(failure, issuers);
    const plan = triesAgain(record, again);
    await hosts.addEvent(host, `${problems}; ${plan}`);
    const facts = { host, problem: main.type, detail: main.detail, failures: record.failures, nextAttempt: again };
    const waiting = main.type === 'waiting';
    const advice = adviceOn({ type: main.type, detail: main.detail, found: notes.found }, host);
    if (held !== null && held.notAfter <= now) {
      const what = 'CERTIFICATE RAN OUT and cannot be renewed: clients refuse it';
      log.error({ ...facts, notAfter: iso(held.notAfter) }, what);
    } else log.warn(facts, waiting ? 'a certificate waits for its turn' : 'a certificate could not be obtained');
    return new OperatorError(
      `CERTIFICATE_${waiting ? 'WAITING' : 'REFUSED'}`,
      `no new certificate for ${host}: ${problems}; ${plan}`,
      { next: `${advice.join('; ')}; the whole story: gateway cert explain ${host}`, cause: failure },
    );
  }

  /** This node stood still, or was cut off, for so long that another one goes on with the order: how that went is for the other to say. */
  #takenOver(host: string, cause: unknown): OperatorError {
    this.#parts.log.warn({ err: cause, host }, 'another node has taken over the order of a certificate');
    return new OperatorError(
      'CERTIFICATE_TAKEN_OVER',
      `the order for ${host} was taken over by another node of this gateway, since this one could not hold on to it`,
      { next: `see how it goes there: gateway cert explain ${host}`, cause },
    );
  }

  /** For whoever waited for the order of another node, which has failed and is recorded. */
  #failedElsewhere({ host, lastError }: HostRecord): OperatorError {
    const { type, detail } = lastError ?? { type: 'internal', detail: 'it does not say why' };
    const again = iso(this.#parts.status.dueAt(host) ?? this.#parts.clock.now());
    return new OperatorError(
      'CERTIFICATE_REFUSED',
      `no new certificate for ${host}: another node of this gateway has just tried: ${type}: ${detail}; the gateway tries again at ${again}`,
      { next: `${adviceOn({ type, detail }, host).join('; ')}; the whole story: gateway cert explain ${host}` },
    );
  }

  /**
   * What the order brought matters more than its record: where the store is broken, memory keeps that until the next start. False where the record is
   * another node's by now. @param under null where there was no lock: then it is nobody's but this process's
   */
  async #remember(record: HostRecord, under: Fence | null): Promise<boolean> {
    try {
      if (under === null) this.#parts.hosts.noteRecord(record);
      else await this.#parts.hosts.putRecord(record, under);
    } catch (error) {
      if (error instanceof FencedError) return false;
      this.#parts.log.error({ err: error, host: record.host }, 'how an order went could not be stored');
    }
    return true;
  }
}

/** One order that is running for one host: whoever asks meanwhile joins it, and is first given the steps so far. */
export class RunningOrder {
  readonly done: Promise<CertificateInfo>;
  readonly #steps: Step[] = [];
  readonly #listeners = new Set<StepListener>();

  constructor(run: (onStep: StepListener) => Promise<CertificateInfo>) {
    this.done = run((step) => {
      this.#steps.push(step);
      for (const listener of this.#listeners) listener(step);
    });
    // Whoever waits handles the failure; where nobody does, it has been recorded.
    this.done.catch(() => {});
  }

  /** Waits for its end; an abort ends the waiting, not the order. */
  async join(onStep: StepListener, signal: AbortSignal | undefined): Promise<CertificateInfo> {
    for (const step of this.#steps) onStep(step);
    this.#listeners.add(onStep);
    const { promise: left, reject } = Promise.withResolvers<never>();
    const leave = () => reject(signal?.reason);
    signal?.addEventListener('abort', leave, { once: true });
    try {
      signal?.throwIfAborted();
      return await Promise.race([this.done, left]);
    } finally {
      signal?.removeEventListener('abort', leave);
      this.#listeners.delete(onStep);
    }
  }
}

/** What is left to remember of a host whose certificate has just come. */
function recordSuccess(host: string, notes: AttemptNotes, problems: readonly IssuerError[], now: number): HostRecord {
  const refused = problems.flatMap(({ type, detail, directory }) =>
    type === 'waiting' || directory === null ? [] : [{ directory, type, detail, at: now }],
  );
  return {
    ...emptyRecord(host),
    ...(refused.length === 0 ? {} : { refused }),
    holds: stillOn(notes.holds, now),
    challenge: notes.challenge,
  };
}

/** A host's record after a failure: counted, explained, and the next attempt set. Waiting for a CA's limit is no failure. */
function recordFailure(
  record: HostRecord,
  failure: AttemptFailed,
  context: {
    readonly notes: AttemptNotes;
    /** The certificate that was to be replaced. */
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
  const { type, detail, directory } = main;
  const lastError = { type, detail, at: now, directory, found: notes.found };
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

/** A store that fails, or a lock that is lost, counts as a failed attempt like any other, so that it is not repeated at once. */
function asFailure(error: unknown): AttemptFailed {
  if (error instanceof AttemptFailed) return error;
  const detail = error instanceof Error ? error.message : String(error);
  return new AttemptFailed([new IssuerError('internal', detail, { cause: error })]);
}

/** Every issuer's problem, word for word. */
function inWords({ problems }: AttemptFailed, issuers: readonly Issuer[]): string {
  return problems
    .map((problem) => {
      const name = nameOf(problem, issuers);
      return `${name === '' ? '' : `${name}: `}${problem.type}: ${problem.detail}`;
    })
    .join('; ');
}

/** The CA that a problem is of; empty where it is none's. */
function nameOf({ directory }: Pick<IssuerError, 'directory'>, issuers: readonly Issuer[]): string {
  return issuers.find((one) => one.directory === directory)?.name ?? '';
}

function inUse({ issuer, notAfter }: StoredCertificate): Step {
  return { step: 'in use', message: `a certificate from ${issuer}, until ${iso(notAfter)}` };
}

function stillOn(holds: Readonly<Record<string, number>>, now: number): Record<string, number> {
  return Object.fromEntries(Object.entries(holds).filter(([, until]) => until > now));
}
