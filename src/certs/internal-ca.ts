import { generateKeyPairSync } from 'node:crypto';
import { type CertificateMaterial, readFacts } from './certificate.ts';
import type { InternalRoot } from './internal-root.ts';
import { signCertificate } from './signing.ts';

/**
 * 90 days: well under the 825 that macOS and iOS allow a leaf below a root that a person installed (support.apple.com/103769),
 * and never longer than the root lasts.
 */
const LEAF_LIFETIME = 90 * 24 * 3_600_000;
/** Renewed when a third of its life is left. */
const RENEW_LEFT = 1 / 3;
/** Clients' clocks may be slow. */
const BACKDATE = 3_600_000;

/**
 * Signs leaves on demand, within a handshake if need be (0.3 ms): any name is ready at once, nothing is kept on disk but the root,
 * and a leaf that grows old is replaced when it is next asked for.
 */
export class InternalCa {
  readonly root: InternalRoot;
  readonly #now: () => number;
  readonly #leaves = new Map<string, CertificateMaterial>();

  constructor(root: InternalRoot, now: () => number) {
    this.root = root;
    this.#now = now;
  }

  /** The leaf for these names, kept under the first. */
  leaf(names: readonly [string, ...string[]]): CertificateMaterial {
    return this.made(names[0]) ?? this.renew(names);
  }

  /** The leaf kept under this name, if one was made and need not be replaced yet. */
  made(name: string): CertificateMaterial | null {
    const held = this.#leaves.get(name);
    return held !== undefined && this.#now() < renewalTime(held) && this.#now() >= held.notBefore ? held : null;
  }

  /** A new one, whatever is held. */
  renew(names: readonly [string, ...string[]]): CertificateMaterial {
    const now = this.#now();
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const certificate = signCertificate(
      {
        commonName: names[0],
        names,
        publicKey,
        notBefore: now - BACKDATE,
        notAfter: Math.min(now + LEAF_LIFETIME, this.root.notAfter),
        ca: false,
      },
      this.root,
    );
    const material: CertificateMaterial = {
      ...readFacts(certificate),
      chain: certificate.toString(),
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    };
    this.#leaves.set(names[0], material);
    return material;
  }

  forget(name: string): void {
    this.#leaves.delete(name);
  }
}

export function renewalTime(certificate: CertificateMaterial): number {
  return certificate.notAfter - (certificate.notAfter - certificate.notBefore) * RENEW_LEFT;
}
