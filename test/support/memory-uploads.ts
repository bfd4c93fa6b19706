import type { UploadIndex, UploadRow } from '../../src/cache/index-port.ts';
import type { Digest } from '../../src/oci/names.ts';

/** The queue of uploads of the index in memory. */
export class MemoryUploads implements UploadIndex {
  readonly #rows = new Map<Digest, UploadRow>();

  add(row: UploadRow): void {
    if (!this.#rows.has(row.digest)) this.#rows.set(row.digest, row);
  }

  remove(digest: Digest): void {
    this.#rows.delete(digest);
  }

  postpone(digest: Digest): void {
    const row = this.#rows.get(digest);
    if (row === undefined) return;
    this.#rows.delete(digest);
    this.#rows.set(digest, row);
  }

  oldest(limit: number): UploadRow[] {
    return [...this.#rows.values()].slice(0, limit);
  }

  count(): number {
    return this.#rows.size;
  }
}
