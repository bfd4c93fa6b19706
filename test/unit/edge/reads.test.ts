import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { FilePlace, FileSource } from '../../../src/cache/shared-read.ts';
import { type BodyChunk, BufferPool, Reads } from '../../../src/edge/reads.ts';
import { type ByteSource, TruncatedError } from '../../../src/kit/byte-source.ts';

const KIB = 1024;

/** Gives one byte a pull, each when it is told to. */
class Source implements ByteSource {
  readonly length = undefined;
  readonly pulled: (() => void)[] = [];
  readonly ready?: () => Promise<boolean>;

  constructor(ready?: () => Promise<boolean>) {
    if (ready !== undefined) this.ready = ready;
  }

  pull(): Promise<number> {
    return new Promise((resolve) => this.pulled.push(() => resolve(1)));
  }

  async close(): Promise<void> {}
}

/** A file whose byte at each position is that position's, and how often it was read. */
class File {
  readonly size: number;
  reads = 0;
  broken = false;
  /** What the next reads wait for. */
  gate: Promise<void> = Promise.resolve();
  readers = 0;

  constructor(size: number) {
    this.size = size;
  }

  reader(from = 0, to = this.size): FileReader {
    this.readers++;
    return new FileReader(this, from, to);
  }
}

class FileReader implements ByteSource {
  readonly length = undefined;
  readonly #file: File;
  readonly #to: number;
  #at: number;
  /** Its bytes come from elsewhere from now on. */
  past = false;
  closed = false;

  constructor(file: File, from: number, to: number) {
    this.#file = file;
    this.#at = from;
    this.#to = to;
  }

  async ready(): Promise<boolean> {
    return !this.closed && this.#at < this.#to;
  }

