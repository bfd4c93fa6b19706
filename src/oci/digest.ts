/** `sha256:<64 hex>` or `sha512:<128 hex>`, lower case, checked (image-spec, *Digests*). */
export type Digest = string & { readonly __digest: unique symbol };

const HEX_LENGTH: Readonly<Record<string, number>> = { sha256: 64, sha512: 128 };

/** Parses a digest; null where it is none that this gateway can verify. */
export function parseDigest(text: string): Digest | null {
  const colon = text.indexOf(':');
  const hex = text.slice(colon + 1);
  if (colon < 1 || HEX_LENGTH[text.slice(0, colon)] !== hex.length || !/^[0-9a-f]+$/.test(hex)) return null;
  return text as Digest;
}

export function digestAlgorithm(digest: Digest): 'sha256' | 'sha512' {
  return digest.startsWith('sha512:') ? 'sha512' : 'sha256';
}

export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}
