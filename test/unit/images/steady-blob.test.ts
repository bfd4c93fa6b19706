import { afterEach, beforeEach, expect, test } from 'vitest';
import { GATEWAY_GONE, SourceError } from '../../../src/images/image-source.ts';
import { SteadyBlob } from '../../../src/images/steady-blob.ts';
import { parseDigest } from '../../../src/oci/names.ts';
import { type BlobFault, MemoryImages } from '../../support/memory-images.ts';
import { buildImage } from '../../support/oci-image.ts';

const image = buildImage('steady', [50_000]);
const [layer] = image.layers;
if (layer === undefined) throw new Error('no layer');
const digest = parseDigest(layer.digest);
if (digest === null) throw new Error('no digest');
const SIZE = layer.bytes.length;

let source: MemoryImages;
let waits: number[];
beforeEach(() => {
  source = new MemoryImages();
  source.add('quay.io/team/app:1', image);
  waits = [];
});
afterEach(() => expect(source.open).toBe(0));

function blob(
  options: { readonly from?: number; readonly size?: number; readonly signal?: AbortSignal } = {},
): SteadyBlob {
  const { from = 0, size = SIZE, signal = new AbortController().signal } = options;
  const wait = async (ms: number): Promise<void> => void waits.push(ms);
  return new SteadyBlob({
    source,
    key: { registry: 'quay.io', repository: 'team/app', digest: digest as never },
    size,
    from,
    signal,
    wait,
  });
}

async function readAll(steady: SteadyBlob): Promise<Buffer> {
  const parts: Buffer[] = [];
  const part = Buffer.alloc(9_000);
  try {
    for (let count = await steady.pull(part); count > 0; count = await steady.pull(part))
      parts.push(Buffer.from(part.subarray(0, count)));
    return Buffer.concat(parts);
  } finally {
    await steady.close();
  }
}

const refused = (status: number, code: string, retryAfter?: number): BlobFault => ({
  kind: 'refused',
  error: new SourceError(status, code, `${code} it is`, retryAfter),
});

test('it is read from where it is wanted, and on from where it broke off', async () => {
  source.fault(layer.digest, { kind: 'breaks', after: 10 }, refused(502, 'UNAVAILABLE'), {
    kind: 'breaks',
    after: 20_000,
  });
  expect((await readAll(blob({ from: 1000 }))).equals(layer.bytes.subarray(1000))).toBe(true);
  expect(source.asked.map(({ from }) => from)).toEqual([1000, 1010, 1010, 21_010]);
  expect((await readAll(blob({ from: SIZE }))).length).toBe(0);
});

test('a registry that fails again and again is given up, with what it said; one that refuses at once', async () => {
  source.fault(layer.digest, ...Array.from({ length: 9 }, () => refused(503, 'UNAVAILABLE')));
  await expect(readAll(blob())).rejects.toMatchObject({ status: 503 });
  expect(waits).toEqual([500, 1000, 2000]);
  waits = [];
  source.fault(layer.digest, ...Array.from({ length: 9 }, (): BlobFault => ({ kind: 'breaks', after: 0 })));
  await expect(readAll(blob())).rejects.toMatchObject({
    status: 502,
    message: expect.stringContaining('broke off again and again'),
  });
  waits = [];
  for (const status of [401, 403, 404, 429]) {
    source.fault(layer.digest, refused(status, 'NO', 5));
    await expect(readAll(blob())).rejects.toMatchObject({ status });
  }
  expect(waits).toEqual([]);
});

test('what a source asks to be given is given, within bounds', async () => {
  source.fault(layer.digest, refused(503, 'UNAVAILABLE', 7));
  await readAll(blob());
  expect(waits).toEqual([7000]);
  source.fault(layer.digest, refused(503, 'UNAVAILABLE', 3600));
  await expect(readAll(blob())).rejects.toMatchObject({ status: 503 });
});

test('a gateway that has ended is waited for longer than a registry that fails', async () => {
  source.fault(layer.digest, ...Array.from({ length: 20 }, () => refused(503, GATEWAY_GONE)));
  expect((await readAll(blob())).equals(layer.bytes)).toBe(true);
  expect(waits).toHaveLength(20);
});

test('other sizes than were said are not believed, told beforehand or not', async () => {
  for (const size of [SIZE - 1, SIZE + 1])
    await expect(readAll(blob({ size }))).rejects.toMatchObject({ code: 'IMAGE_DAMAGED' });
  source.fault(layer.digest, { kind: 'longer' });
  await expect(readAll(blob())).rejects.toMatchObject({
    code: 'IMAGE_DAMAGED',
    message: expect.stringContaining('more bytes'),
  });
});

test('one that has begun and is not read, or fails meanwhile, costs nothing but its closing', async () => {
  const [begun, failing] = [blob(), blob()];
  begun.begin();
  await begun.close();
  source.fault(layer.digest, refused(502, 'UNAVAILABLE'));
  failing.begin();
  expect((await readAll(failing)).equals(layer.bytes)).toBe(true);
  await Promise.resolve();
});

test('whoever stops it is not kept waiting', async () => {
  const stopping = new AbortController();
  source.fault(layer.digest, { kind: 'breaks', after: 10 });
  const steady = blob({ signal: stopping.signal });
  await steady.pull(Buffer.alloc(100));
  stopping.abort(new Error('stopped'));
  await expect(steady.pull(Buffer.alloc(100))).rejects.toThrow('stopped');
  await steady.close();
});
