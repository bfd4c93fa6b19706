import { AuthorityKeyIdentifierExtension, X509Certificate } from '@peculiar/x509';

/**
 * The identifier of a certificate in ARI (RFC 9773 §4.1): base64url(key identifier of its authority) "." base64url(serial, as DER has it).
 * Null where the certificate names no authority key.
 */
export function certificateId(chain: string): string | null {
  const certificate = new X509Certificate(firstBlock(chain));
  const authority = certificate.getExtension(AuthorityKeyIdentifierExtension);
  if (authority?.keyId === undefined) return null;
  return `${base64url(authority.keyId)}.${base64url(derInteger(certificate.serialNumber))}`;
}

/** The content octets: positive, so a zero comes before a set top bit. */
function derInteger(hex: string): string {
  const even = hex.length % 2 === 0 ? hex : `0${hex}`;
  const trimmed = even.replace(/^(00)+(?=..)/, '');
  return Number.parseInt(trimmed.slice(0, 2), 16) >= 0x80 ? `00${trimmed}` : trimmed;
}

function firstBlock(chain: string): string {
  const end = '-----END CERTIFICATE-----';
  return chain.slice(0, chain.indexOf(end) + end.length);
}

function base64url(hex: string): string {
  return Buffer.from(hex, 'hex').toString('base64url');
}
