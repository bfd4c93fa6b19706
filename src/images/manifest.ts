import { isObject, parseJsonObject } from '../kit/json.ts';
import { DOCKER_LIST, essence, OCI_INDEX } from '../oci/media-types.ts';
import { type Digest, parseDigest } from '../oci/names.ts';
import type { Platform } from './platform.ts';

/** Content that a manifest names, as its descriptor says it (image-spec, *Content Descriptors*). */
export interface Descriptor {
  readonly digest: Digest;
  readonly mediaType: string;
  /** Bytes; undefined where the descriptor does not say. */
  readonly size: number | undefined;
  /** Of a manifest in an index. */
  readonly platform: Platform | null;
  /** It is to be had elsewhere, and registries need not hold it (image-spec, *Non-Distributable Layers*). */
  readonly isForeign: boolean;
}

/** What a manifest names, by what that is. */
export type ManifestContent =
  | { readonly kind: 'index'; readonly manifests: readonly Descriptor[] }
  /** `config` is null for what has none (schema 1, artifacts of early ORAS). */
  | { readonly kind: 'image'; readonly config: Descriptor | null; readonly layers: readonly Descriptor[] };

/** Reads a manifest of any known type; null for what is none. */
export function readManifestContent(body: Uint8Array, mediaType: string): ManifestContent | null {
  const manifest = parseJsonObject(body);
  if (manifest === null) return null;
  if (mediaType === OCI_INDEX || mediaType === DOCKER_LIST || Array.isArray(manifest.manifests))
    return { kind: 'index', manifests: descriptors(manifest.manifests) };
  const layers = descriptors(manifest.layers ?? manifest.blobs ?? manifest.fsLayers);
  return { kind: 'image', config: descriptor(manifest.config), layers };
}

function descriptors(value: unknown): Descriptor[] {
  return Array.isArray(value) ? value.map(descriptor).filter((one) => one !== null) : [];
}

function descriptor(value: unknown): Descriptor | null {
  if (!isObject(value)) return null;
  // Schema 1 has no descriptors, only digests.
  const text = value.digest ?? value.blobSum;
  const digest = typeof text === 'string' ? parseDigest(text) : null;
  if (digest === null) return null;
  const { size, mediaType, urls } = value;
  return {
    digest,
    mediaType: typeof mediaType === 'string' ? essence(mediaType) : '',
    size: Number.isSafeInteger(size) && (size as number) >= 0 ? (size as number) : undefined,
    platform: platformOf(value.platform),
    isForeign: Array.isArray(urls) && urls.length > 0,
  };
}

function platformOf(value: unknown): Platform | null {
  if (!isObject(value)) return null;
  const { os, architecture, variant } = value;
  if (typeof os !== 'string' || typeof architecture !== 'string') return null;
  return { os, architecture, variant: typeof variant === 'string' ? variant : '' };
}
