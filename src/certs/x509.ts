import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto';
import { isIP } from 'node:net';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  AuthorityKeyIdentifier,
  BasicConstraints,
  Certificate,
  ExtendedKeyUsage,
  Extension,
  Extensions,
  GeneralName,
  id_ce_authorityKeyIdentifier,
  id_ce_basicConstraints,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  id_ce_subjectAltName,
  id_ce_subjectKeyIdentifier,
  id_kp_clientAuth,
  id_kp_serverAuth,
  KeyIdentifier,
  KeyUsage,
  KeyUsageFlags,
  Name,
  RelativeDistinguishedName,
  SubjectAlternativeName,
  SubjectKeyIdentifier,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Validity,
} from '@peculiar/asn1-x509';
import { authorities } from '../kit/authorities.ts';
import { parseAddress } from '../kit/networks.ts';
import { OperatorError } from '../kit/operator-error.ts';

// Reading

/** What the program needs to know of a certificate, read once when it comes in and kept beside it. Times in epoch milliseconds. */
export interface CertificateFacts {
  /** Lower-case DNS names (also `*.…`) and IP addresses (RFC 5952) of the subjectAltName. */
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
    if (!below.checkIssued(above) || !below.verify(above.publicKey)) {
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

/**
 * Clients trust roots and fetch nothing: a chain must lead to a root that is known here, or that is in the file itself.
 * @throws {OperatorError} `CERTIFICATE_INVALID`
 */
export function requireKnownIssuer({ chain }: CertificateMaterial): void {
  const last = parse(chain.match(PEM_CERTIFICATE)?.at(-1) ?? '');
  const isSignedBy = (authority: X509Certificate) => last.checkIssued(authority) && last.verify(authority.publicKey);
  if (isSignedBy(last) || [...authorities()].some(isSignedBy)) return;
  const issuer = commonName(last.issuer);
  throw invalid(
    `it was signed by ${issuer}, whose certificate is neither in the file nor among those that this machine trusts: clients would refuse it`,
    `give the file with the full chain (${issuer} behind the certificate${issuerPlace(last)}); where the clients trust ${issuer} itself: --force`,
  );
}

/** Where the missing certificate of its issuer can be had (RFC 5280 §4.2.2.1), in words; empty where it does not say. */
function issuerPlace({ infoAccess }: X509Certificate): string {
  const url = /CA Issuers - URI:(http\S+)/.exec(infoAccess ?? '')?.[1];
  return url === undefined ? '' : `, which is at ${url}`;
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
    // OpenSSL writes an IPv6 address in eight whole parts; everything here compares the canonical text.
    if (part.startsWith('IP Address:')) return [parseAddress(part.slice(11))?.toString() ?? part.slice(11)];
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

// Signing

/**
 * Certificates signed here, synchronously, with Node's own crypto: a leaf of the internal CA is made at the handshake
 * that first asks for it, where nothing can be awaited.
 */
export interface CertificateOrder {
  readonly commonName: string;
  /** DNS names and IP addresses; empty for a CA. */
  readonly names: readonly string[];
  readonly publicKey: KeyObject;
  /** Epoch milliseconds; the certificate counts in whole seconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  readonly ca: boolean;
  /** A leaf that is shown by clients of TLS too, as gateways do to each other. */
  readonly forClients?: boolean;
}

export interface Signer {
  readonly key: KeyObject;
  readonly publicKey: KeyObject;
  readonly commonName: string;
}

const ECDSA_WITH_SHA256 = '1.2.840.10045.4.3.2';
const COMMON_NAME = '2.5.4.3';
/** X.520 upper bound; a longer host is named in the subjectAltName alone. */
const COMMON_NAME_MAX = 64;
/** RFC 5280 §4.1.2.2 allows 20 octets; 16 random ones never collide. */
const SERIAL_BYTES = 16;

/** Signs a certificate (RFC 5280 profile, ECDSA with SHA-256); `signer` may be the subject itself. */
export function signCertificate(order: CertificateOrder, signer: Signer): X509Certificate {
  const algorithm = new AlgorithmIdentifier({ algorithm: ECDSA_WITH_SHA256 });
  const subject = name(order.commonName.length <= COMMON_NAME_MAX ? order.commonName : null);
  const tbs = new TBSCertificate({
    version: 2,
    serialNumber: bytes(serial()),
    signature: algorithm,
    issuer: name(signer.commonName),
    validity: new Validity({ notBefore: new Date(order.notBefore), notAfter: new Date(order.notAfter) }),
    subject,
    subjectPublicKeyInfo: AsnConvert.parse(spki(order.publicKey), SubjectPublicKeyInfo),
    extensions: new Extensions(extensions(order, signer, subject.length === 0)),
  });
  const body = AsnConvert.serialize(tbs);
  const certificate = new Certificate({
    tbsCertificate: tbs,
    tbsCertificateRaw: body,
    signatureAlgorithm: algorithm,
    signatureValue: bytes(sign('sha256', new Uint8Array(body), signer.key)),
  });
  return new X509Certificate(Buffer.from(AsnConvert.serialize(certificate)));
}

/** A new P-256 key, and its PEM (PKCS#8). */
export function newKeyPair(): { readonly privateKey: KeyObject; readonly publicKey: KeyObject; readonly pem: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { privateKey, publicKey, pem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
}

/** A certificate that no CA vouches for, with a key of its own; PEM. */
export function selfSigned(order: Omit<CertificateOrder, 'publicKey' | 'ca'>): {
  readonly certificate: X509Certificate;
  readonly chain: string;
  readonly key: string;
} {
  const { privateKey, publicKey, pem } = newKeyPair();
  const signer = { key: privateKey, publicKey, commonName: order.commonName };
  const certificate = signCertificate({ ...order, publicKey, ca: false }, signer);
  return { certificate, chain: certificate.toString(), key: pem };
}

function extensions(order: CertificateOrder, signer: Signer, anonymous: boolean): Extension[] {
  const list = [
    extension(id_ce_basicConstraints, new BasicConstraints(order.ca ? { cA: true, pathLenConstraint: 0 } : {}), true),
    extension(
      id_ce_keyUsage,
      new KeyUsage(order.ca ? KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign : KeyUsageFlags.digitalSignature),
      true,
    ),
    extension(id_ce_subjectKeyIdentifier, new SubjectKeyIdentifier(keyIdentifier(order.publicKey))),
    extension(
      id_ce_authorityKeyIdentifier,
      new AuthorityKeyIdentifier({ keyIdentifier: new KeyIdentifier(keyIdentifier(signer.publicKey)) }),
    ),
  ];
  if (!order.ca) {
    const uses = order.forClients === true ? [id_kp_serverAuth, id_kp_clientAuth] : [id_kp_serverAuth];
    list.push(extension(id_ce_extKeyUsage, new ExtendedKeyUsage(uses)));
  }
  if (order.names.length > 0) {
    const names = order.names.map((value) => new GeneralName(isIP(value) ? { iPAddress: value } : { dNSName: value }));
    // Critical where the subject is empty (RFC 5280 §4.1.2.6).
    list.push(extension(id_ce_subjectAltName, new SubjectAlternativeName(names), anonymous));
  }
  return list;
}

function extension(id: string, value: object, critical = false): Extension {
  return new Extension({ extnID: id, critical, extnValue: new OctetString(AsnConvert.serialize(value)) });
}

function name(commonName: string | null): Name {
  if (commonName === null) return new Name([]);
  const value = new AttributeValue({ utf8String: commonName });
  return new Name([new RelativeDistinguishedName([new AttributeTypeAndValue({ type: COMMON_NAME, value })])]);
}

/** RFC 7093 §2 method 1: the first 160 bits of the key's SHA-256. */
function keyIdentifier(key: KeyObject): ArrayBuffer {
  return bytes(
    createHash('sha256')
      .update(new Uint8Array(spki(key)))
      .digest()
      .subarray(0, 20),
  );
}

function spki(key: KeyObject): ArrayBuffer {
  return bytes(key.export({ type: 'spki', format: 'der' }));
}

function serial(): Buffer {
  const random = randomBytes(SERIAL_BYTES);
  // Positive, and never with a leading zero octet that DER would forbid.
  random[0] = ((random[0] ?? 0) & 0x7f) | 0x40;
  return random;
}

function bytes(buffer: Buffer): ArrayBuffer {
  return new Uint8Array(buffer).buffer;
}
