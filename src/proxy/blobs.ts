import type { RegistryEntry } from '../aliases/table.ts';
import type { FillBudget } from '../cache/allowance.ts';
import type { BlobCache, BlobHandle, OpenOptions } from '../cache/blob-cache.ts';
import { CacheError } from '../cache/blob-cache.ts';
import type { Asked } from '../cache/wishes.ts';
import type { ByteSource } from '../kit/byte-source.ts';
import type { Extent } from '../kit/interval-set.ts';
import { RegistryError } from '../oci/errors.ts';
import { type BlobKey, contentId } from '../oci/names.ts';
import {
  contentRange,
  coverAll,
  isSatisfiable,
  joinTinyRanges,
  parseRange,
  type RangeSpec,
  resolveRanges,
  unsatisfied,
} from '../oci/range.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { BlobFills, HeldBlobKey } from './blob-fills.ts';
import type { BlobSizes } from './blob-sizes.ts';
import { ExactSource, Passthrough, wrongSize } from './passthrough.ts';
import { exceeds, multipart, WithCleanup } from './ranges.ts';
import type { Redirects } from './redirect.ts';
import { blobHeaders, matchesNone, notModified, type Pull, type Reply, rangeApplies } from './reply.ts';
import { NegativeCache, type RepositoryAccess } from './repository-access.ts';

/** Why a blob's bytes went past the cache, for the metric. */
export type PassthroughReason = 'not-kept' | 'cache-failed';

export interface BlobsOptions {
  readonly upstream: Upstream;
  /** As it is now; null where nothing is kept. */
  readonly blobs: () => BlobCache | null;
  readonly access: RepositoryAccess;
  readonly fills: BlobFills;
  readonly redirects: Redirects;
  readonly sizes: BlobSizes;
  readonly now: () => number;
  /** Called for each reply that went past the cache. */
  readonly onPassthrough: (reason: PassthroughReason) => void;
  /** Called for bytes that come past the cache in the middle of a reply that began from it, for this client. */
  readonly fetched: ((client: string, bytes: number) => void) | undefined;
  /** A client's quotas. */
  readonly budget: ((client: string) => FillBudget | null) | undefined;
}

/**
 * Serves blobs: from the cache where this repository may have them, from a file that a fill is still writing, or straight from the upstream
 * (passthrough).
 */
export class Blobs {
  readonly #options: BlobsOptions;
  readonly #passthrough: Passthrough;
  readonly #missing: NegativeCache;

  constructor(options: BlobsOptions) {
    this.#options = options;
    this.#passthrough = new Passthrough(options.upstream);
    this.#missing = new NegativeCache(options.now);
  }

