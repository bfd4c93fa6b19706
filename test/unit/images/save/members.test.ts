import { packTar } from 'modern-tar';
import { expect, test } from 'vitest';
import { parseImageName } from '../../../../src/images/image-name.ts';
import { blobPath, layOut } from '../../../../src/images/save/members.ts';
import type { Digest } from '../../../../src/oci/names.ts';

function member(size: number, count = 0) {
  const digest = `sha256:${count.toString(16).padStart(64, '0')}` as Digest;
  const blob = { digest, size, mediaType: '', platform: null, isForeign: false };
  return { name: blobPath(digest), blob, image: parseImageName('app'), label: '' };
}

test.each([0, 1, 511, 512, 513, 100_000])(
  'the header of a member of %i bytes is that of a whole archive',
  async (size) => {
    const { name, ...rest } = member(size);
    const whole = await packTar([
      { header: { name, size, mode: 0o644, mtime: new Date(0) }, body: new Uint8Array(size).fill(0xff) },
    ]);
    const { pieces, length } = await layOut([{ name, ...rest }]);
    expect(length).toBe(whole.length);
    const [head] = pieces;
    expect(head !== undefined && 'bytes' in head && Buffer.from(head.bytes)).toEqual(
      Buffer.from(whole.subarray(0, 512)),
    );
  },
);

test('thousands of layers that say they have a TiB cost no more than others', async () => {
  const members = Array.from({ length: 2_000 }, (_, count) => member(1024 ** 4, count));
  const { length } = await layOut(members);
  expect(length).toBeGreaterThan(2_000 * 1024 ** 4);
}, 30_000);
