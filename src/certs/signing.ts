import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign, X509Certificate } from 'node:crypto';
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
  if (!order.ca) list.push(extension(id_ce_extKeyUsage, new ExtendedKeyUsage([id_kp_serverAuth])));
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
