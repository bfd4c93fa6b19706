import type { Digest, Reference } from '../oci/names.ts';

/** The bytes of a blob that is to be pushed: read in order, and once more from where a registry says that it stands. By one reader at a time. */
export interface BlobContent {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** The next byte that is read is the one at `offset`. @throws {SourceError} */
  seek(offset: number): Promise<void>;
  /** Copies the next bytes into `into`; resolves to their count, 0 at the end. @throws {SourceError}; {OperatorError} `IMAGE_DAMAGED` */
  pull(into: Uint8Array): Promise<number>;
  /** To be called before the blob is committed: reads what is left. @throws {OperatorError} `IMAGE_DAMAGED` where these are not the bytes of the digest */
  verify(): Promise<void>;
}

export interface PushBlobOptions {
  /** Repositories of the same registry that have it, or may have it. */
  readonly mountFrom: readonly string[];
  /** Told how many bytes the registry has, or is being sent. */
  readonly progress: (bytes: number) => void;
}

export interface PushedBlob {
  readonly how: 'mounted' | 'pushed';
  /** Sent over the network, those that had to be sent twice counted twice. */
  readonly bytes: number;
}

export interface ManifestToPush {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly body: Uint8Array;
}

/**
 * Port: a registry that takes pushes (distribution-spec, *Push*). Tries again by itself what may pass.
 * Every method throws `OperatorError` (PUSH_REFUSED, PUSH_UNSUPPORTED, PUSH_FAILED); an aborted `signal` throws its reason.
 */
export interface PushTarget {
  /** As image names have it. */
  readonly registry: string;
  /** What a tag or digest names there; null where it names nothing. */
  digestOf(repository: string, reference: Reference, signal: AbortSignal): Promise<Digest | null>;
  /** The manifest under a tag; null where there is none. */
  manifest(repository: string, tag: string, signal: AbortSignal): Promise<Omit<ManifestToPush, 'digest'> | null>;
  hasBlob(repository: string, digest: Digest, signal: AbortSignal): Promise<boolean>;
  /** @throws {SourceError} of the content, too */
  pushBlob(
    repository: string,
    content: BlobContent,
    options: PushBlobOptions,
    signal: AbortSignal,
  ): Promise<PushedBlob>;
  /** @returns whether the registry has taken note of the manifest's `subject` (`OCI-Subject`) */
  putManifest(
    repository: string,
    reference: Reference,
    manifest: ManifestToPush,
    signal: AbortSignal,
  ): Promise<{ readonly notedSubject: boolean }>;
  /** Whether the registry answers what refers to a manifest by itself (distribution-spec, *Listing Referrers*). */
  listsReferrers(repository: string, digest: Digest, signal: AbortSignal): Promise<boolean>;
}
