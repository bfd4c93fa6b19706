import type { BlobTier } from '../../src/cache/blob-tier.ts';
import type { ByteSource } from '../../src/kit/byte-source.ts';
import type { Extent } from '../../src/kit/interval-set.ts';
import type { Digest } from '../../src/oci/names.ts';
import { sourceOf } from './byte-source.ts';
import { readAll } from './cache-rig.ts';

/** The cache's second level in memory. It notes what it was asked, and fails on demand. */
export class MemoryTier implements BlobTier {
  readonly blobs = new Map<Digest, Buffer>();
  readonly calls: string[] = [];
  /** Throws where the call of this kind is to fail. */
  fault: (call: 'stat' | 'open' | 'store') => void = () => {};

  async stat(digest: Digest): Promise<{ size: number } | null> {
    this.calls.push('stat');
    this.fault('stat');
    const bytes = this.blobs.get(digest);
    return bytes === undefined ? null : { size: bytes.length };
  }

  async open(digest: Digest, { from, to }: Extent): Promise<ByteSource> {
    this.calls.push(`open ${from}-${to}`);
    this.fault('open');
    return sourceOf(this.blobs.get(digest)?.subarray(from, to) ?? Buffer.alloc(0));
  }

  async store(digest: Digest, source: ByteSource, _signal: AbortSignal): Promise<void> {
    this.calls.push(`store ${source.length}`);
    this.fault('store');
    this.blobs.set(digest, await readAll(source));
  }
}
