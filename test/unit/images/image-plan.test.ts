import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { parseImageName } from '../../../src/images/image-name.ts';
import { planImage } from '../../../src/images/image-plan.ts';
import { MemoryImages } from '../../support/memory-images.ts';
import { buildImage } from '../../support/oci-image.ts';

const INDEX = 'application/vnd.oci.image.index.v1+json';

function manifestOf(mediaType: string, content: object) {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...content }));
  return { bytes, mediaType, digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}` };
}

test('an index of a great many large manifests is refused before all of them are in memory', async () => {
  const source = new MemoryImages();
  const image = buildImage('large', [10]);
  const pad = ' '.repeat(4_000_000);
  const others = Array.from({ length: 20 }, (_, count) =>
    manifestOf(image.manifest.mediaType, { layers: [], pad, count }),
  );
  const manifest = manifestOf(INDEX, {
    manifests: others.map(({ digest, mediaType, bytes }) => ({ digest, mediaType, size: bytes.length })),
  });
  source.add('docker.io/library/large:1', { ...image, index: { manifest, others } });
  let asked = 0;
  const counted = Object.assign(Object.create(source) as MemoryImages, {
    manifest: (...args: Parameters<MemoryImages['manifest']>) => {
      asked += 1;
      return source.manifest(...args);
    },
  });
  const selection = { platforms: null, referrers: false };
  await expect(
    planImage(counted, parseImageName('large:1'), selection, AbortSignal.timeout(30_000)),
  ).rejects.toMatchObject({ status: 502, message: 'docker.io/library/large has more than 32 MiB of manifests' });
  expect(asked).toBeLessThan(12);
});

test('indexes that name each other are no loop', async () => {
  const source = new MemoryImages();
  const image = buildImage('loop', [10]);
  // Digests cannot name each other: one that does is a lie of whoever gives it.
  const digest = `sha256:${'a'.repeat(64)}`;
  const bytes = Buffer.from(
    JSON.stringify({
      manifests: [
        { digest, mediaType: INDEX },
        { digest: image.manifest.digest, mediaType: image.manifest.mediaType },
      ],
    }),
  );
  const manifest = { bytes, mediaType: INDEX, digest };
  source.add('docker.io/library/loop:1', { ...image, index: { manifest, others: [] } });
  const plan = await planImage(
    source,
    parseImageName('loop:1'),
    { platforms: null, referrers: false },
    AbortSignal.timeout(30_000),
  );
  expect(plan.manifests).toHaveLength(2);
});
