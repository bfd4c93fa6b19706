import type { RegistryEntry } from '../aliases/table.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import type { AcceptClass } from '../oci/media-types.ts';
import type { Reference, RepositoryKey } from '../oci/target.ts';
import { DigestedManifests } from './digested.ts';
import { type FetchingOptions, type Found, ManifestFetching, type Method } from './fetching.ts';
import type { HotAnswers } from './hot.ts';
import { KeptTags } from './kept-tags.ts';
import { TaggedManifests, type TaggedOptions } from './tagged.ts';

export interface ManifestsOptions extends FetchingOptions, Pick<TaggedOptions, 'config' | 'log' | 'now'> {
  readonly hot: HotAnswers;
}

/** Manifests by tag and by digest: kept, revalidated, fetched once for all who ask at the same time. */
export class Manifests {
  readonly #store: ManifestStore;
  readonly #hot: HotAnswers;
  readonly #tagged: TaggedManifests;
  readonly #digested: DigestedManifests;
  /** Of the store, when what is ready was last known to be in it. */
  #generation: number;

  constructor(options: ManifestsOptions) {
    const { store, access, hot, config, now } = options;
    const fetching = new ManifestFetching(options);
    const kept = new KeptTags(store, access, hot, config.tagTtl, now);
    this.#store = store;
    this.#hot = hot;
    this.#generation = store.generation;
    this.#tagged = new TaggedManifests({ ...options, fetching, kept });
    this.#digested = new DigestedManifests({ fetching, store, access, hot, now });
  }

  /**
   * What the reference stands for, for a client of this class. For GET the answer has a body.
   * @throws {RegistryError} the upstream's, where nothing that is kept may stand in
   */
  find(
    entry: RegistryEntry,
    key: RepositoryKey,
    reference: Reference,
    client: AcceptClass,
    method: Method,
  ): Promise<Found> | Found {
    const { generation } = this.#store;
    if (generation !== this.#generation) {
      this.#generation = generation;
      this.#hot.clear();
    }
    return reference.kind === 'tag'
      ? this.#tagged.find(entry, key, reference.tag, client, method)
      : this.#digested.find(entry, key, reference.digest, client, method);
  }

  clear(): void {
    this.#tagged.clear();
    this.#digested.clear();
  }
}
