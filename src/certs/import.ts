import { OperatorError } from '../kit/operator-error.ts';
import { iso } from '../kit/time.ts';
import { type CertificateMaterial, coversHost, readMaterial } from './certificate.ts';
import type { CertStore, StoredCertificate } from './store.ts';

/** The operator's own certificates (`cert import`): each covers every host that one of its names, wildcards included, stands for. */
export class ImportedCertificates {
  readonly #store: CertStore;
  readonly #now: () => number;
  #held: readonly StoredCertificate[];

  constructor(store: CertStore, held: readonly StoredCertificate[], now: () => number) {
    this.#store = store;
    this.#now = now;
    this.#held = held.filter((certificate) => certificate.source === 'import');
  }

  /** Checks and keeps it; one for the same names is replaced. @throws {OperatorError} */
  add(chain: string, key: string): StoredCertificate {
    const material = readMaterial(chain, key);
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
    this.#store.putCertificate(stored);
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

  get all(): readonly CertificateMaterial[] {
    return this.#held;
  }
}
