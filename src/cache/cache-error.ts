/**
 * Why the cache does not keep a blob although the upstream gives it: the pull goes on past the cache.
 * `too-large`: larger than the whole cache; `no-room`: all that is there is in use; `min-free`: the disk has no more than `cache.minFree` left;
 * `disk`: a system call failed; `damaged`: the kept file is not what was put there.
 */
export type CacheErrorReason = 'too-large' | 'no-room' | 'min-free' | 'disk' | 'damaged';

/** The cache's own failure, never the upstream's: a reader that meets it continues from the upstream where it stopped. */
export class CacheError extends Error {
  override readonly name = 'CacheError';
  readonly reason: CacheErrorReason;

  constructor(reason: CacheErrorReason, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.reason = reason;
  }
}
