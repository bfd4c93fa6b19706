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
  /** Taken back by the operator: each is shown until its hosts have others, and lasts no longer than this process. */
  #released: readonly StoredCertificate[] = [];

  /** Empty until `replace` brings what is stored. */
  constructor(store: CertStore, now: () => number) {
    this.#store = store;
    this.#now = now;
  }

  get held(): readonly StoredCertificate[] {
    return this.#held;
  }

  /** Takes what the store holds; certificates of other sources are left out. */
  replace(stored: readonly StoredCertificate[]): void {
    const before = this.#held;
    this.#held = stored
      .filter(({ source }) => source === 'import')
      // One that has not changed stays the same object, and so keeps its ready TLS context.
      .map(
        (one) => before.find(({ name, fingerprint }) => name === one.name && fingerprint === one.fingerprint) ?? one,
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
    this.#released = this.#released.filter((other) => other.name !== stored.name);
    return stored;
  }

  /** Takes the certificate by which the host is covered out of the store. @returns it; null where none covers the host */
  async remove(host: string): Promise<StoredCertificate | null> {
    const found = this.find(host);
    if (found === null) return null;
    await this.#store.removeCertificate('import', found.name);
    this.#held = this.#held.filter((one) => one !== found);
    this.#released = [...this.#released, found];
    return found;
  }

  /** Of those that cover the host, the one that lasts longest; it may have run out. */
  find(host: string): StoredCertificate | null {
    return longestFor(this.#held, host);
  }

  /** The same of those that were taken back: to be shown only where there is no other. */
  findReleased(host: string): StoredCertificate | null {
    return longestFor(this.#released, host);
  }
}

function longestFor(certificates: readonly StoredCertificate[], host: string): StoredCertificate | null {
  let best: StoredCertificate | null = null;
  for (const certificate of certificates) {
    if (!coversHost(certificate.names, host)) continue;
    if (best === null || certificate.notAfter > best.notAfter) best = certificate;
  }
  return best;
}

export function nothingImported(host: string, issuer: string | null): OperatorError {
  const held = issuer === null ? 'it has none' : `its certificate is of ${issuer}`;
  return new OperatorError('CERTIFICATE_NOT_IMPORTED', `no imported certificate covers ${host}: ${held}`, {
    next: `for a new one of the CA: gateway cert renew ${host}`,
  });
}
