import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import type { SecureContext } from 'node:tls';
import { Mutex, Reloader } from '../kit/async.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { iso } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import { contextOf, type ReadyContext, ServedContexts } from './contexts.ts';
import { coveredByImport, ImportedCertificates, nothingImported } from './imported-certificates.ts';
import { InternalCa, openInternalRoot } from './internal-ca.ts';
import { renewalTime } from './schedule.ts';
import type {
  CertificateInfo,
  CertificateOperations,
  CertificateService,
  CoveredHost,
  Explanation,
  RemovedImport,
  StepListener,
} from './service.ts';
import type { CertStore, StoredCertificate } from './store.ts';
import { widest } from './wildcard.ts';
import { type CertificateMaterial, coversHost } from './x509.ts';

/** A list signs at most so many leaves that nobody has asked for yet: a quarter of a second, where 10,000 would stop pulls for ten. */
const LISTED_SIGNATURES = 200;

export interface InternalCertificatesOptions {
  readonly domain: string;
  readonly dataDir: string;
  readonly store: CertStore;
  readonly log: Logger;
  readonly now?: () => number;
}

/** `tls.mode: internal`: every host has a certificate of the local CA at once, and nobody outside is asked. */
export class InternalCertificates implements CertificateService, CertificateOperations {
  readonly #ca: InternalCa;
  readonly #imports: ImportedCertificates;
  readonly #now: () => number;
  /** The names of this machine, all in one certificate: the bare domain, localhost, and its addresses. */
  readonly #own: readonly [string, ...string[]];
  readonly #log: Logger;
  /** Imports and loads take turns: a load must not bring back what an import has just replaced. */
  readonly #mutex = new Mutex();
  readonly #reloader: Reloader;
  readonly #unwatch: () => void;
  readonly #served: ServedContexts;
  readonly contexts: ServedContexts['snapshot'];
  /** There is no CA that could want to validate. */
  readonly alpnChallenges: ReadonlyMap<string, SecureContext> = new Map();
  #hosts: ReadonlySet<string> = new Set();

  /** Opens the local CA (made at the first start), and loads what was imported. @throws {OperatorError} where the CA is damaged */
  static async open(options: InternalCertificatesOptions): Promise<InternalCertificates> {
    const certificates = new InternalCertificates(options);
    await certificates.#reloader.now();
    return certificates;
  }

