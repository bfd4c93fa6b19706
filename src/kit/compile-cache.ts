import { getCompileCacheDir } from 'node:module';
import { dirname } from 'node:path';

/**
 * Environment of another program of ours: compiled code is kept in one place for all. With it set from the first moment on, not even
 * the first file has to be stripped of its types, which loads a compiler.
 */
export function compileCacheEnv(): { readonly NODE_COMPILE_CACHE?: string } {
  // A directory of this version of Node, in the one that was asked for.
  const directory = getCompileCacheDir();
  return directory === undefined ? {} : { NODE_COMPILE_CACHE: dirname(directory) };
}
