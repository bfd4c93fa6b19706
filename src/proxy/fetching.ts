import type { RegistryEntry } from '../aliases/table.ts';
import type { ManifestRow } from '../cache/index-port.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import { RegistryError } from '../oci/errors.ts';
import type { AcceptClass } from '../oci/media-types.ts';
import type { Reference, RepositoryKey } from '../oci/target.ts';
import type { Upstream, UpstreamManifest } from '../upstream/upstream.ts';
import type { Access } from './access.ts';
import type { Answer } from './hot.ts';
import { namedBlobs } from './named.ts';
import type { Sizes } from './sizes.ts';

export type Method = 'GET' | 'HEAD';

/** An answer, and how it came about. */
export interface Found {
  readonly answer: Answer;
  readonly from: 'cache' | 'upstream' | 'stale';
}

/** What a web server sends to people. */
const WEB_PAGE = new Set(['text/html', 'application/xhtml+xml']);

export interface FetchingOptions {
  readonly upstream: Upstream;
  readonly store: ManifestStore;
  readonly access: Access;
  readonly sizes: Sizes;
  /** Ends what no client waits for any more when the gateway stops. */
  readonly signal: AbortSignal;
}

/** Manifests from the upstream, and what follows from having seen one. */
export class ManifestFetching {
  readonly #options: FetchingOptions;

  constructor(options: FetchingOptions) {
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

  /** Puts a fetched manifest away, with what follows from it: its repository holds it and the blobs that it names. */
  keep(entry: RegistryEntry, key: RepositoryKey, manifest: UpstreamManifest): ManifestRow {
    const { digest, mediaType, body } = manifest;
    if (digest === undefined || body === null) throw new TypeError('a GET without body or digest');
    const row = { digest, mediaType, body };
    this.#options.store.putManifest(row);
    this.#options.access.proved(entry, key, [digest]);
    this.learn(entry, key, body);
    return row;
  }

  /** What a manifest that this repository holds says of its blobs. */
  learn(entry: RegistryEntry, key: RepositoryKey, body: Uint8Array): void {
    const named = namedBlobs(body);
    if (named.length === 0) return;
    this.#options.access.proved(
      entry,
      key,
      named.map(({ digest }) => digest),
    );
    for (const { digest, size } of named) if (size !== undefined) this.#options.sizes.set(key, digest, size);
  }
}
