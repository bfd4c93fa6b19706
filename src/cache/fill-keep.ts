import { CacheError } from './blob-cache.ts';
import type { FillContext, FillState } from './fill-context.ts';
import type { FillFile } from './fill-file.ts';

/**
 * Takes the verified file of a fill into the cache, or drops it where the cache has the blob already. False where the disk failed, which readers, who
 * have everything by now, do not notice. Never rejects for that.
 */
export async function keepFill(
  fill: FillState & { readonly size: number | undefined },
  file: FillFile,
  { isKept, kept, diskFailed, layout }: FillContext,
): Promise<boolean> {
  const { digest, size = 0 } = fill;
  if (await isKept(fill, size)) {
    await file.drop();
    file.path = layout.blob(digest);
    return true;
  }
  try {
    await file.promote(size);
    await kept(fill, size);
    return true;
  } catch (error) {
    diskFailed(new CacheError('disk', `cannot keep ${digest}: ${(error as Error).message}`, error));
    await file.drop({ promoted: !(await isKept(fill, size)) });
    return false;
  }
}
