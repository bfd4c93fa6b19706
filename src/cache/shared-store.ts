import type { ByteSource } from '../kit/byte-source.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { BlobTier } from './blob-tier.ts';
import type { FactStore } from './facts.ts';
import type { UploadIndex } from './index-port.ts';
import type { Giver, ObjectIndex, ObjectKind } from './object-index.ts';
import { SecondLevel } from './second-level.ts';
import { Uploads } from './tier-uploads.ts';

/** Content of a store that several gateways share, as the proxy core uses it. Nothing rejects: what the store cannot tell it does not have. */
export interface SharedContent {
  /** Who gave it, where the store has it. Waits no longer than a pull may. */
  givers(digest: Digest): Promise<readonly Giver[]>;
  /** The bytes of a manifest, checked; null where the store does not have it. */
  manifest(digest: Digest): Promise<Buffer | null>;
  /** A manifest that this repository has just given. */
  keepManifest(repository: RepositoryKey, digest: Digest): void;
  /** Where a client may get a blob itself; null where it is not in the store, whole and seen there. */
  link(digest: Digest): Promise<{ readonly url: string; readonly size: number } | null>;
  /** The registry has denied this repository, or one digest of it. */
  denied(repository: RepositoryKey, digest?: Digest): void;
  /** The same, to another gateway, which tells the index of the store. */
  deniedElsewhere(repository: RepositoryKey, digest?: Digest): void;
}

/** A store that several gateways share, and the index of it. */
export interface SharedStoreParts {
  readonly tier: BlobTier;
  readonly objects: ObjectIndex;
}

export interface SharedStoreOptions extends SharedStoreParts {
  readonly facts: FactStore;
  readonly queue: UploadIndex;
  /** Content as it is kept here; null where it is not (any more). */
  readonly open: (digest: Digest, kind: ObjectKind) => ByteSource | null;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly indexFailed: (error: unknown) => void;
}

/** What the cache has of a shared store: what is read from it, and what is brought there. */
export class SharedStore implements SharedContent {
  readonly secondLevel: SecondLevel;
  readonly uploads: Uploads;

  constructor(options: SharedStoreOptions) {
    this.secondLevel = new SecondLevel(options);
    this.uploads = new Uploads({ ...options, secondLevel: this.secondLevel });
  }

  async givers(digest: Digest): Promise<readonly Giver[]> {
    return (await this.secondLevel.find(digest))?.givers ?? [];
  }

  manifest(digest: Digest): Promise<Buffer | null> {
    return this.secondLevel.manifest(digest);
  }

  keepManifest(repository: RepositoryKey, digest: Digest): void {
    this.uploads.kept(digest, 'manifest', repository);
  }

  link(digest: Digest): Promise<{ readonly url: string; readonly size: number } | null> {
    return this.secondLevel.link(digest);
  }

  denied(repository: RepositoryKey, digest?: Digest): void {
    this.secondLevel.denied(repository, digest);
  }

  deniedElsewhere(repository: RepositoryKey, digest?: Digest): void {
    this.secondLevel.disbelieve(repository, digest);
  }

  async close(): Promise<void> {
    await this.uploads.close();
    await this.secondLevel.close();
  }
}

/** Bytes in memory. */
export class MemorySource implements ByteSource {
  readonly length: number;
  #rest: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.length = bytes.length;
    this.#rest = bytes;
  }

  async pull(into: Uint8Array): Promise<number> {
    const count = Math.min(into.length, this.#rest.length);
    into.set(this.#rest.subarray(0, count));
    this.#rest = this.#rest.subarray(count);
    return count;
  }

  async close(): Promise<void> {}
}
