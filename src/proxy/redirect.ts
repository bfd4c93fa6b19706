import type { RegistryEntry } from '../aliases/table.ts';
import type { SharedContent } from '../cache/shared-store.ts';
import { parseRange, resolveRanges } from '../oci/range.ts';
import type { HeldBlobKey } from './blob-fills.ts';
import { blobHeaders, matchesNone, type Pull, type Reply, rangeApplies } from './reply.ts';
import type { RepositoryAccess } from './repository-access.ts';

export interface RedirectsOptions {
  readonly content: SharedContent | null;
  readonly access: RepositoryAccess;
  /** As it is now: false, true for open content, `all` for what only credentials opened too. */
  readonly redirect: () => boolean | 'all';
}

/** Sends clients to the shared store for complete blobs, where the operator wants that: they have to be able to reach it. */
export class Redirects {
  readonly #options: RedirectsOptions;

  constructor(options: RedirectsOptions) {
    this.#options = options;
  }

  /** Null where the gateway answers itself: HEAD, whoever reads here, what this repository may not be given, and what the store does not have. */
  async find(pull: Pull, entry: RegistryEntry, key: HeldBlobKey): Promise<Reply | null> {
    const { content, access } = this.#options;
    const redirect = this.#options.redirect();
    const { digest } = key;
    if (content === null || redirect === false || pull.direct === true || pull.method === 'HEAD') return null;
    if (matchesNone(pull.ifNoneMatch, digest)) return null;
    if (!(await access.mayServeShared(entry, key, digest))) return null;
    if (redirect !== 'all' && !access.isOpen(digest)) return null;
    const found = await content.link(digest);
    if (found === null) return null;
    const bytes = bytesOf(pull, key, found.size);
    if (bytes === 0) return null;
    const { 'cache-control': _, 'accept-ranges': __, ...headers } = blobHeaders(digest, 0);
    return {
      status: 307,
      // The URL ends, and so does what is said of it.
      headers: { ...headers, location: found.url, 'cache-control': 'no-store' },
      body: null,
      from: 'cache',
      elsewhere: bytes,
    };
  }
}

/** What the client is going to be sent by the store; 0 where it asks for no byte that there is. */
function bytesOf({ range, ifRange }: Pull, { digest }: HeldBlobKey, size: number): number {
  const specs = range !== undefined && rangeApplies(ifRange, digest) ? parseRange(range) : null;
  if (specs === null) return size;
  return Math.min(
    size,
    resolveRanges(specs, size).reduce((sum, { from, to }) => sum + to - from, 0),
  );
}
