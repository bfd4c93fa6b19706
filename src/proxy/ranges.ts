import type { BlobHandle } from '../cache/blob-cache.ts';
import type { Extent } from '../kit/interval-set.ts';
import type { Digest } from '../oci/digest.ts';
import type { RangeSpec } from '../oci/range.ts';
import type { RepositoryKey } from '../oci/target.ts';
import { Lru } from './lru.ts';

/**
 * A range that starts further ahead of a fill than this is passed through. Nearer ones wait: at 2 MiB/s that is two seconds, about
 * what another request costs with its redirect and a slow start of its own, and the bytes are fetched once.
 */
const RANGE_AHEAD = 4 * 1024 * 1024;

/** A cold blob of up to this is fetched whole for any part of it: that costs little more than the part. */
export const SMALL_BLOB = 4 * 1024 * 1024;

/** A part of a cold blob longer than this is no lazy puller's (they read files out of layers) but a download in pieces: the rest will follow. */
export const LARGE_PART = 8 * 1024 * 1024;

/** Once a cold blob's parts add up to so much of it, or so many bytes, fetching it whole is the cheaper way. */
const PARTS_SHARE = 0.5;
export const PARTS_BYTES = 64 * 1024 * 1024;

const COUNTED_BLOBS = 4096;

/**
 * Decides when ranges of a blob that is not here start a fill. Lazy pullers (stargz, nydus, soci) read a few small parts of large layers: fetching
 * those whole would cost what lazy pulling saves. A resumed or chunked download wants it all in the end.
 */
export class ColdRanges {
  readonly #passed = new Lru<number>(COUNTED_BLOBS);

  /** Whether to fetch the whole blob for this request. A part that is passed through instead is counted. */
  startsFill(key: RepositoryKey, digest: Digest, specs: readonly RangeSpec[], size: number | undefined): boolean {
    const [spec] = specs;
    // Several parts can only be cut from a blob that is here; an open end asks for the rest of it.
    if (specs.length !== 1 || spec === undefined) return true;
    if (size !== undefined && size <= SMALL_BLOB) return true;
    if (spec.kind === 'from' && spec.to === undefined) return true;
    const length = spec.kind === 'suffix' ? spec.length : (spec.to ?? 0) - spec.from;
    if (length > LARGE_PART) return true;
    const name = `${key.registry}/${key.repository}@${digest}`;
    const sum = (this.#passed.get(name) ?? 0) + length;
    if (sum > PARTS_BYTES || (size !== undefined && sum > size * PARTS_SHARE)) {
      this.#passed.delete(name);
      return true;
    }
    this.#passed.set(name, sum);
    return false;
  }
}

/** Whether a part of a growing blob is so far ahead that the upstream gives it sooner. */
export function isFarAhead(extent: Extent, handle: BlobHandle): boolean {
  return !handle.complete && extent.from - handle.available > RANGE_AHEAD;
}

/** Whether the parts together are as much as the whole, which is then the better answer (RFC 9110, 14.2 lets a server ignore such a Range). */
export function exceeds(extents: readonly Extent[], size: number): boolean {
  let sum = 0;
  for (const { from, to } of extents) sum += to - from;
  return sum > size;
}
