import type { SecureContext } from 'node:tls';
import { Mutex, Reloader } from '../kit/async.ts';
import { type Fence, FencedError } from '../kit/locks.ts';
import { parseAddress } from '../kit/networks.ts';
import type { Clock } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import { always, type ChainAndKey, contextOf, ServedContexts } from './contexts.ts';
import { ImportedCertificates } from './imported-certificates.ts';
import { renewalTime } from './schedule.ts';
import type { CoveredHost } from './service.ts';
import {
  type CertificateEvent,
  type CertStore,
  emptyRecord,
  type HostRecord,
  type StoredCertificate,
} from './store.ts';
import { namesOf, widest, wildcardDomain } from './wildcard.ts';
import { coversHost, selfSigned } from './x509.ts';

const HOUR = 3_600_000;
/** Of one timer, ms: Node's end at 24 days. */
const LONGEST_SLEEP = 24 * HOUR;
/** No client trusts the placeholder, so its end matters little; a process is restarted more often than this, ms. */
const PLACEHOLDER_LIFETIME = 365 * 24 * HOUR;

/**
 * The hosts that are to have certificates, the certificates there are (ordered for a host each, or imported), and how the attempts of each
 * host went. What the store keeps of that is held in memory: loaded at the start, changed here and in the store together, and loaded again
 * when another node has changed it. Every read is synchronous.
 */
export class ManagedHosts {
  readonly #store: CertStore;
  /** The gateway's own. */
  readonly domain: string;
  /** What one order for all names of the domain is kept under. */
  readonly #wildcard: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #imported: ImportedCertificates;
  readonly #issued = new Map<string, StoredCertificate>();
  readonly #records = new Map<string, HostRecord>();
  /** Hosts whose record the store has not taken: the one in memory is newer. */
  readonly #unstored = new Set<string>();
  /** Changes and loads take turns: a load must not bring back what a change has just replaced. */
  readonly #mutex = new Mutex();
  readonly #reloader: Reloader;
  readonly #unwatch: () => void;
  readonly #served: ServedContexts;
  /** What the edge serves; immutable, and replaced whole after each change. */
  readonly contexts: ServedContexts['snapshot'];
  #hosts: ReadonlyMap<string, CoveredHost> = new Map();
  #byWildcard = false;
  /** Whether the wildcard, which is ordered no longer, is renewed: its names can be proved, and hosts that wait for their own are served under it. */
  #keepsWildcard = false;
  #provable = false;
  #cancelExpiry: () => void = () => {};
  #placeholder: ChainAndKey | null = null;
  #reloaded: () => void = () => {};
  #find: (host: string) => Promise<SecureContext | null> = async () => null;

  /** Loads what is stored; no host is covered yet. */
  static async open(options: {
    readonly store: CertStore;
    readonly domain: string;
    readonly clock: Clock;
    readonly log: Logger;
  }): Promise<ManagedHosts> {
    const hosts = new ManagedHosts(options);
    await hosts.#reloader.now();
    return hosts;
  }

