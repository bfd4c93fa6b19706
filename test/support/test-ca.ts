import { generateKeyPairSync } from 'node:crypto';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { signCertificate } from '../../src/certs/x509.ts';

const DAY = 24 * 3_600_000;

/** An authority that lives as long as its test, for fakes that speak https. */
export interface TestCa {
  /** PEM of its root. */
  readonly pem: string;
  /** An authority that this one has signed; its servers send it along, and the root not. */
  intermediate(commonName: string): TestCa;
  /** A server's key and chain, PEM; from two days ago to `until` days from now. */
  issue(names: readonly string[], until?: number): { readonly key: string; readonly cert: string };
}

/** @param until days from now, to which the root itself is valid */
export function makeTestCa(
  commonName = 'CA of this test',
  above?: Parameters<typeof signCertificate>[1],
  until = 3,
): TestCa {
  const root = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const signer = { key: root.privateKey, publicKey: root.publicKey, commonName };
  const now = Date.now();
  const pem = signCertificate(
    {
      commonName,
      names: [],
      publicKey: root.publicKey,
      notBefore: now - 3 * DAY,
      notAfter: now + until * DAY,
      ca: true,
    },
    above ?? signer,
  ).toString();
  return {
    pem,
    intermediate: (name) => makeTestCa(name, signer),
    issue(names, until = 1) {
      const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
      const order = { commonName: names[0] ?? '', names, publicKey, ca: false };
      const leaf = signCertificate({ ...order, notBefore: now - 2 * DAY, notAfter: now + until * DAY }, signer);
      return { key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), cert: leaf.toString() + pem };
    },
  };
}

/** Makes this process trust it besides whom it trusts already, as NODE_EXTRA_CA_CERTS does for a process that starts. */
export function trust(ca: TestCa): void {
  setDefaultCACertificates([...getCACertificates('default'), ca.pem]);
}
