import type { SecureContext } from 'node:tls';
import type { Config } from '../config/config.ts';
import type { Locks } from '../kit/locks.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { type Clock, iso } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { remediation } from './advice.ts';
import { type Challenges, PendingChallenges } from './challenges.ts';
import { DnsChallenges, type DnsZones } from './dns-01.ts';
import { HostStatus } from './host-status.ts';
import { coveredByImport, nothingImported } from './imported-certificates.ts';
import { type ChallengeResponder, ClockSkew, type Issuer, IssuerError, shortType } from './issuer.ts';
import { isOrderable, ManagedHosts } from './managed-hosts.ts';
import { OnDemandOrders } from './on-demand.ts';
import { type AttemptCounters, type AttemptSettings, OrderAttempts, proofsOf } from './order-attempt.ts';
import { OrderManager } from './order-manager.ts';
import { RateLimits } from './rate-limits.ts';
import { RenewalScheduler } from './renewal-scheduler.ts';
import type {
  AskedDnsProvider,
  AskedIssuer,
  CertificateInfo,
  CertificateOperations,
  CertificateService,
  CoveredHost,
  Explanation,
  RemovedImport,
  StepListener,
} from './service.ts';
import { type CertStore, emptyRecord } from './store.ts';
import { coversHost } from './x509.ts';

/** A CA that a person asks after answers within, ms. */
const REACH_TIMEOUT = 5_000;

export interface AcmeCertificatesOptions {
  readonly domain: string;
  readonly settings: AttemptSettings;
  readonly store: CertStore;
  readonly challenges: Challenges;
  /** Where DNS-01 challenges are answered; null where that is nowhere. */
  readonly zones: DnsZones | null;
  /** See `ManagedHosts.useWildcard`. */
  readonly wildcard: boolean;
  /** Resolves once every process of this gateway works with the challenges and the contexts as they are now. Default: there is this one only. */
  readonly published?: (() => Promise<void>) | undefined;
  readonly locks: Locks;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly clock: Clock;
}

/** `tls.mode: acme`: keeps a certificate for every host of the table. One host's failures do not affect another's, and survive a restart. */
export class AcmeCertificates implements CertificateService, CertificateOperations {
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #hosts: ManagedHosts;
  readonly #status: HostStatus;
  readonly #challenges: PendingChallenges;
  readonly #dns: DnsChallenges;
  readonly #orders: OrderManager;
  readonly #skew: ClockSkew;
  readonly #issuers: readonly Issuer[];
  readonly #scheduler: RenewalScheduler;
  readonly #attempts: OrderAttempts;
  #zones: DnsZones | null;
  readonly #closing = new AbortController();
  readonly contexts: ManagedHosts['contexts'];

  /** Loads what is stored; nothing is ordered before `start`. */
  static async open(options: AcmeCertificatesOptions): Promise<AcmeCertificates> {
    const hosts = await ManagedHosts.open(options);
    const { zones, settings, wildcard } = options;
    hosts.useWildcard(wildcard, zones !== null && settings.challenges.includes('dns-01'));
    const challenges = await PendingChallenges.open(options.challenges, options);
    return new AcmeCertificates(options, hosts, challenges);
  }

