import { FencedError, type Lock, type Locks } from '../kit/locks.ts';
import type { Clock } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { HostStatus } from './host-status.ts';
import type { ClockSkew, Issuer, RenewalInfo } from './issuer.ts';
import type { ManagedHosts } from './managed-hosts.ts';
import { hostLock, type OrderManager } from './order-manager.ts';
import { checkAfterFailure, firstCheck, recordRenewal } from './schedule.ts';
import type { RenewalRecord, StoredCertificate } from './store.ts';

/** Orders in the background at once: one that hangs must not hold up the rest, and a CA must not be flooded. */
const ORDERS_AT_ONCE = 8;
/** The listeners open right after the start; a CA that validates before that would count a failure, ms. */
const START_GRACE = 500;
/** The longest sleep, ms: a machine that was suspended, or whose clock was set, is noticed. */
const LONGEST_SLEEP = 60_000;
/** Renewal questions at once: a start with a thousand certificates must not flood the CA. */
const QUESTIONS_AT_ONCE = 4;
/** Renewal information is a small static document; nobody waits for it, ms. */
const ANSWER_TIMEOUT = 20_000;
/** How long the lock of a question outlives a node that vanished while it asked, ms. */
const LEASE = { leaseMs: 60_000 };
/** Where another node asks just now, or orders, this one looks again after it, ms: by then it has heard how that went. */
const ELSEWHERE = 30_000;

export interface RenewalSchedulerParts {
  readonly issuers: readonly Issuer[];
  readonly hosts: ManagedHosts;
  readonly status: HostStatus;
  readonly orders: OrderManager;
  readonly skew: ClockSkew;
  readonly locks: Locks;
  readonly log: Logger;
  readonly clock: Clock;
  /** Ends every question. */
  readonly signal: AbortSignal;
}

/** Begins in the background what is due: first orders, renewals, attempts after failures, and questions to CAs about renewal (ARI). */
export class RenewalScheduler {
  readonly #parts: RenewalSchedulerParts;
  readonly #poller: RenewalInfoPoller;
  #live = false;
  #ordering = 0;
  #cancelSleep: () => void = () => {};

  constructor(parts: RenewalSchedulerParts) {
    this.#parts = parts;
    this.#poller = new RenewalInfoPoller(parts);
  }

  start(): void {
    this.#cancelSleep = this.#parts.clock.after(START_GRACE, () => {
      this.#live = true;
      this.look();
    });
  }

  stop(): void {
    this.#live = false;
    this.#cancelSleep();
  }

  /** Resolves when no question is on its way any more. */
  idle(): Promise<void> {
    return this.#poller.idle();
  }

  /** Looks at every host, begins what is due, and sleeps until the next thing is. To be called after any change. */
  look(): void {
    if (!this.#live) return;
    const { hosts, status, orders, clock } = this.#parts;
    this.#cancelSleep();
    const now = clock.now();
    let wake = now + LONGEST_SLEEP;
    const due: { host: string; urgency: number }[] = [];
    for (const host of hosts.hosts) {
      if (orders.isRunning(host)) continue;
      const issued = hosts.issued(host);
      const at = status.dueAt(host);
      // Never for what another certificate has taken the place of: nobody renews it.
      if (at === null) continue;
      if (issued !== null) wake = Math.min(wake, this.#pollRenewal(issued, now));
      if (at > now) wake = Math.min(wake, at);
      else due.push({ host, urgency: issued?.notAfter ?? now });
    }
    due.sort((one, other) => one.urgency - other.urgency);
    for (const { host } of due.slice(0, Math.max(0, ORDERS_AT_ONCE - this.#ordering))) this.#order(host);
    this.#cancelSleep = clock.after(Math.max(0, wake - now), () => this.look());
  }

  #order(host: string): void {
    this.#ordering++;
    const done = () => {
      this.#ordering--;
      this.look();
    };
    this.#parts.orders.startOrJoin(host, true).done.then(done, done);
  }

  /** Asks the CA about this certificate when it is time to; returns when that is next. */
  #pollRenewal(issued: StoredCertificate, now: number): number {
    const { host, renewal } = this.#parts.hosts.record(issued.name);
    return this.#poller.poll(issued, renewal, now, {
      begin: () => this.#beginQuestion(host, issued),
      keep: (answer) => this.#keepRenewal(host, issued, answer),
      ended: () => {
        this.#parts.skew.check();
        this.look();
      },
    });
  }

  /** One node asks for all of them. Null where another asks now, or has just asked. */
  async #beginQuestion(host: string, issued: StoredCertificate): Promise<Lock | null> {
    const { hosts, locks, clock } = this.#parts;
    const lock = await locks.tryAcquire(`renewal information ${host}`, LEASE);
    if (lock === null) return null;
    try {
      await hosts.refresh(host);
      const { renewal } = hosts.record(host);
      const known = renewal?.fingerprint === issued.fingerprint ? renewal : null;
      const outdated = hosts.issued(host)?.fingerprint !== issued.fingerprint;
      if (!outdated && (known === null || known.checkAt <= clock.now())) return lock;
    } catch (error) {
      await lock.release();
      throw error;
    }
    await lock.release();
    return null;
  }

  /** Under the lock of the host, since orders write the same record. While one runs, the certificate is about to be replaced anyway. */
  async #keepRenewal(host: string, issued: StoredCertificate, answer: RenewalRecord): Promise<boolean> {
    const { hosts, log, clock, locks } = this.#parts;
    let urgent = false;
    try {
      const lock = await locks.tryAcquire(hostLock(host), LEASE);
      if (lock === null) return false;
      try {
        await hosts.refresh(host);
        if (hosts.issued(host)?.fingerprint !== issued.fingerprint) return false;
        const record = hosts.record(host);
        urgent = answer.windowEnd <= clock.now() && answer.windowEnd !== record.renewal?.windowEnd;
        await hosts.putRecord({ ...record, renewal: answer }, lock);
      } finally {
        await lock.release();
      }
    } catch (error) {
      if (error instanceof FencedError) return false;
      log.error({ err: error, host }, 'what a CA said about a renewal could not be stored');
    }
    if (!urgent) return true;
    const why = answer.explanation === null ? '' : `: ${answer.explanation}`;
    await hosts.addEvent(host, `the CA wants this certificate replaced at once${why}`);
    log.warn({ host, explanation: answer.explanation }, 'the CA wants a certificate replaced at once');
    return true;
  }
}

