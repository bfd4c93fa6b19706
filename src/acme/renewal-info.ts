import { X509Certificate } from 'node:crypto';
import { AsnConvert } from '@peculiar/asn1-schema';
import { AuthorityKeyIdentifier, Certificate, id_ce_authorityKeyIdentifier } from '@peculiar/asn1-x509';

/**
 * The identifier of a certificate in ARI (RFC 9773 §4.1): base64url(key identifier of its authority) "." base64url(serial, as DER has it).
 * Null where the certificate names no authority key.
 */
export function certificateId(chain: string): string | null {
  const { raw } = new X509Certificate(chain);
  const { tbsCertificate } = AsnConvert.parse(raw, Certificate);
  const extension = tbsCertificate.extensions?.find(({ extnID }) => extnID === id_ce_authorityKeyIdentifier);
  if (extension === undefined) return null;
  const { keyIdentifier } = AsnConvert.parse(extension.extnValue.buffer, AuthorityKeyIdentifier);
  if (keyIdentifier === undefined) return null;
  // Content octets of the INTEGER, with the zero before a set top bit.
  return `${base64url(keyIdentifier.buffer)}.${base64url(tbsCertificate.serialNumber)}`;
}

function base64url(bytes: ArrayBuffer): string {
  return Buffer.from(bytes).toString('base64url');
}
