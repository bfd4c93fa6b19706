import { createHash } from 'node:crypto';
import { isObject, parseJsonObject } from '../kit/json.ts';
import { DOCKER_SCHEMA1_SIGNED } from './media-types.ts';
import { type Digest, digestAlgorithm, digestHex } from './names.ts';

/** Signed manifests of schema 1 have a few KiB for each of at most 127 layers; what is larger is not looked into on the path of a request. */
const MAX_SIGNED = 1024 * 1024;

/**
 * Whether a manifest's digest is this one: that of its bytes, or of a signed manifest of Docker's schema 1 that of its payload, which its
 * signatures are not part of (distribution, *Image Manifest Version 2, Schema 1*: Signed Manifests).
 */
export function isManifestDigest(body: Uint8Array, digest: Digest): boolean {
  const hash = (bytes: Uint8Array) => createHash(digestAlgorithm(digest)).update(bytes).digest('hex');
  if (hash(body) === digestHex(digest)) return true;
  const payload = signedPayload(body);
  return payload !== null && hash(payload) === digestHex(digest);
}

/** What a manifest is called where its registry does not say: by the payload of a signed one, as its clients do, else by its bytes. */
export function manifestDigest(body: Uint8Array, mediaType: string): Digest {
  const payload = mediaType === DOCKER_SCHEMA1_SIGNED ? signedPayload(body) : null;
  const hash = createHash('sha256').update(payload ?? body);
  return `sha256:${hash.digest('hex')}` as Digest;
}

/** The payload of a JSON web signature in libtrust's pretty form; null for what is no such document, and for one that says more than its payload. */
function signedPayload(body: Uint8Array): Buffer | null {
  if (body.length > MAX_SIGNED) return null;
  const signatures: unknown = parseJsonObject(body)?.signatures;
  const first: unknown = Array.isArray(signatures) ? signatures[0] : undefined;
  if (!isObject(first) || typeof first.protected !== 'string') return null;
  const { formatLength, formatTail } = parseJsonObject(Buffer.from(first.protected, 'base64url')) ?? {};
  if (!Number.isSafeInteger(formatLength) || typeof formatTail !== 'string') return null;
  const length = formatLength as number;
  if (length < 1 || length > body.length) return null;
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  // Nothing but the signatures may follow: a second `fsLayers` would win over the one in the payload.
  const rest = parseJsonObject(Buffer.from(bytes.subarray(length).toString('utf8').replace(/^\s*,/, '{')));
  if (rest === null || Object.keys(rest).join() !== 'signatures') return null;
  return Buffer.concat([bytes.subarray(0, length), Buffer.from(formatTail, 'base64url')]);
}
