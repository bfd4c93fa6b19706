import { createHash } from 'node:crypto';
import { type Extent, IntervalSet } from '../../src/kit/interval-set.ts';
import type { BlobSink, Wish, Wishes } from '../../src/oci/transfer.ts';

/** How far ahead of itself a reader wants its bytes. */
const AHEAD = 8 * 1024 * 1024;

interface Reader {
  readonly to: number;
  at: number;
  readonly done: () => void;
}

/**
 * A sink in memory that is read while it is filled: it wishes for what its readers need, theirs first who came first, and for the rest too
 * where `wantsAll` is set.
 */
export class ReadingSink implements BlobSink, Wishes {
  readonly bytes: Buffer;
  readonly present = new IntervalSet();
  readonly wishes: Wishes = this;
  wantsAll = false;
  get whole(): boolean {
    return this.wantsAll;
  }

  begun: number | undefined | null = null;
  /** What came, in order. */
  readonly writes: Extent[] = [];
  readonly #readers = new Set<Reader>();
  readonly #listeners = new Set<() => void>();

  constructor(size: number) {
    this.bytes = Buffer.alloc(size);
  }

  get held(): readonly Extent[] {
    return this.present.list();
  }

  /** Resolves when all of the range is here; the size of the blob ends it. */
  read(from: number, to: number = this.bytes.length): Promise<void> {
    return new Promise((resolve) => {
      const reader: Reader = { at: from, to: Math.min(to, this.bytes.length), done: resolve };
      this.#readers.add(reader);
      this.#advance(reader);
      this.changed();
    });
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  begin(size: number | undefined): void {
    this.begun = size;
  }

  async write(offset: number, chunk: Uint8Array): Promise<void> {
    const to = offset + chunk.length;
    if (this.present.overlaps(offset, to)) throw new RangeError(`${offset}-${to} came twice`);
    this.bytes.set(chunk, offset);
    this.present.add(offset, to);
    this.writes.push({ from: offset, to });
    for (const reader of [...this.#readers]) this.#advance(reader);
  }

  next(missing: IntervalSet): Wish | null {
    const extents = missing.list();
    let calm: Wish | null = null;
    for (const { at, to } of this.#readers) {
      const until = Math.min(to, at + AHEAD);
      const extent = extents.find((one) => one.from < until && one.to > at);
      if (extent === undefined) continue;
      const wish = { from: Math.max(at, extent.from), to: Math.min(until, extent.to) };
      if (wish.from === at) return { ...wish, urgent: true };
      calm ??= { ...wish, urgent: false };
    }
    const [first] = extents;
    return calm ?? (this.wantsAll && first !== undefined ? { ...first, urgent: false } : null);
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get digest(): string {
    return `sha256:${createHash('sha256').update(this.bytes).digest('hex')}`;
  }

  #advance(reader: Reader): void {
    reader.at = Math.min(reader.to, this.present.endFrom(reader.at));
    if (reader.at < reader.to) return;
    this.#readers.delete(reader);
    reader.done();
  }
}
