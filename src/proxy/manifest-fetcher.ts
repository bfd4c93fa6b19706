import { LRUCache } from 'lru-cache';
import type { RegistryEntry } from '../aliases/table.ts';
import type { ManifestRow } from '../cache/index-port.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import type { SharedContent } from '../cache/shared-store.ts';
import type { Askers } from '../kit/askers.ts';
import { andThen, type Lifetime, SingleFlight } from '../kit/async.ts';
import { readDocument } from '../oci/document-reader.ts';
import type { NamedContent } from '../oci/documents.ts';
import { acceptClass, isIndex, isWebPage } from '../oci/media-types.ts';
import {
  type BlobKey,
  contentId,
  type Digest,
  type Reference,
  type RepositoryKey,
  repositoryId,
} from '../oci/names.ts';
import type { ImageHistory } from '../policy/history.ts';
import type { Upstream, UpstreamManifest } from '../upstream/upstream.ts';
import type { BlobSizes } from './blob-sizes.ts';
import type { Reply } from './reply.ts';
import { flightId, type RepositoryAccess } from './repository-access.ts';
import type { Staleness } from './stale.ts';

export type Method = 'GET' | 'HEAD';

/** A manifest as far as it is known. Where only HEAD was asked of the upstream, its bytes are not. */
export interface KnownManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly size: number;
  readonly body: Uint8Array | null;
  /** When its registry gave it, of what is kept; 0 where that is not known. */
  readonly came?: number;
}

/** The manifest that a reference names, and where it came from. */
export interface Found {
  readonly manifest: KnownManifest;
  readonly from: Extract<Reply['from'], 'cache' | 'upstream' | 'stale'>;
  /** See {@link Reply.since}. */
  readonly since?: number;
  /** What is said of it where it is stale. */
  readonly stale?: Staleness;
  /** The value of `Warning`, where something else is to be said of it. */
  readonly warning?: string;
  /** See {@link Reply.freshUntil}. */
  readonly freshUntil?: number;
}

/**
 * The longest that a reply may be given again before the index is looked up once more, ms: what the index has dropped is gone from memory
 * within it, and the index's times of use are late by no more.
 */
export const REPLY_TTL = 60_000;

export interface ManifestFetcherOptions {
  readonly upstream: Upstream;
  readonly store: ManifestStore;
  readonly access: RepositoryAccess;
  readonly sizes: BlobSizes;
  /** Is told what registries show; null where nothing is remembered. */
  readonly history: ImageHistory | null;
  /** What other gateways have fetched; null where there are none. */
  readonly shared: SharedContent | null;
  /** Ends what no client waits for any more when the gateway stops. */
  readonly lifetime: Lifetime;
}

/** As many as their blobs' sizes are kept: see `BlobSizes`. */
const LEARNT_KEPT = 1_000;

/** What a HEAD says of a manifest, or the manifest itself where only a GET could tell. A HEAD is a hint: it may be wrong. */
export interface ManifestHead {
  readonly digest: Digest | undefined;
  readonly mediaType: string;
  readonly size: number | undefined;
  readonly body: Uint8Array | null;
  /** When it was asked for, in the count of denials: see `RepositoryAccess.said`. */
  readonly asked: number;
}

/** How the upstream is asked. */
export interface Asking {
  /** The header `Accept`. */
  readonly accept: string;
  /** For whom. */
  readonly askers: Askers;
  /** See `ManifestOptions.sparing`. */
  readonly sparing?: boolean;
}

/** Any manifest: bytes that are asked for by their digest cannot be others for another client. */
const EVERYTHING = acceptClass(undefined).header;

/** Gets manifests from the upstream, and draws the conclusions from having seen one. */
export class ManifestFetcher {
  readonly #options: ManifestFetcherOptions;
  readonly #flights = new SingleFlight<KnownManifest>();
  /** Manifests of repositories whose sizes are known. */
  readonly #learnt = new LRUCache<string, true>({ max: LEARNT_KEPT });

  constructor(options: ManifestFetcherOptions) {
    this.#options = options;
  }

  /** A manifest that is kept, as this repository may give it without asking: with the type that this repository has for it. */
  kept(entry: RegistryEntry, key: RepositoryKey, digest: Digest): KnownManifest | null {
    const { access, store } = this.#options;
    if (!access.mayServe(entry, key, digest)) return null;
    const mediaType = access.mediaType(key, digest);
    if (mediaType === null || isWebPage(mediaType)) return null;
    const row = store.getManifest(digest);
    if (row === null) return null;
    void this.#learnSizes(key, mediaType, row);
    return { digest, mediaType, body: row.body, size: row.body.length, came: row.came };
  }

  /** The same, from what other gateways have fetched; it is kept here then. */
  async shared(entry: RegistryEntry, key: RepositoryKey, digest: Digest): Promise<KnownManifest | null> {
    const { shared, access, store } = this.#options;
    if (shared === null || access.mediaType(key, digest) === null || store.getManifest(digest) !== null) return null;
    if (!(await access.mayServeShared(entry, key, digest))) return null;
    const body = await shared.manifest(digest);
    if (body === null) return null;
    store.putManifest({ digest, body });
    return this.kept(entry, key, digest);
  }

