import { OperatorError } from '../kit/operator-error.ts';
import { iso } from '../kit/time.ts';
import { contextOf } from './contexts.ts';
import type { CertStore, StoredCertificate } from './store.ts';
import { coversHost, readMaterial, requireKnownIssuer } from './x509.ts';

/** The operator's own certificates (`cert import`): each covers every host that matches one of its names, wildcards included. */
export class ImportedCertificates {
  readonly #store: CertStore;
  readonly #now: () => number;
  #held: readonly StoredCertificate[] = [];

  /** Empty until `replace` brings what is stored. */
  constructor(store: CertStore, now: () => number) {
    this.#store = store;
    this.#now = now;
  }

  /** Takes what the store holds; certificates of other sources are left out. */
  replace(stored: readonly StoredCertificate[]): void {
    this.#held = stored
      .filter(({ source }) => source === 'import')
      // One that has not changed stays the same object, and so keeps its ready TLS context.
      .map(
        (one) =>
          this.#held.find(({ name, fingerprint }) => name === one.name && fingerprint === one.fingerprint) ?? one,
      );
  }

  /** Checks and keeps a certificate; one for the same names is replaced. @param force takes a chain whose last issuer is not known here. @throws {OperatorError} */
  async add(chain: string, key: string, force: boolean): Promise<StoredCertificate> {
    const material = readMaterial(chain, key);
    if (!force) requireKnownIssuer(material);
    if (material.notAfter <= this.#now()) {
      throw new OperatorError('CERTIFICATE_INVALID', `this certificate ran out on ${iso(material.notAfter)}`, {
        next: 'import its successor',
      });
    }
    const stored: StoredCertificate = {
      ...material,
      source: 'import',
      name: [...material.names].sort().join(','),
      directory: null,
      obtainedAt: this.#now(),
    };
    // Proves that TLS accepts it, before anything depends on it.
    contextOf(stored);
    await this.#store.putCertificate(stored);
    this.#held = [...this.#held.filter((other) => other.name !== stored.name), stored];
    return stored;
  }

  /** Of those that cover the host, the one that lasts longest; it may have run out. */
  find(host: string): StoredCertificate | null {
    let best: StoredCertificate | null = null;
    for (const certificate of this.#held) {
      if (!coversHost(certificate.names, host)) continue;
      if (best === null || certificate.notAfter > best.notAfter) best = certificate;
    }
    return best;
  }
}
