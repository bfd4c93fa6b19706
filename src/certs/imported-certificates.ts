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
  /** Taken back by the operator: each is shown where a host has no other, until all its hosts have one, or it runs out. */
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
    const before = [...this.#held, ...this.#released];
    const imported = stored
      .filter(({ source }) => source === 'import')
      // One that has not changed stays the same object, and so keeps its ready TLS context.
      .map((one) => before.find((other) => isSame(one, other)) ?? one);
    this.#held = imported.filter(({ releasedAt }) => releasedAt === undefined);
    this.#released = imported.filter(({ releasedAt }) => releasedAt !== undefined);
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

  /** Takes back the certificate by which the host is covered; it stays to be shown where there is no other. @returns it; null where none covers the host */
  async release(host: string): Promise<StoredCertificate | null> {
    const found = this.find(host);
    if (found === null) return null;
    const released = { ...found, releasedAt: this.#now() };
    await this.#store.putCertificate(released);
    this.#held = this.#held.filter((one) => one !== found);
    this.#released = [...this.#released.filter(({ name }) => name !== found.name), released];
    return released;
  }

  /** Takes out of the store, with its key, the certificate by which the host is covered, one that was taken back before, too. @returns it; null where none covers the host */
  async remove(host: string): Promise<StoredCertificate | null> {
    const found = this.find(host) ?? this.findReleased(host);
    if (found === null) return null;
    await this.#drop(found);
    return found;
  }

  /** Those that were taken back and are shown to nobody any more leave the store. @param needed whether it is still shown for one of its hosts. @returns whether there were any */
  async dropReleased(needed: (certificate: StoredCertificate) => boolean): Promise<boolean> {
    const done = this.#released.filter((one) => one.notAfter <= this.#now() || !needed(one));
    for (const one of done) await this.#drop(one);
    return done.length > 0;
  }

  async #drop({ name }: StoredCertificate): Promise<void> {
    await this.#store.removeCertificate('import', name);
    this.#held = this.#held.filter((one) => one.name !== name);
    this.#released = this.#released.filter((one) => one.name !== name);
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

function isSame(one: StoredCertificate, other: StoredCertificate): boolean {
  return one.name === other.name && one.fingerprint === other.fingerprint && one.releasedAt === other.releasedAt;
}

function longestFor(certificates: readonly StoredCertificate[], host: string): StoredCertificate | null {
  let best: StoredCertificate | null = null;
  for (const certificate of certificates) {
    if (!coversHost(certificate.names, host)) continue;
    if (best === null || certificate.notAfter > best.notAfter) best = certificate;
  }
  return best;
}

/**
 * @param issuer of the certificate that the host has; null where it has none
 * @param released whether one was taken back that is still shown
 */
export function nothingImported(host: string, issuer: string | null, released = false): OperatorError {
  if (released) {
    return new OperatorError(
      'CERTIFICATE_NOT_IMPORTED',
      `the imported certificate of ${host} is taken back already, and shown until the host has another`,
      { next: `to have it shown to nobody from now on: gateway cert rm ${host} --now` },
    );
  }
  if (issuer === null) {
    return new OperatorError('CERTIFICATE_NOT_IMPORTED', `no imported certificate covers ${host}, and no other one`);
  }
  return new OperatorError(
    'CERTIFICATE_NOT_IMPORTED',
    `no imported certificate covers ${host}: its certificate is of ${issuer}`,
    { next: `for a new one of the CA: gateway cert renew ${host}` },
  );
}

/** Why no other certificate is obtained for a host. */
export function coveredByImport(host: string, { names, notAfter }: StoredCertificate): OperatorError {
  return new OperatorError(
    'CERTIFICATE_IMPORTED',
    `${host} is covered by an imported certificate (${names.join(', ')}) until ${iso(notAfter)}`,
    { next: 'import its successor: gateway cert import CERT KEY' },
  );
}
