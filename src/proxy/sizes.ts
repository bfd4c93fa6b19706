import type { Digest } from '../oci/digest.ts';
import type { RepositoryKey } from '../oci/target.ts';
import { Lru } from './lru.ts';

/** Layers of about a thousand images, some 250 bytes each. */
const SIZES_KEPT = 10_000;

/**
 * Sizes of blobs as a repository's own manifests give them, for a HEAD that needs no upstream (public.ecr.aws answers 401 to every one).
 * Kept by repository: what one says of a digest is not told through another.
 */
export class Sizes {
  readonly #sizes = new Lru<number>(SIZES_KEPT);

  get(key: RepositoryKey, digest: Digest): number | undefined {
    return this.#sizes.get(nameOf(key, digest));
  }

  set(key: RepositoryKey, digest: Digest, size: number): void {
    this.#sizes.set(nameOf(key, digest), size);
  }
}

function nameOf(key: RepositoryKey, digest: Digest): string {
  return `${key.registry}/${key.repository}@${digest}`;
}
