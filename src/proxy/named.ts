import { type Digest, parseDigest } from '../oci/digest.ts';

/** A blob that a manifest names. */
export interface Named {
  readonly digest: Digest;
  readonly size: number | undefined;
}

/** More than any real image has; what is beyond is asked of the upstream when a client wants it. */
const MAX_NAMED = 10_000;

/**
 * The blobs that a manifest says its repository holds: config and layers, schema 1's fsLayers. Anything but JSON of that shape names none.
 * Two sorts of descriptors are left out, because registries take them on trust and so they prove nothing: foreign layers
 * (their `urls` lead elsewhere) and the manifests of an index.
 */
export function namedBlobs(body: Uint8Array): Named[] {
  let manifest: unknown;
  try {
    manifest = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
  } catch {
    return [];
  }
  if (!isObject(manifest)) return [];
  const { config, layers, blobs, fsLayers } = manifest;
  const named: Named[] = [];
  for (const descriptor of [config, ...list(layers), ...list(blobs), ...list(fsLayers)]) {
    if (named.length === MAX_NAMED) break;
    if (!isObject(descriptor) || list(descriptor.urls).length > 0) continue;
    const text = descriptor.digest ?? descriptor.blobSum;
    const digest = typeof text === 'string' ? parseDigest(text) : null;
    if (digest === null) continue;
    const { size } = descriptor;
    named.push({ digest, size: Number.isSafeInteger(size) && (size as number) >= 0 ? (size as number) : undefined });
  }
  return named;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}
