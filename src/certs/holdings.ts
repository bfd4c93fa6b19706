import { generateKeyPairSync } from 'node:crypto';
import { isIP } from 'node:net';
import type { SecureContext } from 'node:tls';
import type { CertificateMaterial } from './certificate.ts';
import { contextOf, LazyContexts } from './contexts.ts';
import { ImportedCertificates } from './import.ts';
import { renewalTime } from './schedule.ts';
import type { ContextSnapshot } from './service.ts';
import { signCertificate } from './signing.ts';
import type { CertStore, StoredCertificate } from './store.ts';

/** What is held: certificates ordered for a host each, and imported ones; and which of them a host is served under. */
export class Holdings {
  readonly imports: ImportedCertificates;
  readonly #own = new Map<string, StoredCertificate>();
  readonly #now: () => number;
  #stopgap: CertificateMaterial | null = null;

  constructor(store: CertStore, now: () => number) {
    const stored = store.certificates();
    this.#now = now;
    this.imports = new ImportedCertificates(store, stored, now);
    for (const certificate of stored) if (certificate.source === 'acme') this.#own.set(certificate.name, certificate);
  }

  /** The one that was ordered for this host. */
  own(host: string): StoredCertificate | null {
    return this.#own.get(host) ?? null;
  }

  take(certificate: StoredCertificate): void {
    this.#own.set(certificate.name, certificate);
  }

  /** The imported one that stands for the host and is not yet so old that an own one must be ordered. */
  relied(host: string): StoredCertificate | null {
    const imported = this.imports.find(host);
    return imported !== null && renewalTime(imported, null) > this.#now() ? imported : null;
  }

  /**
   * What clients are shown: the operator's own while it is fresh, else whichever lasts longer. One that ran out is better than none:
   * a client can be told to go on, and the reason is plain to see.
   */
  served(host: string): StoredCertificate | null {
    const relied = this.relied(host);
    if (relied !== null) return relied;
    const [imported, own] = [this.imports.find(host), this.own(host)];
    if (imported === null || own === null) return own ?? imported;
    return own.notAfter >= imported.notAfter ? own : imported;
  }

  /** For the edge. Copying the names of a thousand hosts takes microseconds; contexts are kept between snapshots. */
  publish(hosts: Iterable<string>, domain: string): ContextSnapshot {
    const served = new Map<string, StoredCertificate>();
    for (const host of hosts) {
      const certificate = this.served(host);
      if (certificate !== null) served.set(host, certificate);
    }
    const make = (host: string): SecureContext | undefined => {
      const certificate = served.get(host);
      return certificate === undefined ? undefined : contextOf(certificate);
    };
    const fallback = () => make(domain) ?? contextOf(this.#ownStopgap());
    return {
      byHost: new LazyContexts(served, make),
      get fallback() {
        return fallback();
      },
    };
  }

  /** For clients without SNI until the domain has its certificate: self-signed, so that health checks by address get an answer. */
  #ownStopgap(): CertificateMaterial {
    if (this.#stopgap !== null) return this.#stopgap;
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const now = this.#now();
    const commonName = 'registry gateway, no certificate yet';
    const certificate = signCertificate(
      {
        commonName,
        names: ['localhost', '127.0.0.1', '::1'],
        publicKey,
        notBefore: now - 3_600_000,
        notAfter: now + STOPGAP_LIFETIME,
        ca: false,
      },
      { key: privateKey, publicKey, commonName },
    );
    this.#stopgap = {
      names: ['localhost'],
      notBefore: now,
      notAfter: now + STOPGAP_LIFETIME,
      serial: certificate.serialNumber,
      issuer: commonName,
      fingerprint: certificate.fingerprint256,
      chain: certificate.toString(),
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    };
    return this.#stopgap;
  }
}

/** No client trusts it, so its end matters little; a process is restarted more often than this, ms. */
const STOPGAP_LIFETIME = 365 * 24 * 3_600_000;

/** Whether public CAs can be asked for this name at all. */
export function isOrderable(host: string): boolean {
  return isIP(host) === 0 && host !== 'localhost';
}
