import { afterEach, describe, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import {
  type Content,
  FakeRegistry,
  type FakeRegistryOptions,
  generated,
  sha256,
} from '../support/fake-registry/index.ts';
import { RegistryBed } from '../support/registry-bed.ts';

// How clients fetch a cold blob in parts, and what that costs upstream.

const REPOSITORY = 'library/app';
const MIB = 1 << 20;
const SIZE = 48 * MIB;
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(options: FakeRegistryOptions = {}) {
  const fake = await FakeRegistry.start(options);
  closers.push(() => fake.close());
  const bed = await RegistryBed.start({ registries: { 'docker.io': { fake } }, cache: { maxSize: 256 * MIB } });
  closers.push(() => bed.stop());
  const blob = fake.repository(REPOSITORY).addBlob(generated(SIZE));
  return { fake, bed, blob };
}

/** Asks for a range, takes so many bytes of the answer, and closes it. */
async function take(bed: RegistryBed, blob: Content, range: string, bytes: number): Promise<Buffer> {
  const reply = await bed.open('docker.io', REPOSITORY, { kind: 'blob', digest: blob.digest as never }, { range });
  expect(reply.status).toBe(206);
  const source = reply.body as { pull(into: Uint8Array): Promise<number>; close(): Promise<void> };
  const into = Buffer.alloc(bytes);
  let count = 0;
  while (count < bytes) {
    const more = await source.pull(into.subarray(count));
    if (more === 0) break;
    count += more;
  }
  await source.close();
  return into.subarray(0, count);
}

const fetched = (fake: FakeRegistry): number => fake.log.bytes({ kind: 'blob' });
const isKept = (bed: RegistryBed, { digest }: Content) =>
  eventually('it is kept', () => bed.rig.index.blob(digest as never) !== null);

describe.each([
  ['a fast registry', {}],
  ['one that gives a connection 12 MiB/s', { bytesPerSecond: 12 * MIB }],
])('from %s', (_, options) => {
  test('as containerd does: pieces of 8 MiB by open-ended ranges, many at a time', async () => {
    const { fake, bed, blob } = await start(options);
    const piece = 8 * MIB;
    const starts = Array.from({ length: SIZE / piece }, (_each, at) => at * piece);
    const pieces = await Promise.all(starts.map((from) => take(bed, blob, `bytes=${from}-`, piece)));
    expect(sha256(Buffer.concat(pieces))).toBe(blob.digest);
    await isKept(bed, blob);
    expect(fetched(fake)).toBeLessThanOrEqual(1.05 * SIZE);
  });

  test('as ollama does: sixteen parts', async () => {
    const { fake, bed, blob } = await start(options);
    const part = SIZE / 16;
    const starts = Array.from({ length: 16 }, (_each, at) => at * part);
    const parts = await Promise.all(starts.map((from) => take(bed, blob, `bytes=${from}-${from + part - 1}`, part)));
    expect(sha256(Buffer.concat(parts))).toBe(blob.digest);
    await isKept(bed, blob);
    expect(fetched(fake)).toBeLessThanOrEqual(1.05 * SIZE);
  });
});

test('as SOCI does: five hundred small ranges cost at most twice what is asked for', async () => {
  const { fake, bed, blob } = await start();
  const length = 16 * 1024;
  const starts = Array.from({ length: 500 }, (_each, at) => ((at * 7919) % 500) * 96 * 1024);
  const queue = [...starts];
  const worker = async (): Promise<void> => {
    for (let from = queue.shift(); from !== undefined; from = queue.shift()) {
      const bytes = await take(bed, blob, `bytes=${from}-${from + length - 1}`, length);
      expect(bytes.equals(Buffer.from(blob.read(from, from + length)))).toBe(true);
    }
  };
  await Promise.all(Array.from({ length: 20 }, worker));
  expect(fetched(fake)).toBeLessThanOrEqual(2 * 500 * length);
  expect(bed.rig.index.blob(blob.digest as never)).toBeNull();
});

describe('a thousand tiny ranges that lie close together cost few requests upstream', () => {
  const starts = Array.from({ length: 1024 }, (_each, at) => at * 2000);
  const end = 2 * MIB;

  test('in one request', async () => {
    const { fake, bed, blob } = await start();
    const range = `bytes=${starts.map((from) => `${from}-${from + 9}`).join(',')}`;
    const reply = await bed.blob('docker.io', REPOSITORY, blob.digest, { range });
    expect([reply.status, reply.truncated]).toEqual([206, false]);
    for (const from of starts) {
      expect(reply.body.includes(Buffer.from(blob.read(from, from + 10)))).toBe(true);
    }
    expect(fake.log.count({ kind: 'blob' })).toBeLessThan(20);
    expect(fetched(fake)).toBeLessThanOrEqual(end);
  });

  test.each([
    ['ascending', starts],
    ['descending', starts.toReversed()],
    ['mixed', starts.map((_each, at) => ((at * 397) % 1024) * 2000)],
  ])('in requests of their own, %s', async (_order, order) => {
    const { fake, bed, blob } = await start();
    await Promise.all(
      order.map(async (from) => {
        const bytes = await take(bed, blob, `bytes=${from}-${from + 9}`, 10);
        expect(bytes.equals(Buffer.from(blob.read(from, from + 10)))).toBe(true);
      }),
    );
    expect(fake.log.count({ kind: 'blob' })).toBeLessThan(30);
    expect(fetched(fake)).toBeLessThanOrEqual(end);
  });
});

test('clients that ask for parts and do not read hold up nobody', async () => {
  const { fake, bed, blob } = await start();
  const others = Array.from({ length: 30 }, (_each, at) =>
    fake.repository(REPOSITORY).addBlob(generated(4 * MIB, `lazy ${at}`)),
  );
  const lazy = await Promise.all(
    others.flatMap((other) =>
      Array.from({ length: 8 }, (_each, at) =>
        bed.open(
          'docker.io',
          REPOSITORY,
          { kind: 'blob', digest: other.digest as never },
          { range: `bytes=${at * 1000}-` },
        ),
      ),
    ),
  );
  const cold = await bed.blob('docker.io', REPOSITORY, blob.digest);
  expect(sha256(cold.body)).toBe(blob.digest);
  for (const { body } of lazy) if (body !== null && 'close' in body) await body.close();
});
