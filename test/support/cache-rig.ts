import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Cache, type CacheOptions, createCache } from '../../src/cache/cache.ts';
import type { ByteSource } from '../../src/kit/byte-source.ts';
import { type BlobKey, type Digest, parseDigest } from '../../src/oci/names.ts';
import type { BlobSink } from '../../src/oci/transfer.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { MemoryCacheIndex } from './memory-cache-index.ts';

export const MIB = 1024 * 1024;

export interface Rig {
  readonly dataDir: string;
  readonly cache: Cache;
  readonly index: MemoryCacheIndex;
  readonly metrics: Metrics;
}

export interface RigOptions extends Partial<Omit<CacheOptions, 'config'>> {
  maxSize?: number;
  minFree?: number;
  scrub?: number | null;
}

/** A cache on a directory of its own, with small thresholds. */
export async function makeRig(options: RigOptions = {}): Promise<Rig> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'gateway-cache-')));
  const index = (options.index as MemoryCacheIndex | undefined) ?? new MemoryCacheIndex();
  const metrics = new Metrics();
  const cache = createCache({
    log: silentLog(),
    maintain: false,
    limits: { tail: 1024, recordBytes: 16 * 1024, recordInterval: 10_000 },
    ...options,
    dataDir,
    index,
    metrics,
    config: { maxSize: options.maxSize ?? 64 * MIB, minFree: options.minFree ?? 0, scrub: options.scrub ?? null },
  });
  return { dataDir, cache, index, metrics };
}

export async function endRig(rig: Rig): Promise<void> {
  await rig.cache.close();
  await rm(rig.dataDir, { recursive: true, force: true });
}

export interface Content {
  readonly bytes: Buffer;
  readonly digest: Digest;
  readonly key: BlobKey;
}

export function makeContent(size: number, algorithm: 'sha256' | 'sha512' = 'sha256'): Content {
  return contentOf(randomBytes(size), algorithm);
}

export function contentOf(bytes: Buffer, algorithm: 'sha256' | 'sha512' = 'sha256'): Content {
  const digest = parseDigest(`${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`);
  if (digest === null) throw new Error('no digest');
  return { bytes, digest, key: { registry: 'docker.io', repository: 'library/app', digest } };
}

/** Reads to the end, in small steps; what the source throws is thrown. */
export async function readAll(source: ByteSource, step = 4096): Promise<Buffer> {
  const buffer = Buffer.alloc(step);
  const parts: Buffer[] = [];
  try {
    for (let count = await source.pull(buffer); count > 0; count = await source.pull(buffer)) {
      parts.push(Buffer.from(buffer.subarray(0, count)));
    }
    return Buffer.concat(parts);
  } finally {
    await source.close();
  }
}

/** Reads until the end or the failure; tells both. */
export async function readUntilEnd(source: ByteSource): Promise<{ bytes: Buffer; error: Error | null }> {
  const buffer = Buffer.alloc(4096);
  const parts: Buffer[] = [];
  let error: Error | null = null;
  try {
    for (let count = await source.pull(buffer); count > 0; count = await source.pull(buffer)) {
      parts.push(Buffer.from(buffer.subarray(0, count)));
    }
  } catch (cause) {
    error = cause as Error;
  }
  await source.close();
  return { bytes: Buffer.concat(parts), error };
}

/** A fetch that brings what the sink lacks, in order. */
export function fetchOf(bytes: Buffer, options: { chunk?: number; size?: number | undefined } = {}) {
  const chunk = options.chunk ?? 10_000;
  const size = 'size' in options ? options.size : bytes.length;
  return async (sink: BlobSink): Promise<void> => {
    sink.begin(size);
    const held = [...sink.held, { from: bytes.length, to: bytes.length }];
    let at = 0;
    for (const { from, to } of held) {
      for (; at < from; at += Math.min(chunk, from - at)) {
        await sink.write(at, Buffer.from(bytes.subarray(at, Math.min(from, at + chunk))));
      }
      at = Math.max(at, to);
    }
  };
}

/** A fetch that the test drives step by step. */
export class DrivenFetch {
  readonly #started = Promise.withResolvers<void>();
  readonly #done = Promise.withResolvers<void>();
  #sink: BlobSink | null = null;
  signal: AbortSignal | null = null;
  calls = 0;

  readonly fetch = async (sink: BlobSink, signal: AbortSignal): Promise<void> => {
    this.calls++;
    this.#sink = sink;
    this.signal = signal;
    signal.addEventListener('abort', () => this.#done.reject(signal.reason as Error), { once: true });
    this.#started.resolve();
    await this.#done.promise;
  };

  /** The sink, once the fill has asked for bytes. */
  async sink(): Promise<BlobSink> {
    await this.#started.promise;
    if (this.#sink === null) throw new Error('not started');
    return this.#sink;
  }

  finish(): void {
    this.#done.resolve();
  }

  fail(error: Error): void {
    this.#done.reject(error);
  }
}
