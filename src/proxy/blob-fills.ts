import type { RegistryEntry } from '../aliases/table.ts';
import type { BlobCache, Fetch, FillOptions } from '../cache/blob-cache.ts';
import type { FillKey } from '../cache/files.ts';
import type { Asked } from '../cache/wishes.ts';
import type { Askers } from '../kit/askers.ts';
import { type Lifetime, SingleFlight } from '../kit/async.ts';
import { RegistryError } from '../oci/errors.ts';
import { type BlobKey, contentId, type RepositoryKey } from '../oci/names.ts';
import { type BlobSink, canHaveSize } from '../oci/transfer.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { BlobSizes } from './blob-sizes.ts';
import { wrongSize } from './passthrough.ts';
import { flightId, type RepositoryAccess } from './repository-access.ts';

/** Which blob, and whose file it is while it grows. */
export type HeldBlobKey = BlobKey & Required<FillKey>;

/** One download of a blob, for gateways that share their work. */
export interface SharedDownload {
  readonly key: HeldBlobKey;
  /** The clients that it is for, whose number grows. */
  readonly askers: Askers;
  /** It was begun for another gateway, which must not be led on to a third. */
  readonly forNode: boolean;
  /** The repository is known to hold the blob: its registry said so to this gateway. */
  readonly known: boolean;
  /** Fetches from the registry itself what the sink lacks, as `Upstream.download`. */
  readonly fromRegistry: (sink: BlobSink, signal: AbortSignal) => Promise<void>;
  /** To be told whose GET brings the bytes that are written from now on: a repository of this registry; null where nobody can say. */
  readonly through: (repository: string | null) => void;
}

/** Port: brings blobs by way of other gateways, where that saves the registry a request. */
export interface SharedDownloads {
  /** As `Upstream.download`, whose errors it throws too. */
  fetch(download: SharedDownload, sink: BlobSink, signal: AbortSignal): Promise<void>;
}

export interface BlobFillsOptions {
  readonly upstream: Upstream;
  readonly access: RepositoryAccess;
  readonly sizes: BlobSizes;
  /** Ends requests that no client waits for when the gateway stops. */
  readonly lifetime: Lifetime;
  /** Null where this gateway shares its work with no other. */
  readonly shared: SharedDownloads | null;
}

/** For whom a fill is begun. */
export interface FillBeginner {
  readonly client: string;
  /** What is asked for at first; undefined where that is everything. */
  readonly part: Asked | undefined;
  /** The client is another gateway's, which lets it pay. */
  readonly forNode?: boolean;
  /** Called when the fill has ended, where this call has started it. */
  readonly ended?: () => void;
}

/** Starts fills of blobs, each with its proof: what its registry said and gave is noted for the repository that it was asked of. */
export class BlobFills {
  readonly #options: BlobFillsOptions;
  /** Proof that a repository holds a blob: one upstream request, or the start of one fill, for all who ask at the same time. */
  readonly #proofs = new SingleFlight<boolean>();
  readonly #stats = new SingleFlight<number | undefined>();

