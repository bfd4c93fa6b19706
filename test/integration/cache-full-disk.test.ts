import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCacheChild } from '../support/cache-child/run.ts';

/** In a mount namespace of its own, so that the file system goes with the process. */
const onTmpfs = (dataDir: string, options: string): string[] => {
  const script = 'mount -t tmpfs -o "$2" none "$1" && shift 2 && exec "$@"';
  return ['unshare', '--mount', 'sh', '-c', script, 'sh', dataDir, options];
};
const canMount = spawnSync('unshare', ['--mount', 'true']).status === 0;

const ORDER = { chunk: 16 * 1024, pause: 0, past: true };

let dataDir: string;
beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'gateway-full-'));
});
afterEach(() => rm(dataDir, { recursive: true, force: true }));

describe('a disk that fills up', () => {
  it.skipIf(!canMount)('in the middle of fills: every reader gets every byte, and it is said once', async () => {
    const order = { ...ORDER, dataDir, seeds: [1, 2, 3, 4], size: 2 * 1024 * 1024, blind: true };
    const { lines, errors, code } = await runCacheChild(order, { wrap: onTmpfs(dataDir, 'size=5m') });
    const done = lines.find((line) => line.done !== undefined);
    expect({ code, done: done?.done, accepts: done?.accepts }, errors).toEqual({ code: 0, done: true, accepts: false });
    expect(done?.metrics).toMatch(/gateway_cache_write_errors_total\{code="ENOSPC"\} [1-9]/);
  });

  it.skipIf(!canMount)('known beforehand: what has room is kept, the rest goes past', async () => {
    const order = { ...ORDER, dataDir, seeds: [1, 2, 3, 4], size: 2 * 1024 * 1024 };
    const { lines, errors, code } = await runCacheChild(order, { wrap: onTmpfs(dataDir, 'size=5m') });
    const done = lines.find((line) => line.done !== undefined);
    expect({ code, done: done?.done }, errors).toEqual({ code: 0, done: true });
    expect(done?.metrics).toMatch(/gateway_cache_write_errors_total\{code="min-free"\} [1-9]/);
    expect(done?.metrics).toMatch(/gateway_cache_fills_total\{outcome="complete"\} [12]/);
  });

  it.skipIf(!canMount)(
    'by others, to the last byte: what is kept makes room for what is pulled, and nothing fails',
    async () => {
      const seeds = (from: number) => Array.from({ length: 20 }, (_, place) => from + place);
      const order = {
        ...ORDER,
        dataDir,
        past: false,
        size: 120_000,
        keptBefore: seeds(1),
        seeds: seeds(101),
        inTurn: true,
      };
      const { lines, errors, code } = await runCacheChild(order, { wrap: onTmpfs(dataDir, 'size=6m') });
      const done = lines.find((line) => line.done !== undefined);
      expect({ code, done: done?.done, accepts: done?.accepts }, errors).toEqual({
        code: 0,
        done: true,
        accepts: true,
      });
      expect(done?.metrics).not.toMatch(/gateway_cache_write_errors_total\{/);
      expect(done?.metrics).toContain('gateway_cache_fills_total{outcome="complete"} 40');
      expect(done?.kept).toBeGreaterThan(10);
    },
  );

  it.skipIf(!canMount)('of its inodes: files are room as bytes are', async () => {
    const seeds = Array.from({ length: 50 }, (_, place) => place);
    const order = { ...ORDER, dataDir, past: false, size: 10_000, seeds, inTurn: true };
    const { lines, errors, code } = await runCacheChild(order, { wrap: onTmpfs(dataDir, 'size=50m,nr_inodes=110') });
    const done = lines.find((line) => line.done !== undefined);
    expect({ code, done: done?.done, accepts: done?.accepts }, errors).toEqual({ code: 0, done: true, accepts: true });
    expect(done?.metrics).not.toMatch(/gateway_cache_write_errors_total\{/);
    expect(done?.metrics).toContain('gateway_cache_fills_total{outcome="complete"} 50');
    expect(done?.kept).toBeGreaterThan(10);
    expect(done?.kept).toBeLessThan(50);
  });

  it.skipIf(!canMount)('so small that not even the index fits: pulls go on all the same', async () => {
    const order = { ...ORDER, dataDir, seeds: [1, 2], size: 1024 * 1024 };
    const { lines, errors, code } = await runCacheChild(order, { wrap: onTmpfs(dataDir, 'size=400k') });
    expect({ code, done: lines.find((line) => line.done !== undefined)?.done }, errors).toEqual({
      code: 0,
      done: true,
    });
  });
});
