import type { SecureContext } from 'node:tls';
import { OperatorError } from '../kit/operator-error.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { adviceFor } from './advice.ts';
import { AttemptFailed, type AttemptNotes, type AttemptSettings, Attempts } from './attempt.ts';
import { ChallengeBoard } from './challenges.ts';
import type { Clock } from './clock.ts';
import { contextOf } from './contexts.ts';
import { Holdings, isOrderable } from './holdings.ts';
import { certificateMetrics } from './metrics.ts';
import { inWords, recordFailure, recordSuccess } from './outcome.ts';
import { CaQueue } from './queue.ts';
import { RenewalWatch } from './renewal-watch.ts';
import { RunningAttempt } from './running.ts';
import { renewalTime } from './schedule.ts';
import type {
  CertificateInfo,
  CertificateOperations,
  CertificateService,
  ContextSnapshot,
  CoveredHost,
  Narrator,
  Story,
} from './service.ts';
import { ClockSkew } from './skew.ts';
import { type CertStore, emptyRecord, type HostRecord, type StoredCertificate } from './store.ts';
import { tellStory } from './story.ts';

/** Attempts in the background at once: one that hangs must not hold up the rest, and a CA must not meet a flood. */
const PARALLEL = 8;
/** The listeners open right after the start; a CA that looks before that would count a failure, ms. */
const START_GRACE = 500;
/** The longest sleep, ms: a machine that was suspended, or whose clock was set, is noticed. */
const LONGEST_SLEEP = 60_000;

export interface AcmeCertificatesOptions {
  readonly domain: string;
  readonly settings: AttemptSettings;
  readonly store: CertStore;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** For tests: the limits of the CA are its own otherwise. */
  readonly queue?: CaQueue;
}

/** `tls.mode: acme`: keeps every host of the table covered. Each host stands alone; what is known of it survives a restart. */
export class AcmeCertificates implements CertificateService, CertificateOperations {
  readonly #domain: string;
  readonly #settings: AttemptSettings;
  readonly #store: CertStore;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #board = new ChallengeBoard();
  readonly #holdings: Holdings;
  readonly #attempts: Attempts;
  readonly #watch: RenewalWatch;
  readonly #records = new Map<string, HostRecord>();
  readonly #running = new Map<string, RunningAttempt>();
  readonly #closing = new AbortController();
  readonly #skew: ClockSkew;
  #hosts: ReadonlyMap<string, CoveredHost> = new Map();
  #snapshot: ContextSnapshot;
  #live = false;
  #background = 0;
  #callOff: () => void = () => {};

  constructor(options: AcmeCertificatesOptions) {
    const { store, clock, settings } = options;
    this.#domain = options.domain;
    this.#settings = settings;
    this.#store = store;
    this.#log = options.log;
    this.#clock = clock;
    this.#holdings = new Holdings(store, clock.now);
    for (const record of store.records()) this.#records.set(record.host, record);
    const metrics = certificateMetrics(options.metrics, {
      expiries: () => this.#expiries(),
      issuers: settings.issuers,
    });
    const queue = options.queue ?? new CaQueue(store, clock.now);
    this.#attempts = new Attempts({ settings, board: this.#board, queue, store, clock, metrics });
    this.#skew = new ClockSkew(settings.issuers, options.log);
    this.#watch = new RenewalWatch({ issuers: settings.issuers, clock, signal: this.#closing.signal });
    this.#snapshot = this.#holdings.publish([], this.#domain);
  }