  /** Asks by HEAD; where that is refused, or says what cannot be true, the GET that decides is kept. @throws {RegistryError} the upstream's */
  async head(entry: RegistryEntry, key: RepositoryKey, reference: Reference, by: Asking): Promise<ManifestHead> {
    const asked = this.#options.access.denials.now;
    const answer = await this.#ask(key, reference, 'HEAD', by);
    return { ...(answer.body === null ? answer : this.#keep(entry, key, answer, asked)), asked };
  }

  /** Gets a manifest, and keeps it. @throws {RegistryError} the upstream's */
  async get(entry: RegistryEntry, key: RepositoryKey, reference: Reference, by: Asking): Promise<KnownManifest> {
    const asked = this.#options.access.denials.now;
    return this.#keep(entry, key, await this.#ask(key, reference, 'GET', by), asked);
  }

  /**
   * What this manifest names is known to the history then, where a rule needs that.
   * @throws {RegistryError} gatewayBusy where it is large and cannot be read now
   */
  learnt(key: RepositoryKey, { digest, mediaType, body }: KnownManifest): Promise<void> | void {
    const { history } = this.#options;
    if (history === null || body === null || !history.wantsNames(key, digest)) return;
    const reading = readDocument('manifest', body, { mediaType }, { registry: key.registry });
    return andThen(reading, (known) => history.named(key, digest, partsIn(known?.named ?? [])));
  }

  /**
   * The same by its digest, once for all who ask at the same moment, by whatever tag and whatever they accept.
   * @throws {RegistryError} the upstream's
   */
  getDigest(
    entry: RegistryEntry,
    key: RepositoryKey,
    digest: Digest,
    by: Omit<Asking, 'accept'>,
  ): Promise<KnownManifest> {
    const { askers, sparing = false } = by;
    const task = (all: Askers) =>
      this.get(entry, key, { kind: 'digest', digest }, { accept: EVERYTHING, askers: all, sparing });
    return this.#flights.do(flightId(entry, key, `${sparing} ${contentId(key, digest)}`), task, askers);
  }

  /** See `Upstream`. */
  countsPulls(key: RepositoryKey): boolean {
    return this.#options.upstream.countsPulls(key);
  }

  /** See `Upstream`. */
  setAside(key: BlobKey, pulls: number, sparing: boolean): void {
    this.#options.upstream.setAside(key, pulls, sparing);
  }

  /**
   * How many pulls a manifest costs that is about to be fetched: whoever has an index wants a manifest of it next; and where an index was kept
   * before, as many as of that one were.
   */
  async pullsFor(
    entry: RegistryEntry,
    key: RepositoryKey,
    { mediaType }: Pick<KnownManifest, 'mediaType'>,
    before: KnownManifest | null,
  ): Promise<number> {
    if (!isIndex(mediaType)) return 1;
    if (before === null || before.body === null || !isIndex(before.mediaType)) return 2;
    const reading = await readDocument(
      'manifest',
      before.body,
      { mediaType: before.mediaType },
      { registry: key.registry },
    );
    const platforms = (reading?.named ?? []).filter(
      ({ kind, digest }) => kind === 'manifest' && this.#options.access.hasGiven(entry, key, digest),
    );
    return 1 + Math.max(1, platforms.length);
  }

  /** The sizes that a manifest gives, which are in memory only, from one that was kept before this start, or forgotten since. */
  async #learnSizes(key: RepositoryKey, mediaType: string, { digest, body }: ManifestRow): Promise<void> {
    const id = contentId(key, digest);
    if (this.#learnt.has(id)) return;
    this.#learnt.set(id, true);
    try {
      const reading = await readDocument('manifest', body, { mediaType }, { registry: key.registry });
      this.#noteSizes(key, reading?.named ?? []);
    } catch {
      // Too busy: the sizes come with the blobs.
      this.#learnt.delete(id);
    }
  }

  #noteSizes(key: RepositoryKey, named: readonly NamedContent[]): void {
    for (const { digest, size } of named) if (size !== undefined) this.#options.sizes.set(key, digest, size);
  }

  #ask(key: RepositoryKey, reference: Reference, method: Method, by: Asking): Promise<UpstreamManifest> {
    const { upstream, lifetime } = this.#options;
    return lifetime.run((signal) => upstream.manifest(key, reference, { method, ...by, signal }));
  }

  /** Keeps a manifest that the upstream gave, and what follows from it. `asked`: the moment of the request, in the count of denials. */
  #keep(entry: RegistryEntry, key: RepositoryKey, answer: UpstreamManifest, asked: number): KnownManifest {
    const { access, store } = this.#options;
    const { digest, mediaType, body, named } = answer;
    if (digest === undefined || body === null) throw new TypeError('a GET without body or digest');
    const manifest = { digest, mediaType, body, size: body.length };
    this.#options.history?.seen(key, digest);
    this.#options.history?.named(key, digest, partsIn(named));
    // What was asked before a denial proves nothing after it.
    if (access.denials.since(asked, repositoryId(key))) return manifest;
    store.putManifest({ digest, body });
    this.#noteSizes(key, named);
    this.#learnt.set(contentId(key, digest), true);
    // What it names was learnt when it came first.
    if (access.hasGiven(entry, key, digest) && access.mediaType(key, digest) === mediaType) return manifest;
    access.gave(entry, key, digest, asked, mediaType);
    if (named.length > 0) access.said(entry, key, named, asked);
    this.#options.shared?.keepManifest(key, digest);
    return manifest;
  }
}

/** What is part of a manifest; what it is about was there before it, and may be anything. */
export function partsIn(named: readonly NamedContent[]): Digest[] {
  return named.filter(({ isSubject }) => isSubject !== true).map(({ digest }) => digest);
}