  private constructor(options: InternalCertificatesOptions) {
    this.#now = options.now ?? Date.now;
    this.#log = options.log;
    this.#ca = new InternalCa(openInternalRoot(options.dataDir, this.#now()), this.#now);
    this.#imports = new ImportedCertificates(options.store, this.#now);
    this.#own = ownNames(options.domain);
    this.#served = new ServedContexts(this.#now);
    this.contexts = this.#served.snapshot;
    this.#publish();
    this.#reloader = new Reloader(
      async () => {
        await this.#mutex.run(async () => this.#imports.replace(await options.store.certificates()));
        this.#publish();
      },
      (error) => this.#log.error({ err: error }, 'imported certificates could not be read; it is tried again'),
    );
    this.#unwatch = options.store.watch(this.#reloader.request);
  }

  /** Nothing of it is configured but what stays. */
  reconfigure(): void {}

  async start(hosts: readonly CoveredHost[]): Promise<void> {
    this.cover(hosts);
    this.#log.info(
      { fingerprint: this.#ca.root.fingerprint, notAfter: iso(this.#ca.root.notAfter), made: this.#ca.root.fresh },
      'certificates come from the local CA; clients that trust ca.crt trust this gateway',
    );
  }

  cover(hosts: readonly CoveredHost[]): void {
    const next = new Set<string>(this.#own);
    for (const { host } of hosts) next.add(host);
    for (const host of this.#hosts) if (!next.has(host)) this.#ca.forget(host);
    this.#hosts = next;
    this.#publish();
  }

  async obtain(host: string, options: { onStep: StepListener; force?: boolean }): Promise<CertificateInfo> {
    if (!this.#hosts.has(host)) this.cover([...this.#hosts, host].map((name) => ({ host: name, order: true })));
    const imported = this.#imported(host);
    if (options.force === true && imported === null) {
      this.#ca.renew(this.#names(host));
      this.#publish();
    }
    const material = this.#material(host);
    contextOf(material);
    if (imported === null) {
      options.onStep({ step: 'finalise', message: `${material.issuer} signed a certificate for ${host}` });
      options.onStep({ step: 'in use', message: `until ${iso(material.notAfter)}` });
    } else {
      const message = `an imported certificate from ${imported.issuer} covers it, until ${iso(imported.notAfter)}`;
      options.onStep({ step: 'in use', message });
    }
    return this.#describe(host, material);
  }

  async renew(host: string, onStep: StepListener): Promise<CertificateInfo> {
    const imported = this.#imported(host);
    if (imported !== null) throw coveredByImport(host, imported);
    return this.obtain(host, { onStep, force: true });
  }

  info(host: string): CertificateInfo | null {
    return this.#hosts.has(host) ? this.#describe(host, this.#material(host)) : null;
  }

  list(): CertificateInfo[] {
    const [domain] = this.#own;
    let signatures = LISTED_SIGNATURES;
    return [...this.#hosts]
      .filter((host) => host === domain || isIP(host) === 0)
      .map((host) => {
        const [name] = this.#names(host);
        if (this.#imports.find(host) === null && this.#ca.made(name) === null && signatures-- <= 0) {
          return this.#unmade(host);
        }
        return this.#describe(host, this.#material(host));
      });
  }

  async explain(host: string): Promise<Explanation> {
    const info = this.info(host);
    if (info === null) {
      return {
        host,
        state: 'none',
        summary: `${host} is no host of this gateway`,
        events: [],
        advice: [],
        nextAttempt: null,
        next: 'add it: gateway alias add',
      };
    }
    const imported = this.#imports.find(host) !== null;
    return {
      host,
      state: info.state,
      summary: imported
        ? `${host} is served under a certificate that was imported, from ${info.issuer}, until ${info.notAfter}`
        : `${host} is served under a certificate of the gateway's own CA, until ${info.notAfter}; it is replaced by itself before that`,
      events: [],
      advice: imported
        ? []
        : ['clients must trust ca.crt of the data directory, which the HTTP port offers as a download'],
      nextAttempt: info.nextAttempt,
      next: imported ? 'import its successor before it runs out: gateway cert import' : 'nothing needs to be done',
    };
  }

  async importCertificate(
    chain: string,
    key: string,
    force = false,
  ): Promise<{ names: readonly string[]; notAfter: string }> {
    const stored = await this.#mutex.run(() => this.#imports.add(chain, key, force));
    this.#publish();
    this.#log.info({ names: stored.names, notAfter: iso(stored.notAfter) }, 'an imported certificate is in use');
    return { names: stored.names, notAfter: iso(stored.notAfter) };
  }

  /** It is shown no more at once: the local CA has another. */
  async removeImported(host: string): Promise<RemovedImport> {
    const removed = await this.#mutex.run(() => this.#imports.remove(host));
    if (removed === null) throw nothingImported(host, this.#hosts.has(host) ? this.#ca.root.commonName : null);
    this.#publish();
    const hosts = [...this.#hosts].filter((one) => coversHost(removed.names, one));
    this.#log.info(
      { names: removed.names, hosts },
      'an imported certificate was removed; the local CA signs for its hosts',
    );
    return { names: removed.names, hosts, bare: [], stays: false };
  }

  exportCertificate(host: string): { certificate: string; key: string } {
    if (!this.#hosts.has(host)) {
      throw new OperatorError('CERTIFICATE_UNKNOWN', `no certificate is held for ${host}`, {
        next: 'gateway cert ls lists those that are',
      });
    }
    const { chain, key } = this.#material(host);
    return { certificate: chain, key };
  }

  warnings(): string[] {
    return this.list().flatMap((info) =>
      info.state === 'expired' ? [`the imported certificate of ${info.host} ran out on ${info.notAfter}`] : [],
    );
  }

  dnsProvider(): null {
    return null;
  }

  issuers(): readonly [] {
    return [];
  }

  httpChallenge(): null {
    return null;
  }

  root(): { pem: string; fingerprint: string } {
    return { pem: this.#ca.root.pem, fingerprint: this.#ca.root.fingerprint };
  }

  async close(): Promise<void> {
    this.#unwatch();
    await this.#reloader.close();
  }

  #publish(): void {
    const [own] = this.#own;
    const wildcards = widest(this.#imports.held, this.#now());
    const wildcard = (domain: string) => {
      const imported = wildcards.get(domain);
      return imported === undefined || imported.notAfter <= this.#now() ? null : contextOf(imported);
    };
    this.#served.swap(
      this.#hosts,
      (host) => this.#ready(host),
      () => this.#ready(own),
      { wildcards: new Set(wildcards.keys()), wildcard },
    );
  }

  /** Looked up anew when the leaf is due for renewal, when the imported certificate runs out, and where the clock was turned back. */
  #ready(host: string): ReadyContext {
    const material = this.#material(host);
    const context = contextOf(material);
    const imported = this.#imports.find(host);
    if (material === imported) return { context, from: Number.NEGATIVE_INFINITY, until: imported.notAfter };
    const from = Math.max(material.notBefore, imported?.notAfter ?? Number.NEGATIVE_INFINITY);
    return { context, from, until: renewalTime(material, null) };
  }

  #material(host: string): CertificateMaterial {
    return this.#imported(host) ?? this.#ca.leaf(this.#names(host));
  }

  /** A local CA is always there, so an imported certificate that ran out need not be served. */
  #imported(host: string): StoredCertificate | null {
    const imported = this.#imports.find(host);
    return imported !== null && imported.notAfter > this.#now() ? imported : null;
  }

  #names(host: string): readonly [string, ...string[]] {
    return this.#own.includes(host) ? this.#own : [host];
  }

  /** Nobody has asked for this host yet; its leaf is signed in the first handshake. */
  #unmade(host: string): CertificateInfo {
    return {
      host,
      state: 'valid',
      issuer: this.#ca.root.commonName,
      serial: null,
      notBefore: null,
      notAfter: null,
      lastError: null,
      nextAttempt: null,
    };
  }

  #describe(host: string, material: CertificateMaterial): CertificateInfo {
    return {
      host,
      state: material.notAfter > this.#now() ? 'valid' : 'expired',
      issuer: material.issuer,
      serial: material.serial,
      notBefore: iso(material.notBefore),
      notAfter: iso(material.notAfter),
      lastError: null,
      nextAttempt: this.#imports.find(host) === null ? iso(renewalTime(material, null)) : null,
    };
  }
}

/** Clients name this machine by its domain, by localhost, or by one of its addresses. */
function ownNames(domain: string): readonly [string, ...string[]] {
  const addresses = Object.values(networkInterfaces()).flatMap((list) =>
    (list ?? []).map(({ address }) => address.replace(/%.*$/, '')),
  );
  return [...new Set([domain, 'localhost', '127.0.0.1', '::1', ...addresses])] as [string, ...string[]];
}