  async start(hosts: readonly CoveredHost[]): Promise<void> {
    this.cover(hosts);
    this.#callOff = this.#clock.after(START_GRACE, () => {
      this.#live = true;
      this.#tick();
    });
  }

  cover(hosts: readonly CoveredHost[]): void {
    this.#hosts = new Map(hosts.map((covered) => [covered.host, covered]));
    this.#publish();
    this.#tick();
  }

  contexts(): ContextSnapshot {
    return this.#snapshot;
  }

  httpChallenge(token: string): string | null {
    return this.#board.httpContent(token);
  }

  alpnChallenge(host: string): SecureContext | null {
    return this.#board.alpnContext(host);
  }

  alpnPending(): boolean {
    return this.#board.alpnPending;
  }

  root(): null {
    return null;
  }

  async obtain(
    host: string,
    options: { narrate: Narrator; force?: boolean; signal?: AbortSignal },
  ): Promise<CertificateInfo> {
    if (!isOrderable(host)) {
      throw new OperatorError('CERTIFICATE_IMPOSSIBLE', `no CA issues certificates for ${host}`, {
        next: 'use a host name of a domain that you own',
      });
    }
    if (!this.#hosts.has(host)) this.cover([...this.#hosts.values(), { host, order: true }]);
    const held = this.#holdings.served(host);
    if (held !== null && held.notAfter > this.#clock.now() && options.force !== true) {
      options.narrate({
        step: 'in use',
        message: `a certificate from ${held.issuer} is held, until ${iso(held.notAfter)}`,
      });
      return this.#describe(host);
    }
    return this.#startOrJoin(host).join(options.narrate, options.signal);
  }

  async renew(host: string, narrate: Narrator, signal?: AbortSignal): Promise<CertificateInfo> {
    if (!this.#hosts.has(host)) throw unknownHost(host);
    const relied = this.#holdings.relied(host);
    if (relied !== null) {
      throw new OperatorError(
        'CERTIFICATE_IMPORTED',
        `${host} is covered by an imported certificate (${relied.names.join(', ')}) until ${iso(relied.notAfter)}`,
        { next: 'import its successor: gateway cert import CERT KEY' },
      );
    }
    return this.obtain(host, { narrate, force: true, ...(signal === undefined ? {} : { signal }) });
  }

  info(host: string): CertificateInfo | null {
    const covered = this.#hosts.get(host);
    if (covered === undefined) return null;
    const silent = !covered.order && this.#holdings.served(host) === null && this.#record(host).lastError === null;
    return silent ? null : this.#describe(host);
  }

  list(): CertificateInfo[] {
    return [...this.#hosts.keys()].map((host) => this.info(host)).filter((info) => info !== null);
  }

  explain(host: string): Story {
    return tellStory({
      host,
      info: this.info(host),
      record: this.#records.get(host) ?? null,
      held: this.#holdings.served(host),
      events: this.#store.events(host),
      warnings: this.#skew.warnings(),
      now: this.#clock.now(),
    });
  }

  importCertificate(chain: string, key: string): { names: readonly string[]; notAfter: string } {
    const stored = this.#holdings.imports.add(chain, key);
    contextOf(stored);
    this.#publish();
    const covered = [...this.#hosts.keys()].filter((host) => this.#holdings.served(host) === stored);
    for (const host of covered) {
      this.#event(host, `a certificate from ${stored.issuer} was imported, valid until ${iso(stored.notAfter)}`);
      this.#put({ ...emptyRecord(host), challenge: this.#record(host).challenge });
    }
    this.#log.info(
      { names: stored.names, hosts: covered, notAfter: iso(stored.notAfter) },
      'an imported certificate is in use',
    );
    this.#tick();
    return { names: stored.names, notAfter: iso(stored.notAfter) };
  }

  exportCertificate(host: string): { certificate: string; key: string } {
    const held = this.#holdings.served(host);
    if (held === null) {
      throw new OperatorError('CERTIFICATE_UNKNOWN', `no certificate is held for ${host}`, {
        next: 'gateway cert ls lists those that are',
      });
    }
    return { certificate: held.chain, key: held.key };
  }

  warnings(): string[] {
    const now = this.#clock.now();
    const expired = [...this.#hosts.keys()].flatMap((host) => {
      const held = this.#holdings.served(host);
      if (held === null || held.notAfter > now) return [];
      return [`the certificate of ${host} ran out on ${iso(held.notAfter)}: gateway cert explain ${host}`];
    });
    return [...this.#skew.warnings(), ...expired];
  }

  async close(): Promise<void> {
    this.#live = false;
    this.#callOff();
    this.#closing.abort(new Error('the gateway is stopping'));
    await Promise.allSettled([...this.#running.values()].map(({ done }) => done));
    await this.#watch.idle();
  }

  /** Looks at every host, begins what is due, and sleeps until the next thing is. */
  #tick(): void {
    if (!this.#live) return;
    this.#callOff();
    const now = this.#clock.now();
    let wake = now + LONGEST_SLEEP;
    const due: { host: string; urgency: number }[] = [];
    for (const host of this.#hosts.keys()) {
      if (this.#running.has(host)) continue;
      const own = this.#holdings.own(host);
      if (own !== null) wake = Math.min(wake, this.#watchRenewal(own, now));
      const at = this.#dueAt(host);
      if (at === null) continue;
      if (at > now) wake = Math.min(wake, at);
      else due.push({ host, urgency: own?.notAfter ?? now });
    }
    due.sort((one, other) => one.urgency - other.urgency);
    for (const { host } of due.slice(0, Math.max(0, PARALLEL - this.#background))) this.#runInBackground(host);
    this.#callOff = this.#clock.after(Math.max(0, wake - now), () => this.#tick());
  }

  /** When this host wants an attempt; null for never. */
  #dueAt(host: string): number | null {
    if (!isOrderable(host)) return null;
    const { nextAttempt, renewal } = this.#record(host);
    const relied = this.#holdings.relied(host);
    if (relied !== null) return renewalTime(relied, null);
    const own = this.#holdings.own(host);
    // After `--no-cert` nothing is ordered first, but what an operator had ordered is renewed.
    if (own === null) return this.#hosts.get(host)?.order === true ? (nextAttempt ?? 0) : null;
    return Math.max(renewalTime(own, renewal), nextAttempt ?? 0);
  }

  #runInBackground(host: string): void {
    this.#background++;
    const done = () => {
      this.#background--;
      this.#tick();
    };
    this.#startOrJoin(host).done.then(done, done);
  }

  #startOrJoin(host: string): RunningAttempt {
    const running = this.#running.get(host);
    if (running !== undefined) return running;
    const attempt = new RunningAttempt(async (narrate) => {
      try {
        // Begins after the attempt is known as running.
        await null;
        return await this.#attempt(host, narrate);
      } finally {
        this.#running.delete(host);
        this.#skew.notice();
        this.#tick();
      }
    });
    this.#running.set(host, attempt);
    return attempt;
  }

  async #attempt(host: string, narrate: Narrator): Promise<CertificateInfo> {
    const record = this.#record(host);
    const held = this.#holdings.own(host);
    const { holds, uncheckedAt, challenge } = record;
    const notes: AttemptNotes = { holds: { ...holds }, uncheckedAt, challenge };
    const tell: Narrator = (step) => {
      this.#log.debug({ host, step: step.step }, step.message);
      if (step.message.startsWith('warning')) this.#event(host, step.message);
      narrate(step);
    };
    try {
      const signal = this.#closing.signal;
      const certificate = await this.#attempts.run({ host, record, held, narrate: tell, signal }, notes);
      this.#succeeded(host, certificate, notes);
      tell({ step: 'in use', message: `a certificate from ${certificate.issuer}, until ${iso(certificate.notAfter)}` });
      return this.#describe(host);
    } catch (error) {
      if (!(error instanceof AttemptFailed)) throw error;
      throw this.#failed(host, error, held, notes);
    }
  }

  #succeeded(host: string, certificate: StoredCertificate, notes: AttemptNotes): void {
    this.#holdings.take(certificate);
    this.#put(recordSuccess(host, notes, this.#clock.now()));
    this.#publish();
    const { issuer, serial } = certificate;
    this.#event(
      host,
      `${issuer} issued a certificate (by ${notes.challenge}), valid until ${iso(certificate.notAfter)}`,
    );
    this.#log.info({ host, issuer, serial, notAfter: iso(certificate.notAfter) }, 'a new certificate is in use');
  }

  /** Records the failure and gives it in words for whoever waits. */
  #failed(host: string, failure: AttemptFailed, held: StoredCertificate | null, notes: AttemptNotes): OperatorError {
    const now = this.#clock.now();
    const { issuers } = this.#settings;
    const { main } = failure;
    const record = recordFailure(this.#record(host), failure, { notes, held, issuers, now });
    this.#put(record);
    // A renewal that a person asked for early is not pressing.
    const again = iso(this.#dueAt(host) ?? record.nextAttempt ?? now);
    const words = inWords(failure, issuers);
    this.#event(host, `${words}; next attempt at ${again}`);
    const facts = { host, problem: main.type, detail: main.detail, failures: record.failures, nextAttempt: again };
    const waiting = main.type === 'waiting';
    if (held !== null && held.notAfter <= now) {
      const what = 'CERTIFICATE RAN OUT and cannot be renewed: clients refuse it';
      this.#log.error({ ...facts, notAfter: iso(held.notAfter) }, what);
    } else this.#log.warn(facts, waiting ? 'a certificate waits for its turn' : 'a certificate could not be obtained');
    return new OperatorError(
      `CERTIFICATE_${waiting ? 'WAITING' : 'REFUSED'}`,
      `no new certificate for ${host}: ${words}; the gateway tries again at ${again}`,
      { next: `${adviceFor(main.type)}; the whole story: gateway cert explain ${host}`, cause: failure },
    );
  }

  /** Asks the CA about this certificate when it is time to; answers when that is next. */
  #watchRenewal(own: StoredCertificate, now: number): number {
    const { host, renewal } = this.#record(own.name);
    return this.#watch.look(own, renewal, now, (answer) => {
      if (this.#holdings.own(host)?.fingerprint !== own.fingerprint) return;
      if (answer !== null) {
        const urgent = answer.windowEnd <= this.#clock.now() && answer.windowEnd !== renewal?.windowEnd;
        this.#put({ ...this.#record(host), renewal: answer });
        if (urgent) {
          const why = answer.explanation === null ? '' : `: ${answer.explanation}`;
          this.#event(host, `the CA wants this certificate replaced at once${why}`);
          this.#log.warn({ host, explanation: answer.explanation }, 'the CA wants a certificate replaced at once');
        }
      }
      this.#skew.notice();
      this.#tick();
    });
  }

  #describe(host: string): CertificateInfo {
    const now = this.#clock.now();
    const held = this.#holdings.served(host);
    const { lastError } = this.#record(host);
    const at = this.#dueAt(host);
    const none = at === null ? 'failed' : 'pending';
    return {
      host,
      state: held === null ? none : held.notAfter > now ? 'valid' : 'expired',
      issuer: held?.issuer ?? null,
      serial: held?.serial ?? null,
      notBefore: held === null ? null : iso(held.notBefore),
      notAfter: held === null ? null : iso(held.notAfter),
      lastError: lastError === null ? null : { type: lastError.type, detail: lastError.detail, at: iso(lastError.at) },
      nextAttempt: at === null ? null : iso(Math.max(at, now)),
    };
  }

  *#expiries(): Generator<readonly [string, number]> {
    for (const host of this.#hosts.keys()) {
      const held = this.#holdings.served(host);
      if (held !== null) yield [host, (held.notAfter - this.#clock.now()) / 1000];
    }
  }

  #publish(): void {
    this.#snapshot = this.#holdings.publish(this.#hosts.keys(), this.#domain);
  }

  #record(host: string): HostRecord {
    return this.#records.get(host) ?? emptyRecord(host);
  }

  #put(record: HostRecord): void {
    this.#records.set(record.host, record);
    this.#store.putRecord(record);
  }

  #event(host: string, event: string): void {
    this.#store.addEvent(host, { at: this.#clock.now(), event });
  }
}

function unknownHost(host: string): OperatorError {
  return new OperatorError('HOST_UNKNOWN', `${host} is no host of this gateway`, {
    next: 'gateway cert ls lists the hosts; gateway alias add makes one',
  });
}

function iso(time: number): string {
  return new Date(time).toISOString();
}
