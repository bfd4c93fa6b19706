import { X509Certificate } from 'node:crypto';
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls';

// Authorities that certificates may be signed by: those that Node knows, those of this machine, and those that an operator names.

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
/** More certificates than any bundle of a company's roots has; what is longer is the bundle of a whole system. */
const MAX_AUTHORITIES = 100;

/** An authority as a person knows it. */
export interface Authority {
  /** `CN=Corp Root, O=Corp`. */
  readonly subject: string;
  /** ISO 8601. */
  readonly notAfter: string;
}

/**
 * The certificates in a PEM file, one after the other, without whatever else is in it: a private key, comments.
 * @throws {Error} in words that follow the name of the file
 */
export function parseAuthorities(text: string): string {
  const found = text.match(PEM_CERTIFICATE) ?? [];
  if (found.length === 0) throw new Error('has no certificate in PEM (-----BEGIN CERTIFICATE-----)');
  if (found.length > MAX_AUTHORITIES)
    throw new Error(`has ${found.length} certificates; ${MAX_AUTHORITIES} are the most`);
  return found.map((pem) => readCertificate(pem).toString()).join('');
}

function readCertificate(pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw new Error('has a certificate that cannot be read', { cause });
  }
}

/** @param pem as `parseAuthorities` returns it */
export function describeAuthorities(pem: string): Authority[] {
  return (pem.match(PEM_CERTIFICATE) ?? []).map((one) => {
    const { subject, validToDate } = new X509Certificate(one);
    return { subject: subject.split('\n').reverse().join(', '), notAfter: validToDate.toISOString() };
  });
}

/** The authorities that Node and this machine trust, each read as it is asked for; one that cannot be read is left out. */
export function* authorities(): Generator<X509Certificate> {
  for (const pem of new Set([...getCACertificates('default'), ...getCACertificates('system')])) {
    try {
      yield new X509Certificate(pem);
    } catch {
      // Some store holds what OpenSSL does not read; it is then no authority of ours either.
    }
  }
}

/**
 * An authority that another has signed is trusted as well as a root is (`X509_V_FLAG_PARTIAL_CHAIN`, as curl and Go have it): many an operator is
 * given the one that signs and no other.
 *
 * Trusts what Node does (its own roots, `NODE_EXTRA_CA_CERTS`), what this machine does (its store, as `--use-system-ca` reads it), and these. It takes
 * a tenth of a second: to be made once.
 */
export function trusting(...more: readonly string[]): SecureContext {
  return createSecureContext({
    allowPartialTrustChain: true,
    ca: [...new Set([...getCACertificates('default'), ...getCACertificates('system'), ...more])],
  });
}

/** OpenSSL's words for a chain that ends at an authority which is not trusted, as Node spells them. */
const UNKNOWN_ISSUER: ReadonlySet<string> = new Set([
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
]);

/** Whether a connection failed since nobody here trusts who signed the certificate. */
export function isUnknownIssuer(error: unknown): boolean {
  for (let at: unknown = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    const { code } = at as { code?: unknown };
    if (typeof code === 'string' && UNKNOWN_ISSUER.has(code)) return true;
  }
  return false;
}
