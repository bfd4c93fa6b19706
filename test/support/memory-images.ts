import { type ImageSource, type SourceBlob, SourceError, type SourceManifest } from '../../src/images/image-source.ts';
import { TruncatedError } from '../../src/kit/byte-source.ts';
import { type BlobKey, type Digest, parseDigest, type Reference, type RepositoryKey } from '../../src/oci/names.ts';
import type { Blob, TestImage } from './oci-image.ts';
import { topOf } from './oci-image.ts';

/** How a blob is given once, where it is not as it should be. */
export type BlobFault =
  /** Other bytes, as many. */
  | { readonly kind: 'wrong' }
  /** Breaks off after so many. */
  | { readonly kind: 'breaks'; readonly after: number }
  /** More bytes than the descriptor says, of which nobody tells beforehand. */
  | { readonly kind: 'longer' }
  | { readonly kind: 'refused'; readonly error: SourceError };

/** Images in memory, as a gateway would give them; counts what is read. */
export class MemoryImages implements ImageSource {
  readonly #manifests = new Map<string, Blob>();
  readonly #blobs = new Map<string, Blob>();
  readonly #faults = new Map<string, BlobFault[]>();
  /** Bytes of blobs that were read. */
  read = 0;
  /** Offsets that blobs were asked for from, in their order. */
  readonly asked: { readonly digest: string; readonly from: number }[] = [];
  /** Blobs whose readers have not closed them. */
  open = 0;
  /** Most bytes given at a time. */
  chunk = 100_000;

  /** Under `registry/repository:tag`, and by all of its digests. */
  add(name: string, image: TestImage): void {
    const repository = name.slice(0, name.lastIndexOf(':'));
    this.#manifests.set(name, topOf(image));
    const others = image.index?.others ?? [];
    for (const manifest of [topOf(image), image.manifest, ...others])
      this.#manifests.set(`${repository}@${manifest.digest}`, manifest);
    for (const blob of [image.config, ...image.layers, ...others]) this.#blobs.set(blob.digest, blob);
  }

  /** What the next requests for a blob get; after them all is well. */
  fault(digest: string, ...faults: BlobFault[]): void {
    this.#faults.set(digest, faults);
  }

  async manifest({ registry, repository }: RepositoryKey, reference: Reference): Promise<SourceManifest> {
    const name = `${registry}/${repository}`;
    const key = reference.kind === 'tag' ? `${name}:${reference.tag}` : `${name}@${reference.digest}`;
    const found = this.#manifests.get(key);
    if (found === undefined) throw new SourceError(404, 'MANIFEST_UNKNOWN', `there is no ${key}`);
    return { digest: digestOf(found.digest), mediaType: found.mediaType, body: found.bytes, warning: null };
  }

  async blob({ digest }: BlobKey, from: number): Promise<SourceBlob> {
    this.asked.push({ digest, from });
    const found = this.#blobs.get(digest);
    if (found === undefined) throw new SourceError(404, 'BLOB_UNKNOWN', `there is no ${digest}`);
    const fault = this.#faults.get(digest)?.shift();
    if (fault?.kind === 'refused') throw fault.error;
    let { bytes } = found;
    if (fault?.kind === 'wrong') bytes = Buffer.from(bytes.map((byte) => byte ^ 1));
    if (fault?.kind === 'longer') bytes = Buffer.concat([bytes, Buffer.alloc(10)]);
    const end = fault?.kind === 'breaks' ? from + fault.after : Number.POSITIVE_INFINITY;
    let at = from;
    let closed = false;
    this.open += 1;
    const body = {
      length: bytes.length - from,
      pull: async (into: Uint8Array) => {
        if (at >= end) throw new TruncatedError('the connection broke');
        const part = bytes.subarray(at, Math.min(at + this.chunk, at + into.length, end));
        into.set(part);
        at += part.length;
        this.read += part.length;
        return part.length;
      },
      close: async () => {
        if (!closed) this.open -= 1;
        closed = true;
      },
    };
    return { size: fault?.kind === 'longer' ? undefined : bytes.length, body };
  }

  async referrers(): Promise<Uint8Array> {
    return Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [] }));
  }

  async *tags(): AsyncIterable<readonly string[]> {}
}

function digestOf(text: string): Digest {
  const digest = parseDigest(text);
  if (digest === null) throw new Error(`no digest: ${text}`);
  return digest;
}
