import type { RepositoryKey } from '../oci/names.ts';
import type { CacheIndex, ListOwners, ListRow, ListState } from './index-port.ts';

export type { ListRow as KeptList } from './index-port.ts';

/**
 * Lists of tags and referrers, the last one that a registry gave to each question, as the proxy core keeps them. Every answer is synchronous.
 * Which client may be given a list is decided by the core, not here.
 */
export interface ListStore {
  /** Of a list that the repository gave since it was last denied; null where none is here. */
  state(repository: RepositoryKey, question: string): ListState | null;
  get(repository: RepositoryKey, question: string): ListRow | null;
  put(repository: RepositoryKey, question: string, list: ListRow, owners: ListOwners): void;
  drop(repository: RepositoryKey, question: string): void;
  dropAll(repository: RepositoryKey): void;
}

/** Bytes of lists in the index, where the cache is large. An image's referrers are a KiB, 1,000 tags some ten. */
const MOST_BYTES = 64 * 1024 * 1024;
/** Lists' share of a smaller cache: they count in `cache.maxSize`, and images need the rest. */
const SHARE = 0.02;
/** Where no blobs are kept at all, lists may take this. */
const BYTES_ALONE = 16 * 1024 * 1024;
/** The lists that one registry gave, and those that one client was the first to ask for, leave room for others'. */
const REGISTRY_SHARE = 1 / 2;
const CLIENT_SHARE = 1 / 4;

export interface ListStoreOptions {
  /** `cache.maxSize`, as it is now. */
  readonly maxSize: () => number;
  /** False where the index has not heard yet that a repository was denied. */
  readonly believes: (repository: RepositoryKey) => boolean;
  /** Called with every error of the index. */
  readonly failed: (error: unknown) => void;
}

/** The list store on the cache's index. Where the index fails, nothing is found and nothing is kept. */
export class IndexedListStore implements ListStore {
  readonly #index: CacheIndex['lists'];
  readonly #options: ListStoreOptions;

  constructor(index: CacheIndex, options: ListStoreOptions) {
    this.#index = index.lists;
    this.#options = options;
  }

  get #limits(): Parameters<CacheIndex['lists']['put']>[4] {
    const maxSize = this.#options.maxSize();
    const all = maxSize === 0 ? BYTES_ALONE : Math.min(MOST_BYTES, SHARE * maxSize);
    return { all, registry: all * REGISTRY_SHARE, client: all * CLIENT_SHARE };
  }

  state(repository: RepositoryKey, question: string): ListState | null {
    if (!this.#options.believes(repository)) return null;
    return this.#try(() => this.#index.state(repository, question), null);
  }

  get(repository: RepositoryKey, question: string): ListRow | null {
    if (!this.#options.believes(repository)) return null;
    return this.#try(() => this.#index.get(repository, question), null);
  }

  put(repository: RepositoryKey, question: string, list: ListRow, owners: ListOwners): void {
    // It would get the generation from before the denial.
    if (!this.#options.believes(repository)) return;
    this.#try(() => this.#index.put(repository, question, list, owners, this.#limits), undefined);
  }

  drop(repository: RepositoryKey, question: string): void {
    this.#try(() => this.#index.drop(repository, question), undefined);
  }

  dropAll(repository: RepositoryKey): void {
    this.#try(() => this.#index.dropAll(repository), undefined);
  }

  #try<T>(task: () => T, otherwise: T): T {
    try {
      return task();
    } catch (error) {
      this.#options.failed(error);
      return otherwise;
    }
  }
}