interface Question {
  readonly begin: () => Promise<Lock | null>;
  /** False where it was not kept, since another node orders the certificate. */
  readonly keep: (answer: RenewalRecord) => Promise<boolean>;
  readonly ended: () => void;
}

/** Asks the CAs, each time when it is time to, whether a certificate is to be renewed (RFC 9773): early, or at once after a revocation. */
class RenewalInfoPoller {
  readonly #issuers: readonly Issuer[];
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  readonly #asking = new Map<string, Promise<void>>();
  /** By fingerprint: when to ask again where there was no answer to keep. */
  readonly #again = new Map<string, number>();

  constructor(parts: Pick<RenewalSchedulerParts, 'issuers' | 'clock' | 'signal'>) {
    this.#issuers = parts.issuers;
    this.#clock = parts.clock;
    this.#signal = parts.signal;
  }

  /**
   * Begins a question if it is time to, and returns when to poll again. `begin` gives the lock to ask under, or null where it is another's turn; `keep`
   * gets the answer if there is one; `ended` follows either way.
   */
  poll(
    certificate: StoredCertificate,
    renewal: RenewalRecord | null,
    now: number,
    { begin, keep, ended }: Question,
  ): number {
    const issuer = this.#issuers.find(({ directory }) => directory === certificate.directory);
    if (issuer === undefined) return Number.POSITIVE_INFINITY;
    const { fingerprint } = certificate;
    const known = renewal?.fingerprint === fingerprint ? renewal : null;
    const asked = known?.checkAt ?? certificate.obtainedAt + firstCheck(certificate);
    const at = Math.max(this.#again.get(fingerprint) ?? 0, asked);
    if (at > now) return at;
    // The end of a question brings the next look.
    if (this.#asking.has(fingerprint) || this.#asking.size >= QUESTIONS_AT_ONCE) return Number.POSITIVE_INFINITY;
    const asking = this.#question(issuer, certificate, known, begin, keep).finally(() => {
      this.#asking.delete(fingerprint);
      if (!this.#signal.aborted) ended();
    });
    this.#asking.set(fingerprint, asking);
    return Number.POSITIVE_INFINITY;
  }

  async idle(): Promise<void> {
    await Promise.allSettled(this.#asking.values());
  }

  /** Never rejects: it is asked again later. */
  async #question(
    issuer: Issuer,
    certificate: StoredCertificate,
    known: RenewalRecord | null,
    begin: Question['begin'],
    keep: Question['keep'],
  ): Promise<void> {
    const { fingerprint } = certificate;
    const later = () => this.#clock.now() + Math.min(ELSEWHERE, checkAfterFailure(certificate));
    const turn = await begin().catch(() => null);
    if (turn === null) {
      this.#again.set(fingerprint, later());
      return;
    }
    try {
      const answer = await this.#ask(issuer, certificate);
      const answeredAt = this.#clock.now();
      if (answer === null) this.#again.set(fingerprint, answeredAt + checkAfterFailure(certificate));
      else this.#again.delete(fingerprint);
      if (answer === null || this.#signal.aborted) return;
      if (!(await keep(recordRenewal(certificate, answer, known, answeredAt)))) this.#again.set(fingerprint, later());
    } finally {
      await turn.release();
    }
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
