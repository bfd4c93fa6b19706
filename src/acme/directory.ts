import { X509Certificate } from 'node:crypto';
import { AsnConvert } from '@peculiar/asn1-schema';
import { AuthorityKeyIdentifier, Certificate, id_ce_authorityKeyIdentifier } from '@peculiar/asn1-x509';
import { IssuerError, type RenewalInfo } from '../certs/issuer.ts';
import type { Terms, Transport } from './transport.ts';

/** What of a directory (RFC 8555 §7.1.1) acme-client does not read for us. */
export interface Directory {
  /** Base of ARI (RFC 9773 §3); null where the CA does not speak it. */
  readonly renewalInfo: string | null;
  /** Profiles on offer, by name; null where the CA has none. */
  readonly profiles: readonly string[] | null;
}

/** Directories change rarely; a restart of the CA may change it, ms. */
const KEPT = 600_000;

/** Reads the directory and keeps it for a while. */
export class DirectoryReader {
  readonly #transport: Transport;
  #kept: { readonly directory: Directory; readonly until: number } | null = null;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** @throws {IssuerError} */
  async read(terms: Terms): Promise<Directory> {
    if (this.#kept !== null && performance.now() < this.#kept.until) return this.#kept.directory;
    return await this.readAnew(terms);
  }

  /** @throws {IssuerError} */
  async readAnew(terms: Terms): Promise<Directory> {
    const url = this.#transport.directory;
    const { body } = await this.#transport.send('GET', url, terms);
    const content = parse(body);
    if (content === null || typeof content.newOrder !== 'string') {
      throw new IssuerError('badAnswer', `there is no ACME directory at ${url}`, { directory: url });
    }
    const meta = object(content.meta);
    const profiles = object(meta?.profiles);
    const directory: Directory = {
      renewalInfo: typeof content.renewalInfo === 'string' ? content.renewalInfo : null,
      profiles: profiles === null ? null : Object.keys(profiles),
    };
    this.#kept = { directory, until: performance.now() + KEPT };
    return directory;
  }
}

function parse(body: string): Record<string, unknown> | null {
  try {
    return object(JSON.parse(body));
  } catch {
    return null;
  }
}

function object(value: unknown): Record<string, unknown> | null {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null;
}

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

/** A CA's answer about a certificate. @throws where it cannot be read */
export function parseRenewalInfo(body: string, retryAfter: number | null): RenewalInfo {
  const { suggestedWindow, explanationURL } = JSON.parse(body);
  const windowStart = Date.parse(suggestedWindow.start);
  const windowEnd = Date.parse(suggestedWindow.end);
  // RFC 9773 §4.2: a window that ends before it starts is no window.
  if (!(windowEnd > windowStart)) throw new RangeError('no window');
  return {
    windowStart,
    windowEnd,
    explanation: typeof explanationURL === 'string' ? explanationURL : null,
    retryAfter,
  };
}

function base64url(bytes: ArrayBuffer): string {
  return Buffer.from(bytes).toString('base64url');
}
