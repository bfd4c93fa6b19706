import { LRUCache } from 'lru-cache';
import type { RegistryEntry } from '../aliases/table.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import type { Askers } from '../kit/askers.ts';
import { SingleFlight } from '../kit/async.ts';
import { elapsed } from '../kit/time.ts';
import { type AcceptClass, isSharedByClass, mayHave, variantOf } from '../oci/media-types.ts';
import { type Reference, type RepositoryKey, repositoryId } from '../oci/names.ts';
import type { ImageHistory } from '../policy/history.ts';
import {
  type Asking,
  type Found,
  type KnownManifest,
  type ManifestFetcher,
  type ManifestHead,
  type Method,
  REPLY_TTL,
} from './manifest-fetcher.ts';
import { flightId, isDenial, isMissing, isSpent, NegativeCache, type RepositoryAccess } from './repository-access.ts';
import { StaleIfError, staleness } from './stale.ts';

export interface ManifestsByTagOptions {
  readonly fetcher: ManifestFetcher;
  readonly store: ManifestStore;
  readonly access: RepositoryAccess;
  /** Is told what tags stand for; null where nothing is remembered. */
  readonly history: ImageHistory | null;
  /** Read at each use. */
  readonly config: { readonly tagTtl: number; readonly staleFor: number };
  readonly now: () => number;
  /** Whether a registry could not be connected to when it was last tried. */
  readonly outOfReach: (registry: string) => boolean;
}

/** One request for a tag. */
interface TagRequest {
  readonly entry: RegistryEntry;
  readonly key: RepositoryKey;
  readonly tag: string;
  readonly client: AcceptClass;
  readonly method: Method;
  /** `Pull.client`. */
  readonly asker: string;
  /** Equal for requests whose answers are equal, apart from the method and unknown types. */
  readonly id: string;
}

/** The manifest that a tag named when the upstream was last asked. */
interface TagAnswer extends KnownManifest {
  /** Milliseconds since 1970. */
  readonly checkedAt: number;
}

/** What a request for a tag finds here. */
interface Held {
  readonly kept: TagAnswer | null;
  /** It may be served in place of what the upstream has. */
  readonly sparing: boolean;
}

/** Tags that were answered with what is not here yet. */
const NAMED_KEPT = 10_000;

/** Manifests by tag: kept for a while, then revalidated; the kept one is served while the upstream fails. */
export class ManifestsByTag {
  readonly #options: ManifestsByTagOptions;
  readonly #flights = new SingleFlight<TagAnswer>();
  readonly #missing: NegativeCache;
  readonly #staleIfError: StaleIfError;
  /** What a HEAD named in place of what is kept, and a client is about to get by its digest; see `#askUpstream`. */
  readonly #named = new LRUCache<string, TagAnswer>({ max: NAMED_KEPT });

  constructor(options: ManifestsByTagOptions) {
    this.#options = options;
    this.#missing = new NegativeCache(options.now);
    this.#staleIfError = new StaleIfError(options.now);
  }

  clear(): void {
    this.#missing.clear();
    this.#staleIfError.clear();
    this.#named.clear();
  }

  /**
   * The manifest that the tag names, for a client of this class. For GET it has a body.
   * @param asker `Pull.client`
   * @throws {RegistryError} the upstream's, where nothing that is kept may be served in its place
   */
  find(
    entry: RegistryEntry,
    key: RepositoryKey,
    tag: string,
    client: AcceptClass,
    method: Method,
    asker: string,
  ): Promise<Found> | Found {
    const id = `${repositoryId(key)}:${tag} ${client.key}`;
    const request = { entry, key, tag, client, method, id, asker };
    const kept = this.#kept(request);
    if (kept !== null && this.#age(kept) < this.#options.config.tagTtl) return this.#reusable(kept, 'cache', client);
    return this.#revalidate(request, kept);
  }

  async #revalidate(request: TagRequest, kept: TagAnswer | null): Promise<Found> {
    const { entry, key, id, method, client, asker } = request;
    this.#missing.check(id);
    if (method === 'GET') this.#missing.check(pullOf(id));
    const fallback = kept !== null && this.#mayBeStale(request, kept) ? kept : null;
    if (fallback !== null && this.#staleIfError.isFailing(id)) return this.#stale(request, fallback);
    const flight = this.#flights.do(
      flightId(entry, key, `${method} ${id} ${client.header}`),
      (askers) => this.#ask(request, { kept, sparing: fallback !== null }, askers),
      asker,
    );
    if (fallback === null) return this.#reusable(await flight, 'upstream', client);
    const { registry } = key;
    if (this.#options.outOfReach(registry)) {
      // The request finds out whether that is still so; the next one has its answer.
      flight.catch(() => {});
      return this.#stale(request, fallback);
    }
    try {
      const answer = await this.#staleIfError.within(id, flight, `${registry} does not answer`);
      if (answer !== null)
        return this.#reusable(answer, answer.digest === fallback.digest ? 'cache' : 'upstream', client);
    } catch (error) {
      // The registry may have closed the repository meanwhile, in answer to another request.
      const still = this.#staleIfError.isFailing(id) ? this.#kept(request) : null;
      if (still === null) throw error;
      return this.#stale(request, still);
    }
    const still = this.#kept(request);
    if (still === null) return this.#reusable(await flight, 'upstream', client);
    return this.#stale(request, still);
  }

