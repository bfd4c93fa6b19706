import { Askers } from '../kit/askers.ts';
import type { ByteSource } from '../kit/byte-source.ts';
import type { BlobKey, Digest } from '../oci/names.ts';
import type { BlobSink } from '../oci/transfer.ts';
import { type BlobCache, type BlobHandle, CacheError, type Fetch, type FillOptions } from './blob-cache.ts';
import type { FactStore } from './facts.ts';
import { type FillKey, type Layout, type PartialName, partialName, SharedFile } from './files.ts';
import type { CacheIndex, KeptTag, PinRow, TagPlace } from './index-port.ts';
import type { ListStore } from './list-store.ts';
import type { ManifestStore } from './manifest-store.ts';
import type { OpenBlobs } from './open-blobs.ts';
import { readHeld } from './partial-files.ts';
import type { RunningFills } from './running-fills.ts';
import type { SecondLevel } from './second-level.ts';
import { MemorySource } from './shared-store.ts';
import { UntouchedFacts, UntouchedManifests, UntouchedSharedStore, untouchedLists } from './untouched-stores.ts';

/** The parts of a cache that are looked at. */
export interface LookedAt {
  readonly layout: Layout;
  readonly index: CacheIndex;
  readonly facts: FactStore;
  readonly manifests: ManifestStore;
  readonly lists: ListStore;
  readonly secondLevel: SecondLevel | null;
  readonly maxSize: number;
  readonly accepts: (key: FillKey) => boolean;
  readonly openBlobs: OpenBlobs;
  readonly fills: RunningFills;
}

/**
 * A cache as it is now, for whoever asks what it could give and must not change what it does: no use is counted, nothing that proves damaged is dropped, and
 * nothing is fetched or kept. A fill only finds out whether the bytes would come whole.
 */
export class UntouchedCache implements BlobCache {
  readonly facts: FactStore;
  readonly manifests: UntouchedManifests;
  readonly lists: ListStore;
  /** Null where there is no shared store. */
  readonly shared: UntouchedSharedStore | null;
  readonly #cache: LookedAt;
  /** What a fill has just found elsewhere, until whoever began the fill opens it. */
  readonly #found = new Map<PartialName, number | undefined>();

  constructor(cache: LookedAt, signal: AbortSignal) {
    this.#cache = cache;
    this.facts = new UntouchedFacts(cache.facts);
    this.manifests = new UntouchedManifests(cache.index, cache.manifests);
    this.lists = untouchedLists(cache.lists);
    this.shared = cache.secondLevel === null ? null : new UntouchedSharedStore(cache.secondLevel, signal);
  }

  /** Rows of tags behind this place: see `CacheIndex.tagsAfter`. */
  tagsAfter(place: TagPlace | null, limit: number): KeptTag[] {
    return this.#cache.index.tagsAfter(place, limit);
  }

  /** What operators have pinned. */
  pinned(): readonly PinRow[] {
    return this.#cache.index.pins.all();
  }

  /** Bytes of a blob that are here although all of it is not. */
  heldOf(key: FillKey): number {
    const running = this.#cache.fills.heldBy(key);
    if (running !== null) return running;
    const { layout } = this.#cache;
    const extents = readHeld(layout, key)?.extents ?? [];
    const end = Math.max(0, ...extents.map(({ to }) => to));
    // The next fill takes up nothing of a file that is shorter than its record says.
    if ((sizeOf(layout.partial(partialName(key))) ?? -1) < end) return 0;
    return extents.reduce((sum, { from, to }) => sum + to - from, 0);
  }

  accepts(key: FillKey): boolean {
    return this.#cache.accepts(key);
  }

  isHere({ digest }: FillKey): boolean {
    return this.kept(digest) !== null;
  }

  mayFillAhead(): boolean {
    return false;
  }

  kept(digest: Digest): BlobHandle | null {
    const { index, layout, openBlobs } = this.#cache;
    const row = index.blob(digest);
    if (row === null) {
      // One that has come whole is just being put into the index.
      const arriving = openBlobs.complete(digest);
      return arriving?.size === undefined ? null : new FoundBlob(digest, arriving.size, arriving.since);
    }
    // Its file is going, and its row will.
    if (openBlobs.isBusy(digest) && !openBlobs.isOpen(digest)) return null;
    return sizeOf(layout.blob(digest)) === row.size ? new FoundBlob(digest, row.size, row.created) : null;
  }

  /** What a fill under way brings comes from where nothing can be asked: only what was found elsewhere is here. */
  growing(key: FillKey, client?: string): BlobHandle | null {
    const name = partialName(key);
    if (client === undefined || !this.#found.has(name)) return null;
    const size = this.#found.get(name);
    this.#found.delete(name);
    return new FoundBlob(key.digest, size, Date.now());
  }

  fill(key: BlobKey & FillKey, fetch: Fetch, options: FillOptions = {}): BlobHandle {
    const { client } = options;
    const askers = options.askers ?? new Askers(...(client === undefined ? [] : [client]));
    const seeking = this.#seek(key, options, (sink) => fetch(sink, new AbortController().signal, askers));
    seeking.catch(() => {});
    return new FoundBlob(key.digest, undefined, Date.now(), seeking);
  }

  async close(): Promise<void> {}

  /** The size of the blob where all of it would come. @throws {CacheError} `too-large`; what `fetch` throws */
  async #seek(
    key: BlobKey & FillKey,
    { tier, expectedSize }: FillOptions,
    fetch: (sink: BlobSink) => Promise<void>,
  ): Promise<number | undefined> {
    const shared = tier === true ? await this.shared?.size(key.digest) : null;
    let size = shared ?? undefined;
    if (size === undefined) {
      await fetch({
        held: [],
        begin: (known) => {
          size = known;
        },
        write: async () => {},
        expectedSize,
      });
    }
    if (size !== undefined && size > this.#cache.maxSize)
      throw new CacheError('too-large', `${key.digest} has ${size} bytes, more than the whole cache`);
    this.#found.set(partialName(key), size);
    return size;
  }
}

/** A blob of which all bytes would be given; they are not read. */
class FoundBlob implements BlobHandle {
  readonly digest: Digest;
  readonly complete: boolean;
  readonly knownSize: number | undefined;
  readonly since: number;
  readonly repository = null;
  readonly available = 0;
  readonly #size: Promise<number | undefined>;

  /** @param seeking left out where it is known already that they would be */
  constructor(digest: Digest, size: number | undefined, since: number, seeking?: Promise<number | undefined>) {
    this.digest = digest;
    this.knownSize = size;
    this.since = since;
    this.complete = seeking === undefined;
    this.#size = seeking ?? Promise.resolve(size);
  }

  size(): Promise<number | undefined> {
    return this.#size;
  }

  open(): ByteSource {
    return new MemorySource(new Uint8Array(0));
  }

  async coming(): Promise<void> {}

  hold(): BlobHandle {
    return this;
  }

  release(): void {}
}

/** Opened as a pull would; null where it cannot be. @throws where that says nothing about this file */
function sizeOf(path: string): number | null {
  try {
    const file = SharedFile.open(path, 'r');
    try {
      return file.stat.size;
    } finally {
      file.release();
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EMFILE' || code === 'ENFILE') throw error;
    return null;
  }
}