  constructor(options: BlobFillsOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the blob has begun to come, or comes already, and this repository is known to hold it: to true where this call has started the fill.
   * @throws {RegistryError} the upstream's own
   * @throws {CacheError} where the cache failed
   */
  async begin(
    blobs: BlobCache,
    { client, ...by }: FillBeginner,
    entry: RegistryEntry,
    key: HeldBlobKey,
  ): Promise<boolean> {
    let isOwn = false;
    const start = (askers: Askers): Promise<boolean> => {
      isOwn = true;
      return this.#start(blobs, { client, askers, ...by }, entry, key);
    };
    const prove = () => this.#proofs.do(flightId(entry, key, contentId(key, key.digest)), start, client);
    // That the one who began it has no quota left is nobody else's trouble: the next one begins it.
    for (;;) {
      try {
        return (await prove()) && isOwn;
      } catch (error) {
        if (isOwn || !(error instanceof RegistryError) || error.kind !== 'tooManyRequests') throw error;
      }
    }
  }

  /**
   * Asks the registry whether this repository holds the blob, once for all who ask at the same time.
   * @param right as for `stat`
   */
  async prove(entry: RegistryEntry, key: HeldBlobKey, client: string, right?: number): Promise<void> {
    const stat = async (askers: Askers) => {
      await this.stat(entry, key, askers, right);
      return false;
    };
    await this.#proofs.do(flightId(entry, key, contentId(key, key.digest)), stat, client);
  }

  /** @param right the size of the verified blob, where it is here: a registry that claims another has not shown that it holds it */
  stat(entry: RegistryEntry, key: HeldBlobKey, by: string | Askers, right?: number): Promise<number | undefined> {
    const { upstream, access, lifetime } = this.#options;
    const stat = async (askers: Askers): Promise<number | undefined> => {
      const asked = access.denials.now;
      const { size } = await lifetime.run((signal) => upstream.statBlob(key, signal, askers));
      if (!canHaveSize(key.digest, size) || (right !== undefined && size !== undefined && size !== right)) {
        throw wrongSize(key, size, right);
      }
      access.said(entry, key, [key.digest], asked);
      return size;
    };
    return this.#stats.do(flightId(entry, key, contentId(key, key.digest)), stat, by);
  }

  /** To be called when a repository has given the blob: unless its registry has closed it since it was asked. */
  gave(entry: RegistryEntry, key: HeldBlobKey, by: () => RepositoryKey | null = () => key): () => void {
    const { access } = this.#options;
    const asked = access.denials.now;
    return () => {
      const giver = by();
      if (giver !== null) access.gave(entry, giver, key.digest, asked);
    };
  }

  async #start(
    blobs: BlobCache,
    { client, askers, part, forNode = false, ended }: FillBeginner & { readonly askers: Askers },
    entry: RegistryEntry,
    key: HeldBlobKey,
  ): Promise<boolean> {
    const { access, sizes } = this.#options;
    // What the second level has is some registry's: it serves whoever may be given kept content.
    const tier = await access.mayServeShared(entry, key, key.digest);
    // Another repository of this registry may have begun a fill since this one looked. That fill's bytes do not show that this repository holds
    // the blob, and its failure does not show the contrary.
    const other = blobs.growing(key);
    const known = access.knows(entry, key, key.digest);
    const { fetch, giver } = this.#fetch(key, { forNode, known });
    const options: FillOptions = {
      client,
      askers,
      unpaid: forNode,
      tier,
      known,
      expectedSize: sizes.get(key, key.digest),
      gave: this.gave(entry, key, giver),
      ended,
      wrong: () => access.disproved(key),
      ...(part === undefined ? {} : { part }),
    };
    const asked = access.denials.now;
    const handle = other ?? blobs.fill(key, fetch, options);
    try {
      if (other === null) {
        await handle.size();
        if (!tier) access.said(entry, key, [key.digest], asked);
      } else if (!access.knows(entry, key, key.digest)) await this.stat(entry, key, askers);
      return other === null;
    } finally {
      handle.release();
    }
  }

  /** Brings the blob; `giver` says afterwards whose GET brought the end of it. */
  #fetch(
    key: HeldBlobKey,
    of: Pick<SharedDownload, 'forNode' | 'known'>,
  ): { readonly fetch: Fetch; readonly giver: () => RepositoryKey | null } {
    const { upstream, shared } = this.#options;
    if (shared === null) {
      return { fetch: (sink, signal, askers) => upstream.download(key, sink, signal, askers), giver: () => key };
    }
    let repository: string | null = key.repository;
    const fetch: Fetch = (sink, signal, askers) =>
      shared.fetch(
        {
          ...of,
          key,
          askers,
          fromRegistry: (to, until) => {
            repository = key.repository;
            return upstream.download(key, to, until, askers);
          },
          through: (giving) => {
            repository = giving;
          },
        },
        sink,
        signal,
      );
    return { fetch, giver: () => (repository === null ? null : { registry: key.registry, repository }) };
  }
}