  private constructor(options: Parameters<typeof ManagedHosts.open>[0]) {
    this.#store = options.store;
    this.domain = options.domain;
    this.#wildcard = `*.${options.domain}`;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#imported = new ImportedCertificates(options.store, options.clock.now);
    this.#served = new ServedContexts(options.clock.now);
    this.contexts = this.#served.snapshot;
    this.#publish();
    this.#reloader = new Reloader(
      () => this.#load(),
      (error) => this.#log.error({ err: error }, 'stored certificates could not be read; it is tried again'),
    );
    this.#unwatch = options.store.watch(this.#reloader.request);
  }

  /** Calls `listener` after each load: what another node did may change what is due here. */
  onReload(listener: () => void): void {
    this.#reloaded = listener;
  }

  /** Asks `find` for the context of a host that is to have a certificate and has none, when a client wants it. */
  onMissing(find: (host: string) => Promise<SecureContext | null>): void {
    this.#find = find;
    this.#publish();
  }

  async close(): Promise<void> {
    this.#cancelExpiry();
    this.#unwatch();
    await this.#reloader.close();
  }

  // Hosts

  /** With the wildcard, where one is ordered or kept. */
  get hosts(): Iterable<string> {
    return this.#byWildcard || this.#keepsWildcard ? [this.#wildcard, ...this.#hosts.keys()] : this.#hosts.keys();
  }

  get covered(): Iterable<CoveredHost> {
    return this.#hosts.values();
  }

  find(host: string): CoveredHost | null {
    if (host === this.#wildcard && (this.#byWildcard || this.#keepsWildcard)) return { host, order: true };
    return this.#hosts.get(host) ?? null;
  }

  /**
   * Whether one certificate is ordered for the domain and its labels, in place of one each. What there is serves until the other is there: the
   * limits of a CA can hold back the orders of thousands of hosts for longer than a wildcard lasts, so it is renewed as long as one needs it.
   * `provable`: whether a wildcard can be had at all, which takes dns-01.
   */
  useWildcard(on: boolean, provable: boolean): void {
    if (on === this.#byWildcard && provable === this.#provable) return;
    this.#byWildcard = on;
    this.#provable = provable;
    this.#publish();
  }

  /** What is ordered for a host: the wildcard that is to cover it, else the host itself. */
  orderFor(host: string): string {
    const below = host === this.domain || wildcardDomain(host) === this.domain;
    return this.#byWildcard && below ? this.#wildcard : host;
  }

  cover(hosts: readonly CoveredHost[]): void {
    this.#hosts = new Map(hosts.map((covered) => [covered.host, covered]));
    this.#publish();
  }

  /**
   * Whether the host's certificate is ordered at its first use, and nobody has used it yet: there is none of its own, nor has one been tried.
   * What is left of a wildcard covers it until then.
   */
  isOnDemand(host: string): boolean {
    const covered = this.find(host);
    if (covered?.onDemand !== true || !covered.order || this.issued(host) !== null) return false;
    if (this.#imported.find(host) !== null || this.orderFor(host) !== host) return false;
    const record = this.findRecord(host);
    return record === null || (record.lastError === null && record.nextAttempt === null);
  }

  // Certificates

  /** The certificate that a CA issued for this very host. */
  issued(host: string): StoredCertificate | null {
    return this.#issued.get(host) ?? null;
  }

  /** The imported certificate that makes an order needless: one that covers the host and is not due for renewal. */
  freshImport(host: string): StoredCertificate | null {
    const imported = this.#imported.find(host);
    if (imported === null || renewalTime(imported, null) <= this.#clock.now()) return null;
    const names = host === this.#wildcard ? namesOf(host) : [host];
    return names.every((name) => coversHost(imported.names, name)) ? imported : null;
  }

  /**
   * What clients are shown: the operator's own while it is fresh, else whichever lasts longer. An expired one is better than none:
   * a client can be made to accept it, and its error names the reason.
   */
  served(host: string): StoredCertificate | null {
    const fresh = this.freshImport(host);
    if (fresh !== null) return fresh;
    const [imported, issued] = [this.#imported.find(host), this.#bestIssued(host)];
    if (imported === null || issued === null) return issued ?? imported ?? this.#imported.findReleased(host);
    return issued.notAfter >= imported.notAfter ? issued : imported;
  }

  /** The context of an imported certificate that was taken back, for a host that has no other yet. */
  released(host: string): SecureContext | null {
    const certificate = this.served(host);
    return certificate?.releasedAt === undefined ? null : contextOf(certificate);
  }

  /** The kind that is ordered now while it is valid, else the other: a change from one to the other leaves no host without. */
  #bestIssued(host: string): StoredCertificate | null {
    const own = this.issued(host);
    const wide = this.issued(this.#wildcard);
    if (wide === null || own === wide || !coversHost(wide.names, host)) return own;
    if (own === null) {
      // Better than what has run out is an order at the first use.
      const isLeft = this.orderFor(host) === host && this.#hosts.get(host)?.onDemand === true;
      return isLeft && wide.notAfter <= this.#clock.now() ? null : wide;
    }
    const [wanted, other] = this.orderFor(host) === host ? [own, wide] : [wide, own];
    if (wanted.notAfter > this.#clock.now()) return wanted;
    return other.notAfter > wanted.notAfter ? other : wanted;
  }

  /** Stores a certificate that a CA issued, and serves it. @throws {FencedError} and does neither */
  keep(certificate: StoredCertificate, under: Fence): Promise<void> {
    // Proves that TLS accepts it, before anything depends on it.
    contextOf(certificate);
    return this.#mutex.run(async () => {
      await this.#store.putCertificate(certificate, under);
      this.#issued.set(certificate.name, certificate);
      this.#publish();
      await this.#dropReleased();
    });
  }

  /** A certificate that was taken back is kept until each host of its names that is to have another has it. Never rejects: the next one that is issued brings this again. */
  async #dropReleased(): Promise<void> {
    try {
      const dropped = await this.#imported.dropReleased((certificate) =>
        [...this.#hosts.values()].some(({ host, order }) => order && this.served(host) === certificate),
      );
      if (dropped) this.#publish();
    } catch (error) {
      this.#log.error({ err: error }, 'a certificate that was taken back could not be removed from the store');
    }
  }

  /** Stores an operator's certificate, and serves every host that it covers under it. @throws {OperatorError} */
  importCertificate(chain: string, key: string, force = false): Promise<StoredCertificate> {
    return this.#mutex.run(async () => {
      const stored = await this.#imported.add(chain, key, force);
      this.#publish();
      return stored;
    });
  }

  /**
   * Gives every host that the imported certificate of this one covers back to the CA; it is shown until each has its own, and where `now`, not once more.
   * @returns what was removed; null where none covers the host
   */
  removeImported(host: string, now: boolean): Promise<StoredCertificate | null> {
    return this.#mutex.run(async () => {
      const removed = now ? await this.#imported.remove(host) : await this.#imported.release(host);
      this.#publish();
      if (!now) await this.#dropReleased();
      return removed;
    });
  }

  // Records

  record(host: string): HostRecord {
    return this.findRecord(host) ?? emptyRecord(host);
  }

  findRecord(host: string): HostRecord | null {
    return this.#records.get(host) ?? null;
  }

  /** @throws {FencedError} and what is known of the host stays as it was */
  putRecord(record: HostRecord, under?: Fence): Promise<void> {
    return this.#mutex.run(async () => {
      const { host } = record;
      const before = this.#records.get(host);
      // In memory first: with a broken store, the wait before the next attempt holds all the same.
      this.#records.set(host, record);
      this.#unstored.add(host);
      try {
        await this.#store.putRecord(record, under);
      } catch (error) {
        if (!(error instanceof FencedError)) throw error;
        // It is another node's to say how it went.
        this.#unstored.delete(host);
        if (before === undefined) this.#records.delete(host);
        else this.#records.set(host, before);
        throw error;
      }
      this.#unstored.delete(host);
    });
  }

  /** For this process alone, until the store says something else: an attempt that could not even begin. */
  noteRecord(record: HostRecord): void {
    this.#records.set(record.host, record);
  }

  /** Oldest first; for `cert explain`. */
  events(host: string): Promise<CertificateEvent[]> {
    return this.#store.events(host);
  }

  /** Never rejects: an attempt does not fail because its history could not be written. */
  async addEvent(host: string, event: string): Promise<void> {
    try {
      await this.#mutex.run(() => this.#store.addEvent(host, { at: this.#clock.now(), event }));
    } catch (error) {
      this.#log.error({ err: error, host, event }, 'an event of a certificate could not be stored');
    }
  }

  /** Reads one host anew: another node may have worked on it while this one waited for the host's lock. */
  refresh(host: string): Promise<void> {
    return this.#mutex.run(async () => {
      const [certificate, record] = await Promise.all([
        this.#store.certificate('acme', host),
        this.#store.record(host),
      ]);
      if (record !== null) this.#takeRecord(record);
      if (certificate === null || certificate.fingerprint === this.issued(host)?.fingerprint) return;
      this.#issued.set(host, certificate);
      this.#publish();
    });
  }

  async #load(): Promise<void> {
    await this.#mutex.run(async () => {
      const [certificates, records] = await Promise.all([this.#store.certificates(), this.#store.records()]);
      this.#imported.replace(certificates);
      for (const certificate of certificates) {
        // One that has not changed stays the same object, and so keeps its ready TLS context.
        if (certificate.source !== 'acme') continue;
        if (certificate.fingerprint !== this.issued(certificate.name)?.fingerprint) {
          this.#issued.set(certificate.name, certificate);
        }
      }
      for (const record of records) this.#takeRecord(record);
      this.#publish();
    });
    this.#reloaded();
  }

  #takeRecord(record: HostRecord): void {
    if (!this.#unstored.has(record.host)) this.#records.set(record.host, record);
  }

  /** Copying the names of a thousand hosts takes microseconds; contexts are kept from one snapshot to the next. */
  #publish(): void {
    const served = new Map<string, StoredCertificate>();
    const waiting = new Set<string>();
    const wide = this.served(this.#wildcard);
    let isNeeded = false;
    for (const { host, order, onDemand } of this.#hosts.values()) {
      const certificate = this.served(host);
      isNeeded ||= certificate === wide && order && onDemand !== true;
      const isReleased = certificate?.releasedAt !== undefined;
      if (certificate === null || (isReleased && this.isOnDemand(host))) {
        if (order) waiting.add(host);
        continue;
      }
      // Found by its domain, as those are that are in no table.
      const isInWide =
        certificate === wide && wildcardDomain(host) === this.domain && wide.notAfter > this.#clock.now();
      if (!isInWide) served.set(host, certificate);
    }
    this.#keepsWildcard = !this.#byWildcard && this.#provable && wide?.source === 'acme' && isNeeded;
    this.#publishAt(wide?.notAfter ?? 0);
    const make = (host: string) => {
      const certificate = served.get(host);
      return certificate === undefined ? undefined : always(contextOf(certificate));
    };
    const certificates = [...served.values(), ...(wide === null ? [] : [wide]), ...this.#imported.held];
    const wildcards = widest(certificates, this.#clock.now());
    const wildcard = (domain: string) => {
      const certificate = wildcards.get(domain);
      return certificate === undefined ? null : contextOf(certificate);
    };
    const find = async (host: string) => (waiting.has(host) ? await this.#find(host) : null);
    const fallback = () => make(this.domain) ?? always(contextOf(this.#ownPlaceholder()));
    this.#served.swap(served, make, fallback, { wildcards: new Set(wildcards.keys()), wildcard, waiting, find });
  }

  /** What is served changes once the wildcard has run out. */
  #publishAt(end: number): void {
    this.#cancelExpiry();
    const left = end - this.#clock.now();
    if (left > 0) this.#cancelExpiry = this.#clock.after(Math.min(left, LONGEST_SLEEP), () => this.#publish());
  }

  /** For clients without SNI until the domain has its certificate: self-signed, so that health checks by address get an answer. */
  #ownPlaceholder(): ChainAndKey {
    if (this.#placeholder === null) {
      const now = this.#clock.now();
      this.#placeholder = selfSigned({
        commonName: 'registry gateway, no certificate yet',
        names: ['localhost', '127.0.0.1', '::1'],
        notBefore: now - HOUR,
        notAfter: now + PLACEHOLDER_LIFETIME,
      });
    }
    return this.#placeholder;
  }
}

/**
 * Whether any CA can be asked for this host at all: not for what every machine calls itself. A public CA certifies only names and addresses of
 * the internet, which it says itself; one of the operator's own may certify others.
 */
export function isOrderable(host: string): boolean {
  const range = parseAddress(host)?.range();
  return host !== 'localhost' && range !== 'loopback' && range !== 'unspecified';
}