  place(): FilePlace | null {
    if (this.past || this.closed) return null;
    return { file: this.#file, position: this.#at, end: this.#to, shared: this.#file.readers > 1 };
  }

  pass(count: number): void {
    this.#at += count;
  }

  async pull(into: Uint8Array): Promise<number> {
    if (this.closed) throw new TruncatedError('closed');
    this.#file.reads++;
    await this.#file.gate;
    if (this.#file.broken) throw new TruncatedError('broken');
    const count = Math.min(into.length, this.#to - this.#at);
    for (let i = 0; i < count; i++) into[i] = (this.#at + i) % 251;
    this.#at += count;
    return count;
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

const instant: ByteSource = { length: undefined, pull: async () => 1, close: async () => {} };
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const newReads = (): Reads => new Reads(new BufferPool());

/** Reads to the end, a piece at a time, and checks every byte. */
async function readAll(reads: Reads, reader: FileReader, from = 0): Promise<number> {
  let at = from;
  for (;;) {
    const piece = await reads.next(reader);
    for (const byte of piece.bytes) {
      if (byte !== at % 251) throw new Error(`byte ${at} is wrong`);
      at++;
    }
    const { length } = piece.bytes;
    piece.release();
    if (length === 0) return at - from;
    await turn();
  }
}

describe('reads of bodies', () => {
  describe('with time that stands still', () => {
    beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
    afterEach(() => void vi.useRealTimers());

    it('reads two files at a time, in the order of asking', async () => {
      const reads = newReads();
      const source = new Source(async () => true);
      const pieces = Array.from({ length: 20 }, () => reads.next(source));
      await turn();
      expect(source.pulled).toHaveLength(2);
      source.pulled[0]?.();
      await turn();
      expect(source.pulled).toHaveLength(3);
      for (let done = 1; done < 20; done++) {
        source.pulled[done]?.();
        await turn();
      }
      expect(await Promise.all(pieces)).toHaveLength(20);
    });

    it('does not let a read that takes long hold up the others, and counts its turn once', async () => {
      const reads = newReads();
      const slow = new Source(async () => true);
      const quick = new Source(async () => true);
      const pieces = [slow, slow, quick, quick, quick].map((source) => reads.next(source));
      await turn();
      expect([slow.pulled.length, quick.pulled.length]).toEqual([2, 0]);
      await vi.advanceTimersByTimeAsync(15);
      await turn();
      expect(quick.pulled).toHaveLength(2);
      for (const done of slow.pulled) done();
      await turn();
      expect(quick.pulled).toHaveLength(2);
      quick.pulled[0]?.();
      await turn();
      expect(quick.pulled).toHaveLength(3);
      for (const done of quick.pulled) done();
      expect(await Promise.all(pieces)).toHaveLength(5);
    });
  });

  it('lets what may have to wait pass, and a read that fails frees its turn and its buffer', async () => {
    const reads = newReads();
    const waiting = new Source(async () => false);
    const unknown = new Source();
    for (let count = 0; count < 20; count++) void reads.next(count % 2 === 0 ? waiting : unknown);
    await turn();
    expect(waiting.pulled.length + unknown.pulled.length).toBe(20);

    const failing: FileSource = {
      length: undefined,
      ready: async () => true,
      pull: () => Promise.reject(new Error('broken')),
      close: async () => {},
    };
    for (let count = 0; count < 50; count++) await expect(reads.next(failing)).rejects.toThrow('broken');
  });

  it('takes no buffer while a source is not ready', async () => {
    const buffers = new BufferPool();
    const taken = vi.spyOn(buffers, 'take');
    const reads = new Reads(buffers);
    const never = new Source(() => new Promise(() => {}));
    for (let count = 0; count < 500; count++) void reads.next(never);
    await turn();
    expect(taken).not.toHaveBeenCalled();
    await reads.next(instant);
    expect(taken).toHaveBeenCalledOnce();
  });

  it('keeps no buffer once nobody has been sent anything for a while', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const reads = newReads();
      const file = new File(100);
      file.readers = 1;
      reads.join();
      reads.join();
      const [one, other] = [await reads.next(instant), await reads.next(file.reader())];
      const buffers = [one, other].map(({ bytes }) => bytes.buffer);
      one.release();
      reads.leave();
      await vi.advanceTimersByTimeAsync(5_000);
      other.release();
      reads.leave();
      await vi.advanceTimersByTimeAsync(500);
      const again = [await reads.next(instant), await reads.next(file.reader())];
      expect(again.map(({ bytes }) => buffers.includes(bytes.buffer))).toEqual([true, true]);
      for (const piece of again) piece.release();
      reads.join();
      reads.leave();
      await vi.advanceTimersByTimeAsync(1_500);
      const fresh = [await reads.next(instant), await reads.next(file.reader())];
      expect(fresh.map(({ bytes }) => buffers.includes(bytes.buffer))).toEqual([false, false]);
    } finally {
      vi.useRealTimers();
    }
  });

  it('lends the same buffer again, once it was released', async () => {
    const reads = newReads();
    const first = await reads.next(instant);
    const { buffer } = first.bytes;
    first.release();
    expect((await reads.next(instant)).bytes.buffer).toBe(buffer);
  });
});

describe('reads that several clients want', () => {
  it('happen once for all who come at once, who then stay together', async () => {
    const reads = newReads();
    const file = new File(3_000 * KIB + 7);
    const readers = Array.from({ length: 8 }, () => file.reader());
    const lengths = await Promise.all(readers.map((reader) => readAll(reads, reader)));
    expect(new Set(lengths)).toEqual(new Set([file.size]));
    expect(file.reads).toBeLessThanOrEqual(Math.ceil(file.size / (256 * KIB)) + 8);
  });

  it('wait for their turn once, too', async () => {
    const reads = newReads();
    const blocked = Array.from({ length: 2 }, () => new Source(async () => true));
    for (const source of blocked) void reads.next(source);
    await turn();
    const file = new File(100);
    const pieces = Array.from({ length: 5 }, () => file.reader()).map((reader) => reads.next(reader));
    await turn();
    for (const { pulled } of blocked) pulled[0]?.();
    expect((await Promise.all(pieces)).map(({ bytes }) => bytes.length)).toEqual([100, 100, 100, 100, 100]);
    expect(file.reads).toBe(1);
  });

  it('serve who comes a little later, and who begins elsewhere, each to its own end', async () => {
    const reads = newReads();
    const file = new File(1_000 * KIB);
    const [early, late] = [file.reader(), file.reader()];
    const part = file.reader(200 * KIB, 210 * KIB);
    expect(await readAll(reads, early)).toBe(file.size);
    const before = file.reads;
    expect(await readAll(reads, late)).toBe(file.size);
    expect(await readAll(reads, part, 200 * KIB)).toBe(10 * KIB);
    // Each looked for more at its end, and found none.
    expect(file.reads).toBe(before + 2);
  });

  it('never show bytes of one file to a reader of another, nor of a buffer that is used again', async () => {
    const reads = newReads();
    const files = Array.from({ length: 40 }, (_, i) => new File(600 * KIB + i));
    const readers = files.flatMap((file) => [file.reader(), file.reader(), file.reader(1_000)]);
    const all = readers.map((reader, i) => readAll(reads, reader, i % 3 === 2 ? 1_000 : 0));
    const lengths = await Promise.all(all);
    expect(lengths).toEqual(files.flatMap(({ size }) => [size, size, size - 1_000]));
  });

  it('keep a buffer for as long as anybody sends it', async () => {
    const reads = newReads();
    const file = new File(256 * KIB);
    const [quick, slow] = await Promise.all([file.reader(), file.reader()].map((reader) => reads.next(reader)));
    expect(quick?.bytes.buffer).toBe(slow?.bytes.buffer);
    quick?.release();
    const others: BodyChunk[] = [];
    for (let count = 0; count < 100; count++) {
      const other = new File(256 * KIB);
      for (const reader of [other.reader(), other.reader()]) others.push(await reads.next(reader));
    }
    expect(others.some(({ bytes }) => bytes.buffer === slow?.bytes.buffer)).toBe(false);
    expect(slow?.bytes.every((byte, i) => byte === i % 251)).toBe(true);
  });

  it('fail alone: who waited for a read that failed reads for itself', async () => {
    const reads = newReads();
    const file = new File(100);
    const gate = Promise.withResolvers<void>();
    file.gate = gate.promise;
    file.broken = true;
    const [first, second] = [reads.next(file.reader()), reads.next(file.reader())];
    const failed = expect(first).rejects.toThrow('broken');
    await turn();
    expect(file.reads).toBe(1);
    gate.resolve();
    await failed;
    await expect(second).rejects.toThrow('broken');
    expect(file.reads).toBe(2);
    file.broken = false;
    expect(await readAll(reads, file.reader())).toBe(100);
  });

  it('do not hand on what came past a damaged file', async () => {
    const reads = newReads();
    const file = new File(100);
    const gate = Promise.withResolvers<void>();
    file.gate = gate.promise;
    const [leaving, staying] = [file.reader(), file.reader()];
    const [first, second] = [reads.next(leaving), reads.next(staying)];
    await turn();
    leaving.past = true;
    gate.resolve();
    expect((await first).bytes.length).toBe(100);
    expect((await second).bytes.length).toBe(100);
    expect(file.reads).toBe(2);
  });

  it('say so to who was closed meanwhile', async () => {
    const reads = newReads();
    const file = new File(100);
    const gate = Promise.withResolvers<void>();
    file.gate = gate.promise;
    const leaving = file.reader();
    const [first, second] = [reads.next(file.reader()), reads.next(leaving)];
    await turn();
    await leaving.close();
    gate.resolve();
    expect((await first).bytes.length).toBe(100);
    await expect(second).rejects.toThrow('closed');
  });
});
