import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { type ByteSource, TruncatedError } from '../../../src/kit/byte-source.ts';
import type { Digest } from '../../../src/oci/names.ts';
import { VerifiedSource } from '../../../src/oci/transfer.ts';
import { SkippingSource } from '../../../src/proxy/passthrough.ts';
import { multipart, WithCleanup } from '../../../src/proxy/ranges.ts';
import { readAll, readUntilEnd } from '../../support/cache-rig.ts';

/** Gives a buffer away in steps, then ends or breaks off; knows whether it was closed. */
class BufferSource implements ByteSource {
  readonly #bytes: Uint8Array;
  readonly #step: number;
  readonly #breaks: boolean;
  #at = 0;
  closed = 0;

  constructor(bytes: Uint8Array, step = 1000, breaks = false) {
    this.#bytes = bytes;
    this.#step = step;
    this.#breaks = breaks;
  }

  get length(): number {
    return this.#bytes.length;
  }

  async pull(into: Uint8Array): Promise<number> {
    const chunk = this.#bytes.subarray(this.#at, this.#at + Math.min(this.#step, into.length));
    if (chunk.length === 0 && this.#breaks) throw new TruncatedError('broke off');
    into.set(chunk);
    this.#at += chunk.length;
    return chunk.length;
  }

  async close(): Promise<void> {
    this.closed++;
  }
}

const bytesOf = (size: number) => Buffer.from(Array.from({ length: size }, (_, at) => (at * 31) % 251));
const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;

describe('a verified source', () => {
  it.each([0, 1, 999, 1000, 1001, 65_536, 200_003])('passes on %i right bytes, whatever the steps', async (size) => {
    const bytes = bytesOf(size);
    for (const [inner, outer] of [
      [1000, 4096],
      [100_000, 10],
      [7, 65_536],
    ] as const) {
      if (size > 70_000 && outer === 10) continue;
      const source = new VerifiedSource(new BufferSource(bytes, inner), digestOf(bytes));
      expect(source.length).toBe(size);
      expect(Buffer.compare(await readAll(source, outer), bytes)).toBe(0);
    }
  });
  it('never hands out the whole of a wrong body', async () => {
    const bytes = bytesOf(200_000);
    for (const wrong of [0, 100_000, 199_999]) {
      const changed = Buffer.from(bytes);
      changed[wrong] = (changed[wrong] ?? 0) ^ 1;
      const { bytes: got, error } = await readUntilEnd(new VerifiedSource(new BufferSource(changed), digestOf(bytes)));
      expect(error).toBeInstanceOf(TruncatedError);
      expect(got.length).toBeLessThan(bytes.length);
    }
  });
  it('passes a break on, and closes what it reads from', async () => {
    const inner = new BufferSource(bytesOf(5000), 1000, true);
    const { bytes, error } = await readUntilEnd(new VerifiedSource(inner, digestOf(bytesOf(5000))));
    expect([error instanceof TruncatedError, bytes.length < 5000, inner.closed]).toEqual([true, true, 1]);
  });
});

describe('a multipart body', () => {
  const bytes = bytesOf(1000);
  const extents = [
    { from: 0, to: 10 },
    { from: 500, to: 1000 },
    { from: 7, to: 8 },
  ];

  it.each([1, 7, 64, 4096])('has the length and the parts that it says, read in steps of %i', async (step) => {
    const opened: BufferSource[] = [];
    const { source, contentType } = multipart(extents, 1000, ({ from, to }) => {
      opened.push(new BufferSource(bytes.subarray(from, to), 33));
      return opened.at(-1) as BufferSource;
    });
    const body = await readAll(source, step);
    expect(body.length).toBe(source.length);
    expect(opened.map(({ closed }) => closed)).toEqual([1, 1, 1]);
    const boundary = contentType.slice('multipart/byteranges; boundary='.length);
    const parts = body.toString('latin1').split(`\r\n--${boundary}`).slice(1, -1);
    expect(parts.map((text) => Buffer.from(text.slice(text.indexOf('\r\n\r\n') + 4), 'latin1'))).toEqual(
      extents.map(({ from, to }) => bytes.subarray(from, to)),
    );
  });
  it('breaks off where a part does', async () => {
    const { source } = multipart(extents, 1000, ({ from, to }) => new BufferSource(bytes.subarray(from, to - 1)));
    const { error } = await readUntilEnd(source);
    expect(error).toBeInstanceOf(TruncatedError);
  });
  it.each([
    ['all at once where they are tiny', 10, 1024],
    ['some at a time where they are large', 1024 * 1024, 16],
  ])('has its parts opened %s', async (_, length, count) => {
    const extents = Array.from({ length: 1024 }, (_each, at) => ({ from: 2 * at * length, to: (2 * at + 1) * length }));
    let opened = 0;
    const { source } = multipart(extents, 2048 * length, () => {
      opened++;
      return new BufferSource(new Uint8Array(1));
    });
    const into = new Uint8Array(1000);
    while (opened === 0) await source.pull(into);
    expect(opened).toBe(count);
    await source.close();
  });

  it('closes the part that is open', async () => {
    const part = new BufferSource(bytes.subarray(0, 10));
    const { source } = multipart([{ from: 0, to: 10 }], 1000, () => part);
    const into = Buffer.alloc(64 * 1024);
    await source.pull(into);
    await source.pull(into.subarray(0, 1));
    await source.close();
    expect(part.closed).toBe(1);
    await expect(source.pull(into)).rejects.toThrow(TruncatedError);
  });
});

describe('small sources', () => {
  it('skip what was not asked for', async () => {
    const source = new SkippingSource(new BufferSource(bytesOf(5000)), 3210);
    expect(source.length).toBe(1790);
    expect(await readAll(source, 100)).toEqual(bytesOf(5000).subarray(3210));
    const short = await readUntilEnd(new SkippingSource(new BufferSource(bytesOf(100)), 200));
    expect(short.error).toBeInstanceOf(TruncatedError);
  });
  it('clean up once', async () => {
    let cleaned = 0;
    const source = new WithCleanup(new BufferSource(bytesOf(10)), () => cleaned++);
    await source.close();
    await source.close();
    expect(cleaned).toBe(1);
  });
});
