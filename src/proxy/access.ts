import type { RegistryEntry, TableSnapshot } from '../aliases/table.ts';
import type { BlobCache } from '../cache/blob-cache.ts';
import type { Digest } from '../oci/digest.ts';
import { RegistryError } from '../oci/errors.ts';
import type { RepositoryKey } from '../oci/target.ts';
import { Lru } from './lru.ts';
import type { Pull } from './reply.ts';

/** Repositories remembered as closed; more than an attacker's guesses push out is asked again at the next tag. */
const CLOSED_KEPT = 10_000;

/** Answers of an upstream that close what it opened before. A missing image is no such answer: it only ends its own tag. */
const DENIALS: ReadonlySet<string> = new Set(['unauthorized', 'upstreamUnauthorized', 'upstreamDenied']);

/**
 * Failures that say nothing about the image, so that a kept answer may stand in: network, 408, 429, 5xx, and an answer that is no
 * registry's at all (a portal or a proxy's page in between).
 */
const PASSING: ReadonlySet<string> = new Set([
  'upstreamFailed',
  'upstreamTimeout',
  'upstreamRateLimited',
  'upstreamWrong',
  'unavailable',
]);

/**
 * Who may have what. Three rules: content that the operator's credentials open goes to authenticated clients only; kept content goes to
 * a repository only if that repository is known to hold it; a repository that its registry has closed to this gateway proves itself anew.
 */
export class Access {
  readonly #table: () => TableSnapshot;
  readonly #blobs: BlobCache | null;
  readonly #closed = new Lru<true>(CLOSED_KEPT);

  constructor(table: () => TableSnapshot, blobs: BlobCache | null) {
    this.#table = table;
    this.#blobs = blobs;
  }

  /**
   * Lets a client in to a registry at all, before anything of it is looked up, so that nothing is told about what exists.
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

  /** Whether kept content may be served through this repository without asking its registry. */
  holds(entry: RegistryEntry, key: RepositoryKey, digest: Digest): boolean {
    if (this.#blobs === null || this.isClosed(key)) return false;
    const access = this.#blobs.accessOf(key, digest);
    // What only credentials opened that the row no longer has must be opened without them first.
    return access === 'public' || (access === 'private' && entry.credentials !== null);
  }

  /** The registry has just shown that this repository holds these. */
  proved(entry: RegistryEntry, key: RepositoryKey, digests: readonly Digest[]): void {
    this.#closed.delete(name(key));
    this.#blobs?.link(key, digests, { private: entry.credentials !== null });
  }

  /** Draws the conclusion from an upstream's failure. */
  failed(key: RepositoryKey, error: unknown): void {
    if (isDenial(error)) this.#closed.set(name(key), true);
  }

  isClosed(key: RepositoryKey): boolean {
    return this.#closed.size > 0 && this.#closed.get(name(key)) !== undefined;
  }
}

export function isDenial(error: unknown): boolean {
  return error instanceof RegistryError && DENIALS.has(error.kind);
}

export function isPassing(error: unknown): boolean {
  return error instanceof RegistryError && PASSING.has(error.kind);
}

export function isMissing(error: unknown): error is RegistryError {
  return error instanceof RegistryError && error.status === 404;
}

function name(key: RepositoryKey): string {
  return `${key.registry}/${key.repository}`;
}