  private constructor(options: AcmeCertificatesOptions, hosts: ManagedHosts, challenges: PendingChallenges) {
    const { store, locks, log, clock, settings } = options;
    const { issuers } = settings;
    const { signal } = this.#closing;
    this.#log = log;
    this.#clock = clock;
    this.#hosts = hosts;
    this.contexts = hosts.contexts;
    this.#challenges = challenges;
    this.#zones = options.zones;
    const dns = new DnsChallenges({ ...options, signal });
    this.#dns = dns;
    const responder: ChallengeResponder = {
      http: (token, keyAuthorization, under) => challenges.http(token, keyAuthorization, under),
      alpn: (host, certificate, under) => challenges.alpn(host, certificate, under),
      dns: (answer) => dns.put(answer),
    };
    const status = new HostStatus(hosts, clock);
    const skew = new ClockSkew(issuers, log);
    const limits = new RateLimits(store, clock.now);
    const counters = this.#register(options.metrics, issuers);
    const attempts = new OrderAttempts({
      ...{ settings, responder, limits, hosts, clock, counters },
      clear: (order) => dns.clear(order),
    });
    this.#attempts = attempts;
    const ended = () => {
      skew.check();
      this.#scheduler.look();
    };
    const { published = async () => {} } = options;
    const orders = new OrderManager({ attempts, issuers, hosts, status, locks, published, log, clock, signal, ended });
    this.#scheduler = new RenewalScheduler({ issuers, hosts, status, orders, skew, locks, log, clock, signal });
    hosts.onReload(() => this.#scheduler.look());
    hosts.onMissing(new OnDemandOrders({ hosts, orders, signal }).find);
    this.#status = status;
    this.#orders = orders;
    this.#skew = skew;
    this.#issuers = issuers;
  }

  /** For orders from now on; which CAs are asked stays. */
  reconfigure(config: Pick<Config, 'listen' | 'acme'>, zones: DnsZones | null): void {
    this.#attempts.reconfigure(proofsOf(config));
    this.#zones = zones;
    this.#dns.use(zones);
    this.#dns.sweep();
    this.#hosts.useWildcard(config.acme.wildcard, zones !== null && config.acme.challenges.includes('dns-01'));
    this.#scheduler.look();
  }

  async start(hosts: readonly CoveredHost[]): Promise<void> {
    this.cover(hosts);
    this.#dns.sweep();
    this.#scheduler.start();
  }

  cover(hosts: readonly CoveredHost[]): void {
    this.#hosts.cover(hosts);
    this.#scheduler.look();
  }

  httpChallenge(token: string): string | null {
    return this.#challenges.keyAuthorization(token);
  }

  get alpnChallenges(): ReadonlyMap<string, SecureContext> {
    return this.#challenges.alpnContexts;
  }

  root(): null {
    return null;
  }

  async obtain(
    host: string,
    options: { onStep: StepListener; force?: boolean; signal?: AbortSignal },
  ): Promise<CertificateInfo> {
    if (!isOrderable(host)) {
      throw new OperatorError('CERTIFICATE_IMPOSSIBLE', `no CA issues certificates for ${host}`, {
        next: 'use a host name of a domain that you own',
      });
    }
    if (this.#hosts.find(host) === null) {
      this.cover([...this.#hosts.covered, { host, order: true }]);
    }
    const order = this.#hosts.orderFor(host);
    const held = this.#hosts.served(host);
    if (held !== null && held.notAfter > this.#clock.now() && options.force !== true) {
      options.onStep({
        step: 'in use',
        message: `${order === host ? 'a certificate' : `the certificate for ${order}`} from ${held.issuer} is held, until ${iso(held.notAfter)}`,
      });
      return this.#status.describe(host);
    }
    await this.#orders.startOrJoin(order).join(options.onStep, options.signal);
    return this.#status.describe(host);
  }

  async renew(host: string, onStep: StepListener, signal?: AbortSignal): Promise<CertificateInfo> {
    if (this.#hosts.find(host) === null) throw unknownHost(host);
    const imported = this.#hosts.freshImport(host);
    if (imported !== null) throw coveredByImport(host, imported);
    return this.obtain(host, { onStep, force: true, ...(signal === undefined ? {} : { signal }) });
  }

  info(host: string): CertificateInfo | null {
    return this.#status.info(host);
  }

  list(): CertificateInfo[] {
    return [...this.#hosts.hosts]
      .filter((host) => !this.#status.isInWildcard(host))
      .map((host) => this.info(host))
      .filter((info) => info !== null);
  }

  async explain(host: string): Promise<Explanation> {
    return this.#status.explain(host, await this.#hosts.events(this.#hosts.orderFor(host)), this.#skew.warnings());
  }

  async importCertificate(
    chain: string,
    key: string,
    force = false,
  ): Promise<{ names: readonly string[]; notAfter: string }> {
    const stored = await this.#hosts.importCertificate(chain, key, force);
    const notAfter = iso(stored.notAfter);
    const covered = [...this.#hosts.hosts].filter((host) => this.#hosts.served(host) === stored);
    for (const host of covered) {
      await this.#hosts.addEvent(host, `a certificate from ${stored.issuer} was imported, valid until ${notAfter}`);
      await this.#hosts.putRecord({ ...emptyRecord(host), challenge: this.#hosts.record(host).challenge });
    }
    this.#log.info({ names: stored.names, hosts: covered, notAfter }, 'an imported certificate is in use');
    this.#scheduler.look();
    return { names: stored.names, notAfter };
  }

  async removeImported(host: string, now: boolean): Promise<RemovedImport> {
    const removed = await this.#hosts.removeImported(host, now);
    if (removed === null) {
      throw nothingImported(host, this.#hosts.issued(host)?.issuer ?? null, this.#hosts.released(host) !== null);
    }
    const hosts = [...this.#hosts.covered].filter(({ host: one, order }) => order && coversHost(removed.names, one));
    const names = hosts.map((one) => one.host);
    const how = now ? 'removed, and is shown no more' : 'removed; it is shown until another is there';
    for (const one of names)
      await this.#hosts.addEvent(one, `the imported certificate of ${removed.issuer} was ${how}`);
    this.#log.info(
      { names: removed.names, hosts: names, now },
      'an imported certificate was removed; its hosts are ordered again',
    );
    this.#scheduler.look();
    return {
      names: removed.names,
      hosts: names,
      bare: names.filter((one) => this.#hosts.served(one) === null),
      stays: this.#hosts.released(host) !== null,
    };
  }

  exportCertificate(host: string): { certificate: string; key: string } {
    const held = this.#hosts.served(host);
    if (held === null) {
      throw new OperatorError('CERTIFICATE_UNKNOWN', `no certificate is held for ${host}`, {
        next: 'gateway cert ls lists those that are',
      });
    }
    return { certificate: held.chain, key: held.key };
  }

  issuers(): readonly AskedIssuer[] {
    return this.#issuers.map((issuer) => ({
      name: issuer.name,
      directory: issuer.directory,
      clockSkew: () => issuer.clockSkew(),
      async check(signal) {
        try {
          await issuer.reach({ signal, timeout: REACH_TIMEOUT });
          return null;
        } catch (error) {
          const { type, detail } =
            error instanceof IssuerError ? error : { type: 'timeout', detail: 'no answer in time' };
          return { type, detail, next: remediation(type) };
        }
      },
    }));
  }

  dnsProvider(): AskedDnsProvider | null {
    const zones = this.#zones;
    if (zones === null) return null;
    return {
      name: zones.provider,
      async check(host, signal) {
        const place = await zones.find(host, signal);
        await zones.check(place, signal);
        return place;
      },
    };
  }

  warnings(): string[] {
    const now = this.#clock.now();
    const expired = [...this.#hosts.hosts].flatMap((host) => {
      const held = this.#hosts.served(host);
      if (held === null || held.notAfter > now) return [];
      return [`the certificate of ${host} ran out on ${iso(held.notAfter)}: gateway cert explain ${host}`];
    });
    return [...this.#skew.warnings(), ...expired];
  }

  async close(): Promise<void> {
    this.#scheduler.stop();
    this.#closing.abort(new Error('the gateway is stopping'));
    await this.#orders.idle();
    await this.#scheduler.idle();
    await this.#dns.idle();
    await this.#challenges.close();
    await this.#hosts.close();
  }

  /** What is measured about certificates. */
  #register(metrics: Metrics, issuers: readonly Issuer[]): AttemptCounters {
    metrics.gauge(
      'acme_clock_skew_seconds',
      "This machine's clock minus the CA's, as its last answer showed.",
      ['issuer'],
      (gauge) => {
        gauge.reset();
        for (const issuer of issuers) {
          const skew = issuer.clockSkew();
          if (skew !== null) gauge.set({ issuer: issuer.name }, skew / 1000);
        }
      },
    );
    const attempts = metrics.counter('certificate_attempts_total', 'Attempts to get a certificate.', ['issuer']);
    const failures = metrics.counter(
      'certificate_failures_total',
      'Attempts that failed, by the problem type that the CA gave, or one of ours.',
      ['issuer', 'type'],
    );
    return {
      attempted: (issuer) => attempts.inc({ issuer }),
      failed: (issuer, error) => failures.inc({ issuer, type: shortType(error.type) }),
    };
  }
}

function unknownHost(host: string): OperatorError {
  return new OperatorError('HOST_UNKNOWN', `${host} is no host of this gateway`, {
    next: 'gateway cert ls lists the hosts; gateway alias add makes one',
  });
}
