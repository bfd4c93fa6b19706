import { createPrivateKey, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { OperatorError } from '../kit/operator-error.ts';

/** What the program needs to know of a certificate, read once when it comes in and kept beside it. Times in epoch milliseconds. */
export interface CertificateFacts {
  /** Lower-case DNS names (also `*.…`) and IP addresses of the subjectAltName. */
  readonly names: readonly string[];
  readonly notBefore: number;
  readonly notAfter: number;
  /** Upper-case hexadecimal. */
  readonly serial: string;
  /** The issuer's common name, else its whole name. */
  readonly issuer: string;
  /** SHA-256 of the DER, lower-case hexadecimal. */
  readonly fingerprint: string;
}

/** A chain (leaf first) and its private key, both PEM, with the leaf's facts. */
export interface CertificateMaterial extends CertificateFacts {
  readonly chain: string;
  readonly key: string;
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/**
 * Reads a chain and its key, and proves that they belong together.
 * @throws {OperatorError} `CERTIFICATE_INVALID` with a message for the person who supplied them.
 */
export function readMaterial(chain: string, key: string): CertificateMaterial {
  const blocks = chain.match(PEM_CERTIFICATE) ?? [];
  const [first] = blocks;
  if (first === undefined) throw invalid('there is no PEM certificate in it', 'give the file with the full chain');
  const [leaf, ...rest] = blocks.map(parse);
  if (leaf === undefined) throw invalid('there is no PEM certificate in it', 'give the file with the full chain');
  const privateKey = parseKey(key);
  if (!leaf.checkPrivateKey(privateKey)) {
    throw invalid(
      'the private key does not belong to the first certificate of the chain',
      "give the server's own certificate first, and its key",
    );
  }
  let below = leaf;
  for (const above of rest) {
    if (!below.checkIssued(above)) {
      throw invalid(
        `in the chain, ${commonName(above.subject)} does not follow as the issuer of ${commonName(below.subject)}`,
        'order the file leaf first, then each issuer in turn',
      );
    }
    below = above;
  }
  const facts = readFacts(leaf);
  if (facts.names.length === 0) {
    throw invalid(
      'the certificate names no host in its subjectAltName',
      'clients ignore the common name: get a new one',
    );
  }
  return {
    ...facts,
    chain: `${blocks.join('\n')}\n`,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}

export function readFacts(certificate: X509Certificate): CertificateFacts {
  return {
    names: alternativeNames(certificate.subjectAltName),
    notBefore: certificate.validFromDate.getTime(),
    notAfter: certificate.validToDate.getTime(),
    serial: certificate.serialNumber.toUpperCase(),
    issuer: commonName(certificate.issuer),
    fingerprint: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
  };
}

/** Whether one of a certificate's names matches the host; a wildcard matches exactly one label (RFC 9525 §6.3). */
export function coversHost(names: readonly string[], host: string): boolean {
  if (names.includes(host)) return true;
  const dot = host.indexOf('.');
  return dot > 0 && isIP(host) === 0 && names.includes(`*${host.slice(dot)}`);
}

function alternativeNames(text: string | undefined): string[] {
  if (text === undefined) return [];
  return text.split(', ').flatMap((part) => {
    if (part.startsWith('DNS:')) return [part.slice(4).toLowerCase()];
    if (part.startsWith('IP Address:')) return [part.slice(11).toLowerCase()];
    return [];
  });
}

/** Node writes a name one attribute a line: `CN=R11`. */
function commonName(name: string): string {
  const line = name.split('\n').find((attribute) => attribute.startsWith('CN='));
  return line === undefined ? name.replaceAll('\n', ', ') : line.slice(3);
}

function parse(pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw invalid('one of its certificates cannot be read', 'give PEM, as a CA delivers it', cause);
  }
}

function parseKey(pem: string) {
  try {
    return createPrivateKey(pem);
  } catch (cause) {
    throw invalid('the private key cannot be read', 'give it as PEM, without a passphrase', cause);
  }
}

function invalid(what: string, next: string, cause?: unknown): OperatorError {
  return new OperatorError('CERTIFICATE_INVALID', `this certificate cannot be used: ${what}`, {
    next,
    ...(cause === undefined ? {} : { cause }),
  });
}
