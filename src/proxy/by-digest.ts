import type { RegistryEntry } from '../aliases/table.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import type { Askers } from '../kit/askers.ts';
import { SingleFlight } from '../kit/async.ts';
import { acceptClass } from '../oci/media-types.ts';
import { contentId, type Digest, type RepositoryKey } from '../oci/names.ts';
import type { ImageHistory } from '../policy/history.ts';
import { type Found, type KnownManifest, type ManifestFetcher, type Method, REPLY_TTL } from './manifest-fetcher.ts';
import { flightId, NegativeCache, type RepositoryAccess } from './repository-access.ts';

export interface ManifestsByDigestOptions {
  readonly fetcher: ManifestFetcher;
  readonly store: ManifestStore;
  readonly access: RepositoryAccess;
  /** Is told what repositories show; null where nothing is remembered. */
  readonly history: ImageHistory | null;
  readonly now: () => number;
}

/** Any manifest: bytes that are asked for by their digest cannot be others for another client. */
const EVERYTHING = acceptClass(undefined).header;

/**
 * Manifests by digest: kept for good, and given to repositories that said or gave them. What a client accepts changes nothing: it asked for
 * these bytes.
 */
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

  /** For GET the manifest has a body. `asker`: `Pull.client`. @throws {RegistryError} the upstream's */
  find(
    entry: RegistryEntry,
    key: RepositoryKey,
    digest: Digest,
    method: Method,
    asker: string,
  ): Promise<Found> | Found {
    const kept = this.#options.fetcher.kept(entry, key, digest);
    // It was shown once, and is in use still.
    if (kept !== null) this.#options.history?.seen(key, digest);
    return kept === null ? this.#fetch(entry, key, digest, method, asker) : this.#reusable(kept, 'cache');
  }

  /** One upstream conversation about a digest, for all who ask at the same time. */
  async #fetch(
    entry: RegistryEntry,
    key: RepositoryKey,
    digest: Digest,
    method: Method,
    asker: string,
  ): Promise<Found> {
    const id = contentId(key, digest);
    this.#missing.check(id);
    const task = async (askers: Askers): Promise<Found> => {
      try {
        return await this.#ask(entry, key, digest, method, askers);
      } catch (error) {
        this.#options.access.failed({ ...key, digest }, error);
        this.#missing.note(id, error);
        throw error;
      }
    };
    return this.#flights.do(flightId(entry, key, `${method} ${id}`), task, asker);
  }

  async #ask(entry: RegistryEntry, key: RepositoryKey, digest: Digest, method: Method, askers: Askers): Promise<Found> {
    const by = { accept: EVERYTHING, askers };
    const { store, access, fetcher } = this.#options;
    const reference = { kind: 'digest', digest } as const;
    const shared = await fetcher.shared(entry, key, digest);
    if (shared !== null) return this.#reusable(shared, 'cache');
    const row = store.getManifest(digest);
    // Where it is here for another repository, a HEAD may be enough to show that this one has it too.
    if (row !== null || method === 'HEAD') {
      const head = await fetcher.head(entry, key, reference, by);
      const { mediaType, size, body, asked } = head;
      if (body !== null) return this.#reusable({ digest, mediaType, body, size: body.length }, 'upstream');
      if (row === null || size === undefined || size === row.body.length) {
        if (head.digest !== undefined) {
          access.said(entry, key, [{ digest, mediaType }], asked);
          this.#options.history?.seen(key, digest);
        }
        const kept = fetcher.kept(entry, key, digest);
        if (kept !== null) return this.#reusable(kept, 'upstream');
        if (method === 'HEAD' && size !== undefined) {
          return { manifest: { digest, mediaType, size, body: null }, from: 'upstream' };
        }
      }
    }
    return this.#reusable(await fetcher.getDigest(entry, key, digest, by), 'upstream');
  }

  #reusable(manifest: KnownManifest, from: Found['from']): Found {
    const now = this.#options.now();
    const since = from === 'cache' ? manifest.came : now;
    return { manifest, from, freshUntil: now + REPLY_TTL, ...(since ? { since } : {}) };
  }
}
