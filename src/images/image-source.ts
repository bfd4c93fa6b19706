import type { ByteSource } from '../kit/byte-source.ts';
import type { BlobKey, Digest, Reference, RepositoryKey } from '../oci/names.ts';

export interface SourceManifest {
  readonly digest: Digest;
  /** Without parameters. */
  readonly mediaType: string;
  /** The exact bytes. */
  readonly body: Uint8Array;
  /** What is said of an answer that is not its registry's last word, as `Warning` has it; null for one that is. */
  readonly warning: string | null;
  /** Its registry was asked, as far as it has to be: a cooldown's warning is of what it said. Left out where that is not known. */
  readonly asked?: boolean;
}

export interface SourceBlob {
  /** Of the whole blob; undefined where its registry does not say. */
  readonly size: number | undefined;
  /** From the offset that was asked for. Its end proves that the digest is right, where it was read from the beginning. */
  readonly body: ByteSource;
  /** All of it was here before it was asked for; left out where that is not known. */
  readonly kept?: boolean;
}

/**
 * Port: images as this gateway gives them, from what it keeps or through it, under the rules that hold for its clients. `CoreSource` asks the proxy core of
 * this process, `SocketSource` that of the gateway that runs.
 */
export interface ImageSource {
  /** @throws {SourceError} */
  manifest(repository: RepositoryKey, reference: Reference, signal: AbortSignal): Promise<SourceManifest>;
  /** @param from the offset of the first byte that is wanted. @throws {SourceError} */
  blob(key: BlobKey, from: number, signal: AbortSignal): Promise<SourceBlob>;
  /** The image index of what refers to this manifest (distribution-spec, *Listing Referrers*); its bytes. @throws {SourceError} */
  referrers(repository: RepositoryKey, digest: Digest, signal: AbortSignal): Promise<Uint8Array>;
  /** All tags, page by page. @throws {SourceError} */
  tags(repository: RepositoryKey, signal: AbortSignal): AsyncIterable<readonly string[]>;
}

/** Code of a {@link SourceError} that comes from no registry: the gateway that was asked does not answer, or has ended meanwhile. */
export const GATEWAY_GONE = 'GATEWAY_GONE';

/** Why an image, or a part of it, cannot be had: what a client of the gateway would be told. */
export class SourceError extends Error {
  override readonly name = 'SourceError';
  /** Of the answer. */
  readonly status: number;
  /** Of the registry API: `MANIFEST_UNKNOWN`. */
  readonly code: string;
  /** Seconds after which it may be tried again; undefined where nobody says. */
  readonly retryAfter: number | undefined;

  constructor(status: number, code: string, message: string, retryAfter?: number) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }

  /** There is no such thing, as its registry says. */
  get isMissing(): boolean {
    return this.status === 404;
  }
}
