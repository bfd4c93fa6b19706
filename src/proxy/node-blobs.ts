import { LRUCache } from 'lru-cache';
import { registryOf } from '../aliases/lookup.ts';
import type { RegistryEntry, TableSnapshot } from '../aliases/table.ts';
import type { BlobCache, BlobHandle } from '../cache/blob-cache.ts';
import { CacheError } from '../cache/blob-cache.ts';
import type { ByteSource } from '../kit/byte-source.ts';
import { openerOf } from '../oci/credentials.ts';
import { RegistryError } from '../oci/errors.ts';
import type { Digest } from '../oci/names.ts';
import type { ImagePolicy } from '../policy/image-policy.ts';
import type { BlobFills, HeldBlobKey } from './blob-fills.ts';
import type { RepositoryAccess } from './repository-access.ts';

/** Fills that other gateways began, remembered with who it was; some 200 bytes each. */
const MAX_BEGUN = 10_000;

/** What another gateway, which shares this one's work, asks for. */
export interface NodeAsk {
  /** Who asks: the gateway's id. */
  readonly node: string;
  /** With the credentials that its table has for the repository. */
  readonly key: HeldBlobKey;
  /** Its client, for whom this gateway does it. */
  readonly client: string;
  /** The registry said to that gateway that this repository holds the blob. */
  readonly known: boolean;
  /** All of it is wanted in the end. */
  readonly whole: boolean;
  /** `to` is exclusive. */
  readonly range: { readonly from: number; readonly to?: number | undefined };
}

/** What may be done for it. */
export interface NodeMay {
  /** To fetch the blob where nothing of it is here. */
  readonly begin: boolean;
  /** To give it while it is still coming. */
  readonly growing: boolean;
}

export interface NodeBlob {
  readonly size: number | undefined;
  /** The repository whose GET brought the bytes, or is bringing them; null where that is not known. */
  readonly through: string | null;
  /** The bytes are fetched because that gateway asks. */
  readonly counts: boolean;
  readonly source: ByteSource;
}

export interface NodeBlobsOptions {
  /** As it is now; null where nothing is kept. */
  readonly blobs: () => BlobCache | null;
  readonly access: RepositoryAccess;
  /** Null where every image may pass. */
  readonly policy: ImagePolicy | null;
  readonly fills: BlobFills;
  readonly table: () => TableSnapshot;
}

/**
 * Gives blobs to other gateways of the same table: what a client of the same repository would be given here, and where it comes from, so that the other
 * gateway can note that and decide for its own clients. What cannot be kept here is left to the other.
 */
export class NodeBlobs {
  readonly #options: NodeBlobsOptions;
  /** Who began the fill of a growing blob, by `growingId`. */
  readonly #begunBy = new LRUCache<string, string>({ max: MAX_BEGUN });

  constructor(options: NodeBlobsOptions) {
    this.#options = options;
  }

  /** Whether all of it is here. Nothing of it is given for that. */
  keeps(digest: Digest): boolean {
    const handle = this.#options.blobs()?.kept(digest) ?? null;
    handle?.release();
    return handle !== null;
  }

  /**
   * Null where nothing may be given.
   * @throws {RegistryError} the registry's own; registryUnknown
   */
  async give(ask: NodeAsk, may: NodeMay): Promise<NodeBlob | null> {
    const { access, policy } = this.#options;
    const { registry } = ask.key;
    const entry = registryOf(this.#options.table(), registry);
    if (entry === undefined) throw new RegistryError('registryUnknown', { facts: { registry } });
    // The other gateway has judged for its client; what nobody may have here, it fetches itself where it may.
    if (policy?.mayPassForSomebody(ask.key, ask.key.digest) === false) return null;
    const { key } = ask;
    const blobs = this.#options.blobs();
    // Tables that differ for a moment: what these credentials open here is not what that gateway asks for.
    if (blobs === null || key.opener !== openerOf(entry, key.repository)) return null;
    try {
      return await this.#find(blobs, ask, may, entry, key);
    } catch (error) {
      access.failed(key, error);
      if (error instanceof CacheError) return null;
      throw error;
    }
  }

  async #find(
    blobs: BlobCache,
    ask: NodeAsk,
    may: NodeMay,
    entry: RegistryEntry,
    key: HeldBlobKey,
  ): Promise<NodeBlob | null> {
    const kept = await this.#kept(blobs, ask, entry, key);
    if (kept !== null) return kept;
    const growing = may.growing ? blobs.growing(key, ask.client) : null;
    if (growing !== null) {
      await this.#prove(ask, entry, key, growing);
      const given = await this.#open(growing, ask, this.#begunBy.get(growingId(key)) === ask.node);
      if (given !== null) return given;
    }
    if (!may.begin || !blobs.accepts(key)) return null;
    const { from, to } = ask.range;
    const part = ask.whole ? undefined : { from, to, openEnded: to === undefined };
    this.#begunBy.set(growingId(key), ask.node);
    await this.#options.fills.begin(blobs, { client: ask.client, part, forNode: true }, entry, key);
    const begun = blobs.growing(key, ask.client);
    return begun === null ? this.#kept(blobs, ask, entry, key) : this.#open(begun, ask, true);
  }

  /** What is kept, where this repository may have it. */
  async #kept(blobs: BlobCache, ask: NodeAsk, entry: RegistryEntry, key: HeldBlobKey): Promise<NodeBlob | null> {
    const { access } = this.#options;
    const handle = blobs.kept(key.digest);
    if (handle === null) return null;
    const may = () => access.mayServe(entry, key, key.digest, ask.known);
    try {
      if (!may()) await this.#prove(ask, entry, key, handle);
    } catch (error) {
      handle.release();
      throw error;
    }
    if (may()) return this.#open(handle, ask, false, access.hasGiven(entry, key, key.digest) ? key.repository : null);
    handle.release();
    return null;
  }

  /** The registry has said that this repository holds the blob: to the other gateway, to this one before, or now. */
  async #prove(ask: NodeAsk, entry: RegistryEntry, key: HeldBlobKey, handle: BlobHandle): Promise<void> {
    const { access, fills } = this.#options;
    if (ask.known || access.knows(entry, key, key.digest)) return;
    try {
      await fills.prove(entry, key, ask.client, handle.complete ? handle.knownSize : undefined);
    } catch (error) {
      if (!handle.complete) handle.release();
      throw error;
    }
  }

  /** Null where it has failed before it began: that says nothing about this repository. */
  async #open(
    handle: BlobHandle,
    { range, whole }: NodeAsk,
    counts: boolean,
    through: string | null = handle.repository,
  ): Promise<NodeBlob | null> {
    try {
      const size = await handle.size().catch(() => null);
      if (size === null) return null;
      // A reader of all of it lets all of it be fetched.
      if (whole && !handle.complete) await handle.open().close();
      // The other gateway checks the digest itself, and holds back what has to be held back.
      const source = handle.open(range, { wholeReply: false });
      return { size, through, counts, source };
    } finally {
      handle.release();
    }
  }
}

function growingId({ registry, digest, opener }: HeldBlobKey): string {
  return `${registry} ${digest} ${opener}`;
}
