import type { RegistryEntry } from '../aliases/table.ts';
import type { ManifestRow } from '../cache/index-port.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import { RegistryError } from '../oci/errors.ts';
import type { AcceptClass } from '../oci/media-types.ts';
import { type Digest, parseDigest, type Reference, type RepositoryKey } from '../oci/names.ts';
import type { Upstream, UpstreamManifest } from '../upstream/upstream.ts';
import type { BlobSizes } from './blobs.ts';
import type { Reply } from './reply.ts';
import type { RepositoryAccess } from './repository-access.ts';

export type Method = 'GET' | 'HEAD';

/** A manifest as far as it is known. Where only HEAD was asked of the upstream, its bytes are not. */
export interface KnownManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly size: number;
  readonly body: Uint8Array | null;
}

/** The manifest that a reference names, and where it came from. */
export interface Found {
  readonly manifest: KnownManifest;
  readonly from: Extract<Reply['from'], 'cache' | 'upstream' | 'stale'>;
  /** See {@link Reply.freshUntil}. */
  readonly freshUntil?: number;
}

/**
 * The longest that a reply may be given again before the index is looked up once more, ms: what the index has dropped is gone from memory
 * within it, and the index's times of use are late by no more.
 */
export const REPLY_TTL = 60_000;

/** What a web server sends to people. */
const WEB_PAGE = new Set(['text/html', 'application/xhtml+xml']);

export interface ManifestFetcherOptions {
  readonly upstream: Upstream;
  readonly store: ManifestStore;
  readonly access: RepositoryAccess;
  readonly sizes: BlobSizes;
  /** Ends what no client waits for any more when the gateway stops. */
  readonly signal: AbortSignal;
}

/** Gets manifests from the upstream, and draws the conclusions from having seen one. */
export class ManifestFetcher {
  readonly #options: ManifestFetcherOptions;

  constructor(options: ManifestFetcherOptions) {
    this.#options = options;
  }

  /** @throws {RegistryError} the upstream's, and upstreamWrong for what is no such manifest */
  async request(
    key: RepositoryKey,
    reference: Reference,
    method: Method,
    client: AcceptClass,
  ): Promise<UpstreamManifest> {
    const { upstream, signal } = this.#options;
    const manifest = await upstream.manifest(key, reference, { method, accept: client.header, signal });
    const wrong = (reason: string) => new RegistryError('upstreamWrong', { facts: { registry: key.registry, reason } });
    // A login page must never take an image's place.
    if (WEB_PAGE.has(manifest.mediaType)) throw wrong('a web page');
    if (reference.kind === 'digest' && manifest.digest !== undefined && manifest.digest !== reference.digest) {
      throw wrong(`a manifest whose digest is ${manifest.digest}`);
    }
    if (method === 'GET' && (manifest.body === null || manifest.digest === undefined)) throw wrong('no manifest');
    return manifest;
  }

  /** Stores a fetched manifest, and what follows from it: its repository holds it and the blobs that it names. */
  keep(entry: RegistryEntry, key: RepositoryKey, manifest: UpstreamManifest): KnownManifest {
    const { digest, mediaType, body } = manifest;
    if (digest === undefined || body === null) throw new TypeError('a GET without body or digest');
    this.#options.store.putManifest({ digest, mediaType, body });
    this.#options.access.gave(entry, key, digest);
    this.learnBlobs(entry, key, body);
    return { digest, mediaType, body, size: body.length };
  }

  /** Remembers that a repository holds the blobs that a manifest of it names, and their sizes. */
  learnBlobs(entry: RegistryEntry, key: RepositoryKey, body: Uint8Array): void {
    const blobs = blobDescriptors(body);
    if (blobs.length === 0) return;
    this.#options.access.said(
      entry,
      key,
      blobs.map(({ digest }) => digest),
    );
    for (const { digest, size } of blobs) if (size !== undefined) this.#options.sizes.set(key, digest, size);
  }
}

export function knownManifest({ digest, mediaType, body }: ManifestRow): KnownManifest {
  return { digest, mediaType, body, size: body.length };
}

/** What a manifest says of a blob (image-spec, *Content Descriptors*). */
export interface BlobDescriptor {
  readonly digest: Digest;
  readonly size: number | undefined;
}

/** More than any real image has; what is beyond is asked of the upstream when a client wants it. */
const MAX_DESCRIPTORS = 10_000;

/**
 * The blobs that a manifest says its repository holds: config and layers, schema 1's fsLayers. Anything but JSON of that shape names none.
 * Two sorts of descriptors are left out, because registries take them on trust and so they prove nothing: foreign layers
 * (their `urls` lead elsewhere) and the manifests of an index.
 */
export function blobDescriptors(body: Uint8Array): BlobDescriptor[] {
  let manifest: unknown;
  try {
    manifest = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
  } catch {
    return [];
  }
  if (!isObject(manifest)) return [];
  const { config, layers, blobs, fsLayers } = manifest;
  const found: BlobDescriptor[] = [];
  for (const descriptor of [config, ...listOf(layers), ...listOf(blobs), ...listOf(fsLayers)]) {
    if (found.length === MAX_DESCRIPTORS) break;
    if (!isObject(descriptor) || listOf(descriptor.urls).length > 0) continue;
    const text = descriptor.digest ?? descriptor.blobSum;
    const digest = typeof text === 'string' ? parseDigest(text) : null;
    if (digest === null) continue;
    const { size } = descriptor;
    found.push({ digest, size: Number.isSafeInteger(size) && (size as number) >= 0 ? (size as number) : undefined });
  }
  return found;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}