  /** @throws {RegistryError} the upstream's own, rangeNotSatisfiable */
  async serve(pull: Pull, entry: RegistryEntry, key: HeldBlobKey): Promise<Reply> {
    const blobs = this.#options.blobs();
    const elsewhere = await this.#options.redirects.find(pull, entry, key);
    if (elsewhere !== null) return elsewhere;
    return (
      (await this.#serveFrom(blobs?.kept(key.digest) ?? null, pull, entry, key)) ??
      (await this.#serveFrom(blobs?.growing(key, pull.client) ?? null, pull, entry, key)) ??
      this.#notHere(pull, entry, key)
    );
  }

  clear(): void {
    this.#missing.clear();
  }

  /**
   * From what the cache has: kept content where this repository may have it, what its own registry is just bringing where the repository is known
   * to hold it. Null where neither is so; kept content may be closed to this registry, which then brings a copy of its own.
   */
  async #serveFrom(
    handle: BlobHandle | null,
    pull: Pull,
    entry: RegistryEntry,
    key: HeldBlobKey,
  ): Promise<Reply | null> {
    if (handle === null) return null;
    const { access } = this.#options;
    const { complete } = handle;
    const may = () => (complete ? access.mayServe(entry, key, key.digest) : access.knows(entry, key, key.digest));
    try {
      if (!may() && !(complete && (await access.mayServeShared(entry, key, key.digest)))) {
        if (!access.knows(entry, key, key.digest) && !(await this.#isProved(pull, entry, key, handle))) return null;
        if (!may()) return null;
      }
      // A fill that fails before it began may be another repository's: that failure says nothing about this repository, and its reason is not for this client.
      return (await isBegun(handle)) ? await this.#fromHandle(pull, key, handle) : null;
    } catch (error) {
      access.failed(key, error);
      throw error;
    } finally {
      handle.release();
    }
  }

  async #notHere(pull: Pull, entry: RegistryEntry, key: HeldBlobKey): Promise<Reply> {
    const id = contentId(key, key.digest);
    this.#missing.check(id);
    try {
      return await this.#fromUpstream(pull, entry, key);
    } catch (error) {
      this.#options.access.failed(key, error);
      this.#missing.note(id, error);
      throw error;
    }
  }

  /** Nothing of the blob is in the cache. */
  async #fromUpstream(pull: Pull, entry: RegistryEntry, key: HeldBlobKey): Promise<Reply> {
    const { access, fills } = this.#options;
    const blobs = this.#options.blobs();
    const known = matchesNone(pull.ifNoneMatch, key.digest);
    if (pull.method === 'HEAD' || known) {
      const size = await this.#size(entry, key, pull.client);
      return known ? notModified(key.digest, { from: 'upstream' }) : head(key, size, { from: 'upstream' });
    }
    const specs = rangesOf(pull, key);
    if (specs?.some(isSatisfiable) === false) {
      const size = await this.#size(entry, key, pull.client);
      if (size !== 0) throw notSatisfiable(pull, size);
    }
    const keeps = blobs?.accepts(key) === true;
    if (specs === null) this.#requireQuota(pull, key, keeps);
    if (blobs === null || !keeps) return this.#passThrough(pull, entry, key, specs, 'not-kept');
    const part = specs === null ? undefined : await this.#firstPart(entry, key, specs, pull.client);
    try {
      await fills.begin(blobs, { client: pull.client, part }, entry, key);
    } catch (error) {
      if (!(error instanceof CacheError)) throw error;
      return this.#passThrough(pull, entry, key, specs, 'cache-failed');
    }
    const handle =
      blobs.growing(key, pull.client) ?? (access.mayServe(entry, key, key.digest) ? blobs.kept(key.digest) : null);
    // It came whole but could not be kept, or failed just now; the upstream says which.
    if (handle === null) return this.#passThrough(pull, entry, key, specs, 'cache-failed');
    try {
      const reply = (await isBegun(handle)) ? await this.#fromHandle(pull, key, handle) : null;
      if (reply !== null) return reply;
    } finally {
      handle.release();
    }
    return this.#passThrough(pull, entry, key, specs, 'cache-failed');
  }

  /** Nothing is begun for a client that may not have it. @throws {RegistryError} tooManyRequests */
  #requireQuota({ client }: Pull, key: BlobKey, keeps: boolean): void {
    const { budget, sizes } = this.#options;
    const size = sizes.get(key, key.digest);
    const quotas = size === undefined ? null : (budget?.(client) ?? null);
    if (quotas === null || size === undefined) return;
    // Of what is kept a part may be here already: what is missing is known when the fill begins.
    quotas.promise(keeps ? 0 : size, size);
    quotas.close();
  }

