import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../oci/names.ts';

/**
 * Where objects lie in the bucket: `<prefix>blobs/<algorithm>/<first 2 hex>/<hex>`, blobs and manifests alike. The first two digits spread the load over
 * the partitions of a store, and let people page through it.
 */
export class Keys {
  /** What every key begins with. */
  readonly prefix: string;

  /** @param prefix of the configuration; a slash is added where it has none */
  constructor(prefix: string | null) {
    const folder = prefix === null || prefix.endsWith('/') ? (prefix ?? '') : `${prefix}/`;
    this.prefix = `${folder}blobs/`;
  }

  of(digest: Digest): string {
    const hex = digestHex(digest);
    return `${this.prefix}${digestAlgorithm(digest)}/${hex.slice(0, 2)}/${hex}`;
  }

  /** Null where the key is none that the gateway makes. */
  digest(key: string): Digest | null {
    if (!key.startsWith(this.prefix)) return null;
    const [algorithm, folder, hex, ...more] = key.slice(this.prefix.length).split('/');
    const digest = parseDigest(`${algorithm}:${hex}`);
    return digest !== null && more.length === 0 && folder === hex?.slice(0, 2) ? digest : null;
  }
}
