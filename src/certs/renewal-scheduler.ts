import type { Clock } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { HostStatus } from './host-status.ts';
import type { ClockSkew, Issuer, RenewalInfo } from './issuer.ts';
import type { ManagedHosts } from './managed-hosts.ts';
import type { OrderManager } from './order-manager.ts';
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

export interface RenewalSchedulerParts {
  readonly issuers: readonly Issuer[];
  readonly hosts: ManagedHosts;
  readonly status: HostStatus;
  readonly orders: OrderManager;
  readonly skew: ClockSkew;
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
      if (issued !== null) wake = Math.min(wake, this.#pollRenewal(issued, now));
      const at = status.dueAt(host);
      if (at === null) continue;
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
    this.#parts.orders.startOrJoin(host).done.then(done, done);
  }

  /** Asks the CA about this certificate when it is time to; returns when that is next. */
  #pollRenewal(issued: StoredCertificate, now: number): number {
    const { host, renewal } = this.#parts.hosts.record(issued.name);
    return this.#poller.poll(issued, renewal, now, {
      keep: async (answer) => {
        if (this.#parts.hosts.issued(host)?.fingerprint !== issued.fingerprint) return;
        await this.#keepRenewal(host, renewal, answer);
      },
      ended: () => {
        this.#parts.skew.check();
        this.look();
      },
    });
  }

  async #keepRenewal(host: string, before: RenewalRecord | null, answer: RenewalRecord): Promise<void> {
    const { hosts, log, clock } = this.#parts;
    const urgent = answer.windowEnd <= clock.now() && answer.windowEnd !== before?.windowEnd;
    try {
      await hosts.putRecord({ ...hosts.record(host), renewal: answer });
    } catch (error) {
      log.error({ err: error, host }, 'what a CA said about a renewal could not be stored');
    }
    if (!urgent) return;
    const why = answer.explanation === null ? '' : `: ${answer.explanation}`;
    await hosts.addEvent(host, `the CA wants this certificate replaced at once${why}`);
    log.warn({ host, explanation: answer.explanation }, 'the CA wants a certificate replaced at once');
  }
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

  /** Begins a question if it is time to, and returns when to poll again. `keep` gets the answer if there is one; `ended` follows either way. */
  poll(
    certificate: StoredCertificate,
    renewal: RenewalRecord | null,
    now: number,
    { keep, ended }: { keep: (answer: RenewalRecord) => Promise<void>; ended: () => void },
  ): number {
    const issuer = this.#issuers.find(({ directory }) => directory === certificate.directory);
    if (issuer === undefined) return Number.POSITIVE_INFINITY;
    const { fingerprint } = certificate;
    const known = renewal?.fingerprint === fingerprint ? renewal : null;
    const at = this.#again.get(fingerprint) ?? known?.checkAt ?? certificate.obtainedAt + firstCheck(certificate);
    if (at > now) return at;
    // The end of a question brings the next look.
    if (this.#asking.has(fingerprint) || this.#asking.size >= QUESTIONS_AT_ONCE) return Number.POSITIVE_INFINITY;
    const asking = this.#ask(issuer, certificate).then(async (answer) => {
      const answeredAt = this.#clock.now();
      if (answer === null) this.#again.set(fingerprint, answeredAt + checkAfterFailure(certificate));
      else this.#again.delete(fingerprint);
      if (answer !== null && !this.#signal.aborted) await keep(recordRenewal(certificate, answer, known, answeredAt));
      this.#asking.delete(fingerprint);
      if (!this.#signal.aborted) ended();
    });
    this.#asking.set(fingerprint, asking);
    return Number.POSITIVE_INFINITY;
  }

  async idle(): Promise<void> {
    await Promise.allSettled(this.#asking.values());
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