  /** What a reader of these ranges will ask for at first; undefined where that is everything. */
  async #firstPart(
    entry: RegistryEntry,
    key: HeldBlobKey,
    specs: readonly RangeSpec[],
    client: string,
  ): Promise<Asked | undefined> {
    const spec = specs.find(isSatisfiable);
    if (spec?.kind === 'from') return { ...spec, openEnded: spec.to === undefined };
    const size = this.#options.sizes.get(key, key.digest) ?? (await this.#options.fills.stat(entry, key, client));
    if (spec === undefined || size === undefined || size === 0) return undefined;
    return { from: Math.max(0, size - spec.length), to: size, openEnded: false };
  }

  /**
   * The blob is in the cache, but this repository is not known to hold it, or its registry has closed it since: the upstream decides. A
   * blob that it denies, it has denied to a GET; where it claims what cannot be true, only a GET of the blob can tell.
   */
  async #isProved(
    pull: Pull,
    entry: RegistryEntry,
    key: HeldBlobKey,
    { complete, knownSize }: BlobHandle,
  ): Promise<boolean> {
    const id = contentId(key, key.digest);
    this.#missing.check(id);
    try {
      const right = complete ? knownSize : undefined;
      await this.#options.fills.prove(entry, key, pull.client, right);
      return true;
    } catch (error) {
      if (pull.method === 'GET' && error instanceof RegistryError && error.kind === 'upstreamWrong') return false;
      this.#missing.note(id, error);
      throw error;
    }
  }

  async #size(entry: RegistryEntry, key: HeldBlobKey, client: string): Promise<number | undefined> {
    const { access, fills, sizes } = this.#options;
    const size = access.knows(entry, key, key.digest) ? sizes.get(key, key.digest) : undefined;
    return size ?? fills.stat(entry, key, client);
  }

  /** Null where the fill has failed that would bring what is asked for. */
  async #fromHandle(pull: Pull, key: HeldBlobKey, handle: BlobHandle): Promise<Reply | null> {
    const announced = await handle.size();
    // What a manifest of this repository says of a blob that is still coming: the verified one needs nobody's word.
    const expected = handle.complete ? undefined : this.#options.sizes.get(key, key.digest);
    if (announced !== undefined && expected !== undefined && announced !== expected) {
      throw wrongSize(key, announced, expected);
    }
    const size = announced ?? expected;
    const from = handle.complete ? 'cache' : 'fill';
    const origin = { from, since: handle.since } as const;
    if (matchesNone(pull.ifNoneMatch, key.digest)) return notModified(key.digest, origin);
    if (pull.method === 'HEAD') return head(key, size, origin);
    const specs = rangesOf(pull, key);
    const { fetched } = this.#options;
    const options: OpenOptions = {
      byAnother: handle.repository !== null && handle.repository !== key.repository,
      continueFrom: (offset) => {
        this.#options.onPassthrough('cache-failed');
        return this.#passthrough.rest(key, offset, pull, (bytes) => fetched?.(pull.client, bytes));
      },
    };
    const whole = async (): Promise<Reply | null> => {
      const body = await openComing(handle, undefined, options);
      if (body === null) return null;
      const exact = announced === undefined && size !== undefined ? new ExactSource(body, size) : body;
      return { status: 200, headers: blobHeaders(key.digest, size), body: exact, ...origin };
    };
    // A part of what has no known end cannot be described; the whole is the answer then (RFC 9110, 14.2).
    // Of nothing no part can be asked for, and clients that send a Range with every request want no error.
    if (specs === null || announced === undefined || size === undefined || size === 0) return whole();
    const asked = resolveRanges(specs, size);
    if (exceeds(asked, size)) return whole();
    const extents = joinTinyRanges(asked);
    const [extent] = extents;
    if (extent === undefined) throw notSatisfiable(pull, size);
    if (extents.length > 1) return this.#several(key, handle, extents, size, options);
    const [spec] = specs;
    const openEnded = specs.length === 1 && spec?.kind === 'from' && spec.to === undefined;
    const body = await openComing(handle, extent, { ...options, openEnded });
    if (body === null) return null;
    return {
      status: 206,
      headers: {
        ...blobHeaders(key.digest, extent.to - extent.from),
        'content-range': contentRange(extent, size),
      },
      body,
      ...origin,
    };
  }

  async #several(
    key: HeldBlobKey,
    handle: BlobHandle,
    extents: readonly Extent[],
    size: number,
    options: OpenOptions,
  ): Promise<Reply | null> {
    const first = await openComing(handle, extents[0], options);
    if (first === null) return null;
    await first.close();
    // Parts are opened one after the other; until the last is closed the blob is not evicted.
    const held = handle.hold();
    const wholeReply = coverAll(extents, size);
    const open = (extent: Extent) => held.open(extent, { ...options, wholeReply });
    const { source, contentType } = multipart(extents, size, open);
    return {
      status: 206,
      headers: blobHeaders(key.digest, source.length, contentType),
      body: new WithCleanup(source, () => held.release()),
      from: handle.complete ? 'cache' : 'fill',
      since: handle.since,
    };
  }

  /** Nothing is kept of this blob: a single part or the whole, straight from the upstream. */
  async #passThrough(
    pull: Pull,
    entry: RegistryEntry,
    key: HeldBlobKey,
    specs: readonly RangeSpec[] | null,
    reason: PassthroughReason,
  ): Promise<Reply> {
    const { fills, sizes, onPassthrough } = this.#options;
    onPassthrough(reason);
    const part = specs === null ? null : await this.#part(pull, entry, key, specs);
    if (part !== null) return part;
    const gave = fills.gave(entry, key);
    return this.#passthrough.whole(key, { expected: sizes.get(key, key.digest), gave }, pull);
  }

  /** Null where the answer is rather the whole. */
  async #part(pull: Pull, entry: RegistryEntry, key: HeldBlobKey, specs: readonly RangeSpec[]): Promise<Reply | null> {
    const [spec] = specs;
    if (specs.length !== 1 || spec === undefined) return null;
    let range: { from: number; to?: number | undefined } = { from: 0 };
    if (spec.kind === 'from') range = spec;
    else {
      const size = await this.#size(entry, key, pull.client);
      if (size === undefined || size === 0) return null;
      const [extent] = resolveRanges(specs, size);
      if (extent === undefined) throw notSatisfiable(pull, size);
      range = extent;
    }
    return this.#passthrough.part(key, range, this.#options.sizes.get(key, key.digest), pull);
  }
}

