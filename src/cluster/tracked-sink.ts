import { type Extent, IntervalSet } from '../kit/interval-set.ts';
import type { BlobSink, RunningTransfer, TransferSource, Wishes } from '../oci/transfer.ts';

/** A sink that several sources write to one after the other, each of which is told what those before it brought. */
export class TrackedSink implements BlobSink {
  readonly wishes?: Wishes;
  readonly expectedSize: number | undefined;
  /** The sink's own failure, which is no source's. */
  failure: { readonly error: unknown } | null = null;
  /** As soon as a source has told it. */
  size: number | undefined;
  readonly #inner: BlobSink;
  readonly #present: IntervalSet;

  constructor(inner: BlobSink) {
    this.#inner = inner;
    this.#present = new IntervalSet(inner.held);
    if (inner.wishes !== undefined) this.wishes = inner.wishes;
    this.expectedSize = inner.expectedSize;
  }

  get held(): readonly Extent[] {
    return this.#present.list();
  }

  get bytes(): number {
    return this.#present.bytes;
  }

  /** What is neither held nor beyond the end. */
  missing(): IntervalSet {
    return IntervalSet.complement(this.held, this.size);
  }

  begin(size: number | undefined): void {
    this.#guard(() => this.#inner.begin(size));
    this.size ??= size;
  }

  async write(offset: number, chunk: Uint8Array): Promise<void> {
    this.#present.add(offset, offset + chunk.length);
    try {
      await this.#inner.write(offset, chunk);
    } catch (error) {
      this.failure ??= { error };
      throw error;
    }
  }

  watch(transfer: RunningTransfer | null): void {
    this.#inner.watch?.(transfer);
  }

  from(source: TransferSource | null): void {
    this.#inner.from?.(source);
  }

  #guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.failure ??= { error };
      throw error;
    }
  }
}
