import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BufferPool } from '../../../src/edge/buffers.ts';
import type { ByteSource } from '../../../src/kit/byte-source.ts';

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

const instant: ByteSource = { length: undefined, pull: async () => 1, close: async () => {} };
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('the pool of buffers', () => {
  it('lends the buffer that came back last', async () => {
    const pool = new BufferPool();
    const { buffer } = await pool.fill(instant);
    pool.give(buffer);
    expect((await pool.fill(instant)).buffer).toBe(buffer);
  });

  it('lends smaller ones the more are out, and large ones again when they came back', async () => {
    const pool = new BufferPool();
    const out: Buffer[] = [];
    for (let count = 0; count < 500; count++) out.push((await pool.fill(instant)).buffer);
    expect(out[0]?.length).toBe(256 * 1024);
    expect(out.at(-1)?.length).toBe(32 * 1024);
    const total = (buffers: readonly Buffer[]): number => buffers.reduce((sum, { length }) => sum + length, 0);
    expect(total(out.slice(0, 200))).toBeLessThanOrEqual(24 * 1024 * 1024);
    expect(total(out)).toBeLessThanOrEqual(33 * 1024 * 1024);
    for (const buffer of out) pool.give(buffer);
    expect((await pool.fill(instant)).buffer.length).toBe(256 * 1024);
  });

  describe('with time that stands still', () => {
    beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
    afterEach(() => void vi.useRealTimers());

    it('reads two files at a time, in the order of asking', async () => {
      const pool = new BufferPool();
      const source = new Source(async () => true);
      const fills = Array.from({ length: 20 }, () => pool.fill(source));
      await turn();
      expect(source.pulled).toHaveLength(2);
      source.pulled[0]?.();
      await turn();
      expect(source.pulled).toHaveLength(3);
      for (let done = 1; done < 20; done++) {
        source.pulled[done]?.();
        await turn();
      }
      expect(await Promise.all(fills)).toHaveLength(20);
    });

    it('does not let a read that takes long hold up the others, and counts its turn once', async () => {
      const pool = new BufferPool();
      const slow = new Source(async () => true);
      const quick = new Source(async () => true);
      const fills = [slow, slow, quick, quick, quick].map((source) => pool.fill(source));
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
      expect(await Promise.all(fills)).toHaveLength(5);
    });
  });

  it('lets what may have to wait pass, and a read that fails frees its turn and its buffer', async () => {
    const pool = new BufferPool();
    const waiting = new Source(async () => false);
    const unknown = new Source();
    for (let count = 0; count < 20; count++) void pool.fill(count % 2 === 0 ? waiting : unknown);
    await turn();
    expect(waiting.pulled.length + unknown.pulled.length).toBe(20);

    const failing: ByteSource = {
      length: undefined,
      ready: async () => true,
      pull: () => Promise.reject(new Error('broken')),
      close: async () => {},
    };
    for (let count = 0; count < 50; count++) await expect(pool.fill(failing)).rejects.toThrow('broken');
  });

  it('takes no buffer while a source is not ready', async () => {
    const pool = new BufferPool();
    const never = new Source(() => new Promise(() => {}));
    for (let count = 0; count < 500; count++) void pool.fill(never);
    await turn();
    expect((await pool.fill(instant)).buffer.length).toBe(256 * 1024);
  });
});