/** Waits until the size is known, or the fill has failed before. */
async function isBegun(handle: BlobHandle): Promise<boolean> {
  if (handle.complete) return true;
  return handle.size().then(
    () => true,
    () => false,
  );
}

/** Opens a source once what it lacks first is on its way; null where the fill will not bring it. @throws {RegistryError} the upstream's own */
async function openComing(
  handle: BlobHandle,
  extent: Extent | undefined,
  options: OpenOptions,
): Promise<ByteSource | null> {
  const source = handle.open(extent, options);
  if (handle.complete) return source;
  try {
    await handle.coming(extent?.from);
    return source;
  } catch (error) {
    await source.close();
    // What its registry answers to this repository is the answer; whatever else ended the fill, the registry is asked anew.
    if (options.byAnother !== true && error instanceof RegistryError && error.kind.startsWith('upstream')) throw error;
    return null;
  }
}

function head(key: HeldBlobKey, size: number | undefined, origin: Pick<Reply, 'from' | 'since'>): Reply {
  return { status: 200, headers: blobHeaders(key.digest, size), body: null, ...origin };
}

/** The ranges that a pull asks for; null where it wants the whole, or what it has does not fit to this. */
function rangesOf({ range, ifRange }: Pull, { digest }: HeldBlobKey): RangeSpec[] | null {
  return range !== undefined && rangeApplies(ifRange, digest) ? parseRange(range) : null;
}

function notSatisfiable(pull: Pull, size: number | undefined): RegistryError {
  const { what } = pull.target;
  return new RegistryError('rangeNotSatisfiable', {
    facts: { range: (pull.range ?? '').slice(0, 100), size: size ?? 'unknown' },
    headers: {
      ...(what.kind === 'blob' ? { 'docker-content-digest': what.digest } : {}),
      ...(size === undefined ? {} : { 'content-range': unsatisfied(size) }),
    },
  });
}
