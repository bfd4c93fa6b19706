import { createHash } from 'node:crypto';
import { afterEach, expect } from 'vitest';
import type { ByteSource } from '../../src/kit/byte-source.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import type { Digest } from '../../src/oci/names.ts';
import type { Content } from './fake-registry/index.ts';
import { FakeRegistry, type FakeRegistryOptions, generated } from './fake-registry/index.ts';
import { MemorySink } from './memory-sink.ts';
import { startUpstream, type TestUpstream } from './upstream.ts';

export const MIB = 1024 * 1024;
export const signal = new AbortController().signal;
export const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

export async function fakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start(options);
  cleanups.push(() => fake.close());
  return fake;
}

export function upstreamOf(
  endpoints: readonly string[],
  options: Parameters<typeof startUpstream>[1] = {},
): TestUpstream {
  const upstream = startUpstream({ 'r.test': { endpoints } }, options);
  cleanups.push(() => upstream.close());
  return upstream;
}

export function layer(size: number, ...fakes: FakeRegistry[]): Content {
  const content = generated(size, size);
  for (const fake of fakes) fake.repository('library/app').addBlob(content);
  return content;
}

export const fetchInto = (upstream: TestUpstream, digest: string, sink: MemorySink, stop = signal) =>
  upstream.download({ registry: 'r.test', repository: 'library/app', digest: digest as Digest }, sink, stop);

export async function downloads(
  upstream: TestUpstream,
  content: Content,
  sink = new MemorySink(),
): Promise<MemorySink> {
  await fetchInto(upstream, content.digest, sink);
  expect(sink.bytes.length).toBe(content.size);
  expect(sink.digest).toBe(content.digest);
  return sink;
}

export async function failure(promise: Promise<unknown>): Promise<RegistryError> {
  const error = await promise.then(
    () => new Error('nothing was thrown'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(RegistryError);
  return error as RegistryError;
}

export async function digestOf(source: ByteSource | undefined): Promise<string> {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(64 * 1024);
  for (let count = -1; count !== 0; ) {
    count = (await source?.pull(buffer)) ?? 0;
    hash.update(buffer.subarray(0, count));
  }
  await source?.close();
  return `sha256:${hash.digest('hex')}`;
}