  /** One upstream conversation about a tag, for everyone who waits for it. */
  async #ask(request: TagRequest, held: Held, askers: Askers): Promise<TagAnswer> {
    const { key, id, method } = request;
    try {
      const answer = await this.#askUpstream(request, held, askers);
      this.#staleIfError.succeeded(id);
      return answer;
    } catch (error) {
      this.#options.access.failed(key, error);
      if (isMissing(error) || isDenial(error)) this.#drop(request);
      this.#missing.note(id, error);
      if (method === 'GET' && !held.sparing) this.#missing.noteSpent(pullOf(id), error);
      this.#staleIfError.failed(id, error);
      throw error;
    }
  }

  async #askUpstream(request: TagRequest, { kept, sparing }: Held, askers: Askers): Promise<TagAnswer> {
    const { entry, key, tag, client, method } = request;
    const { fetcher } = this.#options;
    const reference: Reference = { kind: 'tag', tag };
    const by = { accept: client.header, askers, sparing };
    // HEAD costs nothing at Docker Hub; where something is kept, it is most often all that is needed, and another tag may name the same.
    if (kept === null && method === 'GET' && !fetcher.countsPulls(key))
      return this.#keep(request, await fetcher.get(entry, key, reference, by));
    const named = this.#fromHead(request, await fetcher.head(entry, key, reference, by));
    if (named === null) return this.#keep(request, await fetcher.get(entry, key, reference, by));
    if (named.body !== null) return this.#keep(request, named);
    // Whether it can be had or not.
    this.#seen(request, named);
    // The tag has moved to what another gateway may have fetched.
    const shared = method === 'GET' ? await fetcher.shared(entry, key, named.digest) : null;
    if (shared !== null) return this.#keep(request, shared);
    // The HEAD may have told of it.
    const counts = fetcher.countsPulls(key);
    if (counts) await this.#setAside(request, named, { kept, sparing });
    if (method === 'GET') return this.#keep(request, await this.#getNamed(request, named, counts, by));
    // Clients that ask a tag by HEAD get the manifest by its digest next, so the tag is kept before the manifest is.
    if (!counts || kept === null) return this.#keep(request, named);
    // It may not be given that one, and what is kept must not be forgotten until the other is here.
    const answer = { ...named, checkedAt: this.#options.now() };
    this.#named.set(request.id, answer);
    return answer;
  }

  /** @throws {RegistryError} upstreamBudgetSpent where it cannot be fetched now; not to who only wants to know what the tag names, and would get nothing else */
  async #setAside({ entry, key, method }: TagRequest, named: KnownManifest, { kept, sparing }: Held): Promise<void> {
    const { fetcher } = this.#options;
    const pulls = await fetcher.pullsFor(entry, key, named, kept);
    try {
      fetcher.setAside({ ...key, digest: named.digest }, pulls, sparing);
    } catch (error) {
      if (method === 'GET' || sparing || !isSpent(error)) throw error;
    }
  }

  /**
   * What a HEAD has just named. Where pulls are counted it is asked by its digest, which is the same at every endpoint: those that have pulls left
   * may have another one, or none, under the tag.
   */
  async #getNamed(request: TagRequest, named: KnownManifest, counts: boolean, by: Asking): Promise<KnownManifest> {
    const { entry, key, tag } = request;
    const { fetcher } = this.#options;
    try {
      if (counts) return await fetcher.getDigest(entry, key, named.digest, by);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
    return await fetcher.get(entry, key, { kind: 'tag', tag }, by);
  }

  /**
   * Null where the HEAD says too little, or of what is kept something else, so that a GET must. Without a body where the manifest is not here.
   */
  #fromHead(request: TagRequest, { digest, mediaType, size, body, asked }: ManifestHead): KnownManifest | null {
    if (digest === undefined) return null;
    if (body !== null) return { digest, mediaType, body, size: body.length };
    const { entry, key } = request;
    const { store, access, fetcher } = this.#options;
    const row = store.getManifest(digest);
    if (row !== null && size !== undefined && size !== row.body.length) return null;
    access.said(entry, key, [{ digest, mediaType }], asked);
    return fetcher.kept(entry, key, digest) ?? (size === undefined ? null : { digest, mediaType, size, body: null });
  }

  /** The newest answer that this client may have through this registry's row, however old. */
  #kept(request: TagRequest): TagAnswer | null {
    const { entry, key, tag, client } = request;
    const { store, fetcher } = this.#options;
    let newest: TagAnswer | null = null;
    for (const variant of client.variants) {
      const row = store.getTag(key, tag, variant);
      if (row === null || (newest !== null && this.#age(newest) <= this.#age(row))) continue;
      const kept = fetcher.kept(entry, key, row.digest);
      if (kept !== null && mayHave(client, variant, kept.mediaType)) newest = { ...kept, checkedAt: row.checkedAt };
    }
    return this.#named.size === 0 ? newest : this.#newer(request, newest);
  }

  /** What a HEAD named since, where it has come by its digest. */
  #newer(request: TagRequest, newest: TagAnswer | null): TagAnswer | null {
    const named = this.#named.get(request.id);
    if (named === undefined) return newest;
    if (newest !== null && this.#age(newest) <= this.#age(named)) {
      this.#named.delete(request.id);
      return newest;
    }
    const { entry, key, client } = request;
    const kept = this.#options.fetcher.kept(entry, key, named.digest);
    if (kept === null) return newest;
    this.#named.delete(request.id);
    return this.#keep({ key, tag: request.tag, client }, kept, named.checkedAt);
  }

  /** The upstream answered then that the tag names this manifest; left out: just now. */
  #keep(
    { key, tag, client }: Pick<TagRequest, 'key' | 'tag' | 'client'>,
    manifest: KnownManifest,
    checkedAt = this.#options.now(),
  ): TagAnswer {
    const variant = variantOf(client, manifest.mediaType);
    this.#options.store.putTag(key, tag, variant, { digest: manifest.digest, checkedAt });
    this.#seen({ key, tag, client }, manifest);
    return { ...manifest, checkedAt };
  }

  #seen({ key, tag, client }: Pick<TagRequest, 'key' | 'tag' | 'client'>, { mediaType, digest }: KnownManifest): void {
    const { registry, repository } = key;
    this.#options.history?.tagSeen({ registry, repository, tag, variant: variantOf(client, mediaType) }, digest);
  }

  /** Nothing is under the tag for a client that accepts this. Another class may be told of something else. */
  #drop({ key, tag, client }: TagRequest): void {
    for (const variant of client.variants) this.#options.store.dropTag(key, tag, variant);
  }

  #reusable(answer: TagAnswer, from: Found['from'], client: AcceptClass): Found {
    const { config, now } = this.#options;
    const since = answer.checkedAt;
    if (!isSharedByClass(client, answer.mediaType)) return { manifest: answer, from, since };
    return { manifest: answer, from, since, freshUntil: Math.min(answer.checkedAt + config.tagTtl, now() + REPLY_TTL) };
  }

  /** What is kept, since its registry fails. */
  #stale({ key, id }: TagRequest, answer: TagAnswer): Found {
    const trouble = this.#staleIfError.trouble(id, `${key.registry} cannot be connected to`);
    const stale = staleness(trouble, answer.checkedAt, this.#options.now());
    return { manifest: answer, from: 'stale', since: answer.checkedAt, stale };
  }

  /** What is pinned is there for the very time when its registry is not. */
  #mayBeStale({ key, tag }: TagRequest, kept: TagAnswer): boolean {
    const { config, store } = this.#options;
    return this.#age(kept) <= config.staleFor || store.isPinned(key, tag);
  }

  /** Milliseconds since the upstream was asked. */
  #age({ checkedAt }: Pick<TagAnswer, 'checkedAt'>): number {
    return elapsed(checkedAt, this.#options.now());
  }
}

/** That a tag cannot be got now, though it may be asked by HEAD. */
function pullOf(id: string): string {
  return `GET ${id}`;
}
