import type { RegistryEntry } from '../aliases/table.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import { SingleFlight } from '../kit/async.ts';
import { type AcceptClass, accepts } from '../oci/media-types.ts';
import { contentId, type Digest, type RepositoryKey } from '../oci/names.ts';
import {
  type Found,
  type KnownManifest,
  knownManifest,
  type ManifestFetcher,
  type Method,
  REPLY_TTL,
} from './manifest-fetcher.ts';
import { NegativeCache, type RepositoryAccess } from './repository-access.ts';

export interface ManifestsByDigestOptions {
  readonly fetcher: ManifestFetcher;
  readonly store: ManifestStore;
  readonly access: RepositoryAccess;
  readonly now: () => number;
}

/** Manifests by digest: kept for good, and given to repositories that are known to hold them. */
export class ManifestsByDigest {
  readonly #options: ManifestsByDigestOptions;
  readonly #flights = new SingleFlight<Found>();
  readonly #missing: NegativeCache;

  constructor(options: ManifestsByDigestOptions) {
    this.#options = options;
    this.#missing = new NegativeCache(options.now);
  }

  clear(): void {
    this.#missing.clear();
  }

  /** For GET the manifest has a body. @throws {RegistryError} the upstream's */
  find(
    entry: RegistryEntry,
    key: RepositoryKey,
    digest: Digest,
    client: AcceptClass,
    method: Method,
  ): Promise<Found> | Found {
    const { access, store } = this.#options;
    const row = access.mayServe(entry, key, digest) ? store.getManifest(digest) : null;
    if (row !== null && accepts(client, row.mediaType)) return this.#reusable(knownManifest(row), 'cache');
    return this.#fetch(entry, key, digest, client, method);
  }

  /** One upstream conversation about a digest, for all who ask at the same time. */
  async #fetch(
    entry: RegistryEntry,
    key: RepositoryKey,
    digest: Digest,
    client: AcceptClass,
    method: Method,
  ): Promise<Found> {
    const id = `${contentId(key, digest)} ${client.key}`;
    this.#missing.check(id);
    return this.#flights.do(`${method} ${id}`, async () => {
      try {
        return await this.#ask(entry, key, digest, client, method);
      } catch (error) {
        this.#options.access.failed(key, error);
        this.#missing.note(id, error);
        throw error;
      }
    });
  }

  async #ask(
    entry: RegistryEntry,
    key: RepositoryKey,
    digest: Digest,
    client: AcceptClass,
    method: Method,
  ): Promise<Found> {
    const { store, access, fetcher } = this.#options;
    const request = (how: Method) => fetcher.request(key, { kind: 'digest', digest }, how, client);
    const row = store.getManifest(digest);
    // It is here for another repository: this one only has to show that it has it too.
    if (row !== null && accepts(client, row.mediaType)) {
      await request('HEAD');
      access.said(entry, key, [digest]);
      fetcher.learnBlobs(entry, key, row.body);
      return this.#reusable(knownManifest(row), 'upstream');
    }
    if (method === 'HEAD') {
      const { mediaType, size } = await request('HEAD');
      if (size !== undefined) return { manifest: { digest, mediaType, size, body: null }, from: 'upstream' };
    }
    return this.#reusable(fetcher.keep(entry, key, await request('GET')), 'upstream');
  }

  #reusable(manifest: KnownManifest, from: Found['from']): Found {
    return { manifest, from, freshUntil: this.#options.now() + REPLY_TTL };
  }
}
