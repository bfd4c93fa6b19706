import { type Digest, digestAlgorithm, digestHex } from '../oci/names.ts';

const SHA256 = 1;
const SHA512 = 2;

/** A digest as the tables hold it: a byte for the algorithm, then the raw hash. Half the size of its text, and in the same order. */
export function toBytes(digest: Digest): Buffer {
  const hex = digestHex(digest);
  const bytes = Buffer.allocUnsafe(1 + hex.length / 2);
  bytes[0] = digestAlgorithm(digest) === 'sha512' ? SHA512 : SHA256;
  bytes.write(hex, 1, 'hex');
  return bytes;
}

export function fromBytes(bytes: Buffer): Digest {
  return `${bytes[0] === SHA512 ? 'sha512' : 'sha256'}:${bytes.toString('hex', 1)}` as Digest;
}
