import { createHash } from 'node:crypto';
import type { Digest } from '../oci/digest.ts';
import { digestAlgorithm, digestHex } from '../oci/digest.ts';
import { SharedFile } from './shared-file.ts';

/** Enough that the disk reads in one go, little enough that the hash never holds the event loop for long. */
const STEP = 256 * 1024;

/** Reads a file from end to end. Returns its size, and whether its bytes are those of the digest. @throws the system's error. */
export async function hashFile(
  path: string,
  digest: Digest,
  signal?: AbortSignal,
): Promise<{ readonly right: boolean; readonly size: number }> {
  const file = SharedFile.open(path, 'r');
  try {
    const hash = createHash(digestAlgorithm(digest));
    const buffer = Buffer.allocUnsafe(STEP);
    let size = 0;
    for (;;) {
      signal?.throwIfAborted();
      const count = await file.read(buffer, buffer.length, size);
      if (count === 0) return { right: hash.digest('hex') === digestHex(digest), size };
      hash.update(buffer.subarray(0, count));
      size += count;
    }
  } finally {
    file.release();
  }
}
