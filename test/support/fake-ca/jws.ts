import { createHash, createPublicKey, type JsonWebKey, verify } from 'node:crypto';

export interface Jws {
  readonly header: { readonly kid?: string; readonly jwk?: JsonWebKey; readonly nonce?: string; readonly url?: string };
  /** Null for a POST-as-GET. */
  readonly payload: Record<string, unknown> | null;
  readonly signedBy: (jwk: JsonWebKey) => boolean;
}

/** Flattened JSON serialisation with ES256 (RFC 7515, RFC 8555 §6.2). */
export function readJws(body: string): Jws {
  const { protected: head, payload, signature } = JSON.parse(body) as Record<string, string>;
  const decode = (part: string) => Buffer.from(part, 'base64url').toString();
  return {
    header: JSON.parse(decode(head ?? '')),
    payload: payload === '' || payload === undefined ? null : JSON.parse(decode(payload)),
    signedBy: (jwk) =>
      verify(
        'sha256',
        Buffer.from(`${head}.${payload}`),
        { key: createPublicKey({ key: jwk, format: 'jwk' }), dsaEncoding: 'ieee-p1363' },
        Buffer.from(signature ?? '', 'base64url'),
      ),
  };
}

/** RFC 7638. */
export function thumbprint(jwk: JsonWebKey): string {
  const { crv, kty, x, y } = jwk;
  return createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url');
}
