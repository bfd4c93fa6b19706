import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCacheChild } from '../support/cache-child/run.ts';

const ROUNDS = 50;
let dataDir: string;
beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'gateway-crash-'));
});
afterAll(() => rm(dataDir, { recursive: true, force: true }));

describe('kill -9 in the middle of ten fills', () => {
  it(`${ROUNDS} times over: each start finds right bytes only, and goes on where the last one stopped`, async () => {
    const order = { dataDir, size: 1024 * 1024, chunk: 16 * 1024, pause: 1, past: false };
    let seed = 0;
    let takenUp = 0;
    let kept = 0;
    for (let round = 0; round < ROUNDS; round++) {
      // Every fifth round ends, so that whole blobs are there as well; its seeds are used up then.
      const kill = round % 5 !== 4;
      // Counted in chunks, not in time: four rounds bring about as many as five blobs have, on a machine of any speed.
      const killAt = 1 + ((round * 37) % 160);
      const seeds = Array.from({ length: 10 }, (_, index) => seed + index);
      const { lines, errors, code, signal } = await runCacheChild(
        { ...order, seeds },
        { onLine: (line, end) => void (kill && line.written === killAt && end()) },
      );
      const ready = lines.find((line) => line.ready);
      expect(ready, errors).toMatchObject({ dropped: [], removed: 0 });
      expect(lines.filter((line) => line.wrong !== undefined)).toEqual([]);
      const done = lines.find((line) => line.done !== undefined);
      if (!kill) {
        expect({ code, signal, right: done?.done }, errors).toEqual({ code: 0, signal: null, right: true });
        takenUp += done?.takenUp ?? 0;
        seed += 5;
        kept += ready?.whole ?? 0;
      }
    }
    // Fills were taken up, and whole blobs of earlier rounds were found: else nothing of this was put to the test.
    expect(takenUp).toBeGreaterThan(20);
    expect(kept).toBeGreaterThan(20);
  }, 300_000);
});
