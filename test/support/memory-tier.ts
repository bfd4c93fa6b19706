import { type BlobTier, type ListedObject, MissingObject } from '../../src/cache/blob-tier.ts';
import type { ByteSource } from '../../src/kit/byte-source.ts';
import type { Extent } from '../../src/kit/interval-set.ts';
import { DEFAULT_CREDENTIAL } from '../../src/oci/credentials.ts';
import type { Digest } from '../../src/oci/names.ts';
import { sourceOf } from './byte-source.ts';
import { readAll } from './cache-rig.ts';
import { MemoryObjectIndex } from './memory-object-index.ts';

/** The cache's second level in memory. It notes what it was asked, and fails on demand. */
export class MemoryTier implements BlobTier {
  readonly blobs = new Map<Digest, Buffer>();
  readonly calls: string[] = [];
  readonly objects = new MemoryObjectIndex();
  /** Throws where the call of this kind is to fail. */
  fault: (call: 'stat' | 'open' | 'store') => void = () => {};

  /** As the cache takes it. */
  get parts(): { readonly tier: BlobTier; readonly objects: MemoryObjectIndex } {
    return { tier: this, objects: this.objects };
  }

  /** An object that another gateway stored, as this registry gave it. */
  async holds(
    digest: Digest,
    bytes: Buffer,
    registry = 'example.com',
    open = true,
    size = bytes.length,
  ): Promise<void> {
    this.blobs.set(digest, bytes);
    const repository = { registry, repository: 'another/one' };
    await this.objects.put({ digest, kind: 'blob', size }, [
      { repository, shown: open ? 'anyone' : DEFAULT_CREDENTIAL },
    ]);
  }

  async stat(digest: Digest): Promise<{ size: number } | null> {
    this.calls.push('stat');
    this.fault('stat');
    const bytes = this.blobs.get(digest);
    return bytes === undefined ? null : { size: bytes.length };
  }

  async open(digest: Digest, { from, to }: Extent): Promise<ByteSource> {
    this.calls.push(`open ${from}-${to}`);
    this.fault('open');
    const bytes = this.blobs.get(digest);
    if (bytes === undefined) throw new MissingObject(digest);
    return sourceOf(bytes.subarray(from, to));
  }

  async store(digest: Digest, source: ByteSource, signal: AbortSignal): Promise<void> {
    this.calls.push(`store ${source.length}`);
    this.fault('store');
    const bytes = await readAll(source);
    signal.throwIfAborted();
    this.blobs.set(digest, bytes);
  }

  async remove(digests: readonly Digest[]): Promise<void> {
    for (const digest of digests) this.blobs.delete(digest);
  }

  async list(after: Digest | null, limit: number): Promise<{ objects: ListedObject[]; last: boolean }> {
    const digests = [...this.blobs.keys()].toSorted().filter((digest) => after === null || digest > after);
    const objects = digests
      .slice(0, limit)
      .map((digest) => ({ digest, size: this.blobs.get(digest)?.length ?? 0, modified: Date.now() }));
    return { objects, last: digests.length <= limit };
  }

  async link(digest: Digest, seconds: number): Promise<string> {
    return `https://store.example/${digest}?expires=${seconds}`;
  }

  async clearLeftovers(): Promise<number> {
    return 0;
  }

  async check(): Promise<null> {
    return null;
  }

  close(): void {}
}
