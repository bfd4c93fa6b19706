import type { SecureContext } from 'node:tls';
import { OperatorError } from '../kit/operator-error.ts';
import { iso } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { Agenda } from './agenda.ts';
import { type AttemptSettings, Attempts } from './attempt.ts';
import { ChallengeBoard } from './challenges.ts';
import type { Clock } from './clock.ts';
import { contextOf } from './contexts.ts';
import { Coverage } from './coverage.ts';
import { Holdings, isOrderable } from './holdings.ts';
import { HostRecords } from './host-records.ts';
import { certificateMetrics } from './metrics.ts';
import { Obtaining } from './obtaining.ts';
import { CaQueue } from './queue.ts';
import { RenewalWatch } from './renewal-watch.ts';
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
import { Standing } from './standing.ts';
import { type CertStore, emptyRecord } from './store.ts';
import { tellStory } from './story.ts';

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
  readonly #store: CertStore;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #board = new ChallengeBoard();
  readonly #holdings: Holdings;
  readonly #records: HostRecords;
  readonly #coverage: Coverage;
  readonly #standing: Standing;
  readonly #obtaining: Obtaining;
  readonly #watch: RenewalWatch;
  readonly #skew: ClockSkew;
  readonly #agenda: Agenda;
  readonly #closing = new AbortController();

  constructor(options: AcmeCertificatesOptions) {
    const { store, log, clock, settings } = options;
    const { issuers } = settings;
    const { signal } = this.#closing;
    this.#store = store;
    this.#log = log;
    this.#clock = clock;
    const holdings = new Holdings(store, clock.now);
    const records = new HostRecords(store, clock);
    const coverage = new Coverage(holdings, options.domain);
    const standing = new Standing(coverage, holdings, records, clock);
    const metrics = certificateMetrics(options.metrics, { expiries: () => this.#expiries(), issuers });
    const queue = options.queue ?? new CaQueue(store, clock.now);
    const attempts = new Attempts({ settings, board: this.#board, queue, store, clock, metrics });
    const skew = new ClockSkew(issuers, log);
    const watch = new RenewalWatch({ issuers, clock, signal });
    const ended = () => {
      skew.notice();
      this.#agenda.look();
    };
    const shared = { coverage, holdings, records, standing, log, clock };
    const obtaining = new Obtaining({ ...shared, attempts, issuers, signal, ended });
    this.#agenda = new Agenda({ ...shared, obtaining, watch, skew });
    this.#holdings = holdings;
    this.#records = records;
    this.#coverage = coverage;
    this.#standing = standing;
    this.#obtaining = obtaining;
    this.#watch = watch;
    this.#skew = skew;
  }

  async start(hosts: readonly CoveredHost[]): Promise<void> {
    this.cover(hosts);
    this.#agenda.start();
  }

  cover(hosts: readonly CoveredHost[]): void {
    this.#coverage.set(hosts);
    this.#agenda.look();
  }

  contexts(): ContextSnapshot {
    return this.#coverage.contexts;
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
    if (this.#coverage.find(host) === null) {
      this.#coverage.add({ host, order: true });
      this.#agenda.look();
    }
    const held = this.#holdings.served(host);
    if (held !== null && held.notAfter > this.#clock.now() && options.force !== true) {
      options.narrate({
        step: 'in use',
        message: `a certificate from ${held.issuer} is held, until ${iso(held.notAfter)}`,
      });
      return this.#standing.describe(host);
    }
    return this.#obtaining.startOrJoin(host).join(options.narrate, options.signal);
  }

  async renew(host: string, narrate: Narrator, signal?: AbortSignal): Promise<CertificateInfo> {
    if (this.#coverage.find(host) === null) throw unknownHost(host);
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
    return this.#standing.info(host);
  }

  list(): CertificateInfo[] {
    return [...this.#coverage.hosts].map((host) => this.info(host)).filter((info) => info !== null);
  }

  explain(host: string): Story {
    return tellStory({
      host,
      info: this.info(host),
      record: this.#records.find(host),
      held: this.#holdings.served(host),
      events: this.#store.events(host),
      warnings: this.#skew.warnings(),
      now: this.#clock.now(),
    });
  }

  importCertificate(chain: string, key: string): { names: readonly string[]; notAfter: string } {
    const stored = this.#holdings.imports.add(chain, key);
    contextOf(stored);
    this.#coverage.publish();
    const covered = [...this.#coverage.hosts].filter((host) => this.#holdings.served(host) === stored);
    for (const host of covered) {
      this.#records.addEvent(
        host,
        `a certificate from ${stored.issuer} was imported, valid until ${iso(stored.notAfter)}`,
      );
      this.#records.put({ ...emptyRecord(host), challenge: this.#records.get(host).challenge });
    }
    this.#log.info(
      { names: stored.names, hosts: covered, notAfter: iso(stored.notAfter) },
      'an imported certificate is in use',
    );
    this.#agenda.look();
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
    const expired = [...this.#coverage.hosts].flatMap((host) => {
      const held = this.#holdings.served(host);
      if (held === null || held.notAfter > now) return [];
      return [`the certificate of ${host} ran out on ${iso(held.notAfter)}: gateway cert explain ${host}`];
    });
    return [...this.#skew.warnings(), ...expired];
  }

  async close(): Promise<void> {
    this.#agenda.stop();
    this.#closing.abort(new Error('the gateway is stopping'));
    await this.#obtaining.idle();
    await this.#watch.idle();
  }

  *#expiries(): Generator<readonly [string, number]> {
    for (const host of this.#coverage.hosts) {
      const held = this.#holdings.served(host);
      if (held !== null) yield [host, (held.notAfter - this.#clock.now()) / 1000];
    }
  }
}

function unknownHost(host: string): OperatorError {
  return new OperatorError('HOST_UNKNOWN', `${host} is no host of this gateway`, {
    next: 'gateway cert ls lists the hosts; gateway alias add makes one',
  });
}
