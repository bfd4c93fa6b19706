import type { Digest, RepositoryKey } from '../oci/names.ts';
import { repositoryId } from '../oci/names.ts';
import type { CacheIndex, PinRow, TagRow } from './index-port.ts';

/** Content that a pin holds. */
export interface PinnedBlob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/** How much pins hold. */
export interface PinTotals {
  readonly pins: number;
  /** Of all that they hold, each blob once. */
  readonly bytes: number;
  /** Of those blobs, the bytes that are here. */
  readonly heldBytes: number;
}

/** Of `cache.maxSize`, so much may be pinned: without any room left, everything else would be fetched anew by each client. */
export const MOST_PINNED = 0.8;

/**
 * What operators have pinned on this machine: whole images, which stay when room is needed, and the digest that their tag had when they came, which may be given
 * however long the registry is away. What is pinned is decided by others (src/warm); this remembers it, so that it holds from the first moment of the next start.
 */
export class Pins {
  readonly #index: CacheIndex;
  readonly #failed: (error: unknown) => void;
  readonly #rows = new Map<string, PinRow>();
  readonly #manifests = new Map<Digest, number>();
  readonly #blobs = new Map<Digest, { readonly size: number; count: number; isHere: boolean }>();
  /** By `tagId`. */
  readonly #tags = new Map<string, PinRow>();
  readonly #movedListeners = new Set<(id: string) => void>();
  #bytes = 0;
  #heldBytes = 0;

  /** `failed` is called with every error of the index: what it could not take holds until the next start. */
  constructor(index: CacheIndex, failed: (error: unknown) => void) {
    this.#index = index;
    this.#failed = failed;
    this.#load();
    index.onLoss(() => this.#load());
  }

  get totals(): PinTotals {
    return { pins: this.#rows.size, bytes: this.#bytes, heldBytes: this.#heldBytes };
  }

  /** Whether a manifest or blob may not be dropped. */
  has(digest: Digest): boolean {
    return this.#blobs.has(digest) || this.#manifests.has(digest);
  }

  hasBlob(digest: Digest): boolean {
    return this.#blobs.has(digest);
  }

  /** Whether anything of this registry is pinned. */
  hasRegistry(registry: string): boolean {
    for (const row of this.#rows.values()) if (row.registry === registry) return true;
    return false;
  }

  of(id: string): PinRow | null {
    return this.#rows.get(id) ?? null;
  }

  ids(): string[] {
    return [...this.#rows.keys()];
  }

  /** What a pinned tag stood for when it was pinned. The index drops tags, and these stay. */
  tag(repository: RepositoryKey, tag: string, variant?: string): TagRow | null {
    if (this.#tags.size === 0) return null;
    const row = this.#tags.get(tagId(repository, tag));
    if (row === undefined || (variant !== undefined && row.variant !== variant)) return null;
    return { digest: row.root, checkedAt: row.checkedAt };
  }

  /** Bytes that all pins would hold if this one held these blobs besides what it holds now. */
  bytesWith(blobs: readonly PinnedBlob[]): number {
    const more = new Map(blobs.filter(({ digest }) => !this.#blobs.has(digest)).map((one) => [one.digest, one.size]));
    return this.#bytes + [...more.values()].reduce((sum, size) => sum + size, 0);
  }

  /** Pins this and nothing else under its id, in place of what was pinned under it. */
  hold(row: PinRow): void {
    this.#try(() => this.#index.pins.put(row));
    this.#forget(row.id);
    this.#remember(row);
  }

  release(id: string): void {
    this.#try(() => this.#index.pins.remove(id));
    this.#forget(id);
  }

  /** A blob is here, or is not any more. */
  isHere(digest: Digest, here: boolean): void {
    const blob = this.#blobs.get(digest);
    if (blob === undefined || blob.isHere === here) return;
    blob.isHere = here;
    this.#heldBytes += here ? blob.size : -blob.size;
  }

  /** A registry has said what a tag stands for: whoever pinned another image by that tag is told. */
  saw(repository: RepositoryKey, tag: string, variant: string, digest: Digest): void {
    if (this.#tags.size === 0) return;
    const row = this.#tags.get(tagId(repository, tag));
    if (row === undefined || row.variant !== variant || row.root === digest) return;
    for (const listener of this.#movedListeners) listener(row.id);
  }

  /** Calls with the id of a pin whose tag stands for another image now. The function returned ends that. */
  onMoved(listener: (id: string) => void): () => void {
    this.#movedListeners.add(listener);
    return () => this.#movedListeners.delete(listener);
  }

  #load(): void {
    for (const id of this.ids()) this.#forget(id);
    this.#try(() => {
      for (const row of this.#index.pins.all()) this.#remember(row);
    });
  }

  #remember(row: PinRow): void {
    this.#rows.set(row.id, row);
    if (row.tag !== null) this.#tags.set(tagId(row, row.tag), row);
    for (const digest of new Set(row.manifests)) this.#manifests.set(digest, (this.#manifests.get(digest) ?? 0) + 1);
    for (const { digest, size } of once(row.blobs)) {
      const known = this.#blobs.get(digest);
      if (known !== undefined) {
        known.count++;
        continue;
      }
      const isHere = this.#try(() => this.#index.blob(digest) !== null) ?? false;
      this.#blobs.set(digest, { size, count: 1, isHere });
      this.#bytes += size;
      if (isHere) this.#heldBytes += size;
    }
  }

  #forget(id: string): void {
    const row = this.#rows.get(id);
    if (row === undefined) return;
    this.#rows.delete(id);
    if (row.tag !== null && this.#tags.get(tagId(row, row.tag)) === row) this.#tags.delete(tagId(row, row.tag));
    for (const digest of new Set(row.manifests)) {
      const count = (this.#manifests.get(digest) ?? 0) - 1;
      if (count > 0) this.#manifests.set(digest, count);
      else this.#manifests.delete(digest);
    }
    for (const { digest } of once(row.blobs)) {
      const blob = this.#blobs.get(digest);
      if (blob === undefined || --blob.count > 0) continue;
      this.#blobs.delete(digest);
      this.#bytes -= blob.size;
      if (blob.isHere) this.#heldBytes -= blob.size;
    }
  }

  #try<T>(task: () => T): T | undefined {
    try {
      return task();
    } catch (error) {
      this.#failed(error);
      return undefined;
    }
  }
}

function once(blobs: readonly PinnedBlob[]): Iterable<PinnedBlob> {
  return new Map(blobs.map((blob) => [blob.digest, blob])).values();
}

function tagId(repository: RepositoryKey, tag: string): string {
  return `${repositoryId(repository)}:${tag}`;
}
