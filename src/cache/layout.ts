import { join } from 'node:path';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../oci/digest.ts';

/**
 * Where things lie under the data directory:
 * `blobs/<algorithm>/<first 2 hex>/<hex>` are whole and verified, `partial/<algorithm>-<hex>` are still growing,
 * each with a `.held` file beside it that says what of it is on disk for sure.
 */
export class Layout {
  readonly blobs: string;
  readonly partials: string;

  constructor(dataDir: string) {
    this.blobs = join(dataDir, 'blobs');
    this.partials = join(dataDir, 'partial');
  }

  blob(digest: Digest): string {
    const hex = digestHex(digest);
    return join(this.blobs, digestAlgorithm(digest), hex.slice(0, 2), hex);
  }

  partial(digest: Digest): string {
    return join(this.partials, `${digestAlgorithm(digest)}-${digestHex(digest)}`);
  }

  held(digest: Digest): string {
    return `${this.partial(digest)}.held`;
  }

  /** The digest that a file of `partial/` stands for; null where the name is none of ours. */
  partialDigest(name: string): Digest | null {
    return parseDigest(name.replace(/\.held(\.new)?$/, '').replace('-', ':'));
  }
}
