import { LRUCache } from 'lru-cache';
import { contentId, type Digest, type RepositoryKey } from '../oci/names.ts';

/** Layers of about a thousand images, some 250 bytes each. */
const SIZES_KEPT = 10_000;

/**
 * Sizes of blobs as a repository's own manifests give them, for a HEAD that needs no upstream (public.ecr.aws answers 401 to every one).
 * Kept by repository, so that nothing of one repository shows through another.
 */
export class BlobSizes {
  readonly #sizes = new LRUCache<string, number>({ max: SIZES_KEPT });

  get(key: RepositoryKey, digest: Digest): number | undefined {
    return this.#sizes.get(contentId(key, digest));
  }

  set(key: RepositoryKey, digest: Digest, size: number): void {
    this.#sizes.set(contentId(key, digest), size);
  }
}
