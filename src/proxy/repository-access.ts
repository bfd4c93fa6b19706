import { LRUCache } from 'lru-cache';
import type { RegistryEntry, TableSnapshot } from '../aliases/table.ts';
import type { BlobCache } from '../cache/blob-cache.ts';
import { RegistryError } from '../oci/errors.ts';
import { type Digest, type RepositoryKey, repositoryId } from '../oci/names.ts';
import type { Pull } from './reply.ts';

/**
 * Repositories remembered as closed. One that many others push out is served from the cache again until its registry refuses it once more, at the
 * latest when a tag of it is revalidated.
 */
const CLOSED_KEPT = 10_000;
/** Repositories whose replies may be in manifest caches: more than one of 16 MiB has room for, with at least 1 KiB for each reply. */
const REUSED_KEPT = 20_000;

/** Answers of an upstream that close what it opened before. A missing image is no such answer: it only ends its own tag. */
const DENIALS: ReadonlySet<string> = new Set(['unauthorized', 'upstreamUnauthorized', 'upstreamDenied']);

/**
 * Failures that say nothing about the image, so that a kept answer may stand in: network, 408, 429, 5xx, and an answer that is no
 * registry's at all (a portal or a proxy's page in between); or the gateway itself was too busy to ask.
 */
const TRANSIENT: ReadonlySet<string> = new Set([
  'upstreamFailed',
  'upstreamTimeout',
  'upstreamRateLimited',
  'upstreamWrong',
  'credentialsWithheld',
  'unavailable',
  'gatewayBusy',
]);

/**
 * Which client may be given what. Three rules: content that the operator's credentials open goes to authenticated clients only; kept content
 * goes to a repository only if that repository is known to hold it; a repository that its registry has closed to this gateway must be
 * opened by the registry again before anything kept of it is served.
 */
export class RepositoryAccess {
  readonly #table: () => TableSnapshot;
  readonly #links: Pick<BlobCache, 'accessOf' | 'link'> | null;
  readonly #closed = new LRUCache<string, true>({ max: CLOSED_KEPT });
  readonly #reused = new LRUCache<string, true>({ max: REUSED_KEPT });
  #generation = 0;

  /** `links`: which repository holds what; null where nothing is kept. */
  constructor(table: () => TableSnapshot, links: Pick<BlobCache, 'accessOf' | 'link'> | null) {
    this.#table = table;
    this.#links = links;
  }

  /** Grows with each change after which no reply that was given before may be given again. */
  get generation(): number {
    return this.#generation;
  }

  invalidate(): void {
    this.#generation++;
    this.#reused.clear();
  }

  /** A reply of this repository may be given again without being asked for here: see {@link failed}. */
  reused(key: RepositoryKey): void {
    this.#reused.set(repositoryId(key), true);
  }

  /**
   * Whether a client may use a registry at all. Called before anything of it is looked up, so that a refusal does not depend on what exists.
   * Manifest caches give replies again without calling it: it may decide only by the target, by `authenticated` and by the table, whose change
   * calls `invalidate`. What else a refusal depends on (the client's address, the time) belongs in src/access/access.ts, which every request asks.
   * @throws {RegistryError} registryUnknown, privateContent
   */
  admit(pull: Pull): RegistryEntry {
    const { registry, repository } = pull.target;
    const entry = this.#table().registries.get(registry);
    if (entry === undefined) throw new RegistryError('registryUnknown', { facts: { registry } });
    if (entry.credentials !== null && !entry.public && !pull.authenticated) {
      throw new RegistryError('privateContent', { facts: { registry, repository } });
    }
    return entry;
  }

  /** Whether kept content may be given through this repository without asking its registry. */
  mayServe(entry: RegistryEntry, key: RepositoryKey, digest: Digest): boolean {
    if (this.#links === null || this.#isClosed(key)) return false;
    const access = this.#links.accessOf(key, digest);
    // What only credentials opened must be opened without them first, once the registry's row has none any more.
    return access === 'public' || (access === 'private' && entry.credentials !== null);
  }

  /**
   * Whether this repository is known to hold the content: it *said* or *gave* it. Enough to be given what its own registry is just bringing
   * (a growing file is one registry's); kept content asks {@link mayServe}.
   */
  knows(entry: RegistryEntry, key: RepositoryKey, digest: Digest): boolean {
    return this.mayServe(entry, key, digest);
  }

  /** This repository *said* that it holds these: a manifest that it gave names them, or its HEAD claims it. */
  said(entry: RegistryEntry, key: RepositoryKey, digests: readonly Digest[]): void {
    this.#closed.delete(repositoryId(key));
    this.#links?.link(key, digests, { private: entry.credentials !== null });
  }

  /** This repository *gave* it: a GET there brought the bytes, and their digest was right. */
  gave(entry: RegistryEntry, key: RepositoryKey, digest: Digest): void {
    this.said(entry, key, [digest]);
  }

  /**
   * Draws the conclusion from an upstream's failure: a denial closes the repository. Replies that were given before end with it, but only a
   * repository that has such replies raises the generation: clients must not be able to empty every cache by asking for what is denied.
   */
  failed(key: RepositoryKey, error: unknown): void {
    if (!isDenial(error)) return;
    const id = repositoryId(key);
    this.#closed.set(id, true);
    if (this.#reused.has(id)) this.invalidate();
  }

  #isClosed(key: RepositoryKey): boolean {
    return this.#closed.size > 0 && this.#closed.has(repositoryId(key));
  }
}

export function isDenial(error: unknown): boolean {
  return error instanceof RegistryError && DENIALS.has(error.kind);
}

export function isTransient(error: unknown): boolean {
  return error instanceof RegistryError && TRANSIENT.has(error.kind);
}

export function isMissing(error: unknown): error is RegistryError {
  return error instanceof RegistryError && error.status === 404;
}

/** Long enough for the burst of nodes that all want the same missing image, short enough for the person who then pushes it. */
export const NEGATIVE_TTL = 5_000;
const NEGATIVE_KEPT = 4096;

/** What an upstream did not have a moment ago. Only 404 is remembered: 401, 403 and 429 may change with the next request. */
export class NegativeCache {
  readonly #now: () => number;
  readonly #entries = new LRUCache<string, { readonly error: RegistryError; readonly until: number }>({
    max: NEGATIVE_KEPT,
  });

  constructor(now: () => number) {
    this.#now = now;
  }

  /** @throws the upstream's error, where it is remembered for this key */
  check(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    if (entry.until > this.#now()) throw entry.error;
    this.#entries.delete(key);
  }

  note(key: string, error: unknown): void {
    if (isMissing(error)) this.#entries.set(key, { error, until: this.#now() + NEGATIVE_TTL });
  }

  clear(): void {
    this.#entries.clear();
  }
}
