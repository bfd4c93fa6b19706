import { createHash } from 'node:crypto';
import type { Extent } from '../../src/kit/interval-set.ts';
import type { BlobSink } from '../../src/oci/transfer.ts';
import type { Content } from './fake-registry/index.ts';

/** A sink that keeps bytes in memory, refuses what comes twice, and records in which order offsets came. */
export class MemorySink implements BlobSink {
  readonly held: readonly Extent[];
  readonly writes: Extent[] = [];
  expectedSize: number | undefined;
  begun: number | undefined | null = null;
  #bytes = Buffer.alloc(0);
  readonly #extents: Extent[];

  constructor(held: readonly Extent[] = [], content?: Content) {
    this.held = held;
    this.#extents = [...held];
    for (const { from, to } of held) this.#put(from, content?.read(from, to) ?? Buffer.alloc(to - from));
  }

  begin(size: number | undefined): void {
    if (this.begun !== null && this.begun !== size) throw new Error(`begun twice: ${this.begun}, ${size}`);
    this.begun = size;
  }

  async write(offset: number, chunk: Uint8Array): Promise<void> {
    if (this.begun === null) throw new Error('written before begin');
    const to = offset + chunk.length;
    const twice = this.#extents.find((extent) => extent.from < to && offset < extent.to);
    if (twice !== undefined) throw new RangeError(`${offset}-${to} overlaps ${twice.from}-${twice.to}`);
    this.#extents.push({ from: offset, to });
    this.writes.push({ from: offset, to });
    this.#put(offset, chunk);
  }

  get written(): number {
    return this.writes.reduce((sum, { from, to }) => sum + to - from, 0);
  }

  get digest(): string {
    return `sha256:${createHash('sha256').update(this.bytes).digest('hex')}`;
  }

  #put(offset: number, chunk: Uint8Array): void {
    const end = offset + chunk.length;
    if (end > this.#bytes.length)
      this.#bytes = Buffer.concat([this.#bytes, Buffer.alloc(Math.max(end - this.#bytes.length, 1 << 20))]);
    this.#bytes.set(chunk, offset);
    this.#end = Math.max(this.#end, end);
  }

  #end = 0;

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#end);
  }
}
