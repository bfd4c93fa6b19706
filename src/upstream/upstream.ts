import type { Askers } from '../kit/askers.ts';
import type { HasCredentials } from '../oci/credentials.ts';
import type { NamedContent } from '../oci/documents.ts';
import type { Page } from '../oci/link.ts';
import type { BlobKey, Digest, Reference, RepositoryKey } from '../oci/names.ts';
import type { BlobSink, BlobStream } from '../oci/transfer.ts';

/** What is needed to fetch from a registry; a `RegistryEntry` of the alias table has it. Requests go out with what `forRepository` makes of it. */
export interface Route extends HasCredentials {
  readonly host: string;
  /** The pattern of the row that it comes from, where it has none of its own. */
  readonly pattern?: string;
  readonly endpoints: readonly string[];
  readonly proxy: string | null;
  /** Hosts outside its own domain that may be sent its credentials. */
  readonly realms: readonly string[];
  /** PEM of authorities that its own hosts' certificates may be signed by, besides those that the machine trusts; null for none. */
  readonly ca: string | null;
}

/** The row of the table, as which a registry counts where connections are shared and in metrics: there is no end of hosts that match a pattern. */
export function rowOf({ host, pattern = host }: Pick<Route, 'host' | 'pattern'>): string {
  return pattern;
}

export interface UpstreamManifest {
  /** Without parameters. */
  readonly mediaType: string;
  /** Computed from the body where there is one, else from `Docker-Content-Digest`; undefined for a HEAD without that header. */
  readonly digest: Digest | undefined;
  readonly size: number | undefined;
  /** The exact bytes; null for HEAD, unless it took a GET to answer it. */
  readonly body: Uint8Array | null;
  /** What the body names. */
  readonly named: readonly NamedContent[];
}

export interface ManifestOptions {
  readonly method: 'GET' | 'HEAD';
  readonly accept: string | undefined;
  readonly signal: AbortSignal;
  readonly askers?: Askers | undefined;
  /**
   * Something kept can be served in its place: it takes no pull that is kept for other images, and of a tag no other endpoint is asked while the
   * first must not be, since it may have an older one.
   */
  readonly sparing?: boolean;
}

/** A page of a list as its registry gave it, whoever asked for it and by whatever way: read, and written anew. */
export interface ListPage {
  /** Of tags the array alone, of referrers the image index; JSON. */
  readonly body: Uint8Array;
  /** Names what is on it (see oci/link-trail.ts); empty where that is nothing. */
  readonly mark: string;
  /** To which the `Link: rel="next"` leads; null on the last. */
  readonly next: Page | null;
  /** The tag after which the next page begins, where the upstream sent more than was asked for; else null. */
  readonly cutAfter: string | null;
}

export interface TagsRequest {
  readonly page: Page;
  /** What the client wants, made good where the upstream knows no pages. */
  readonly n: number | undefined;
  readonly last: string | undefined;
  /** `page` is that of an upstream's own link. */
  readonly isNext: boolean;
}

export interface ReferrersRequest {
  readonly page: Page;
  /** Only referrers of this type are wanted, made good where the upstream does not choose them. */
  readonly artifactType: string | undefined;
  /** The repository has shown that it holds the subject. */
  readonly isKnown: boolean;
}

/**
 * Fetches from registries: endpoint order and health, tokens, redirects, proxies, resumption. Nothing else connects to registries.
 * Every method throws `RegistryError` (oci/errors.ts): upstreamUnauthorized, upstreamDenied, nameUnknown, manifestUnknown, blobUnknown,
 * upstreamRateLimited, upstreamBudgetSpent, upstreamFailed, upstreamTimeout, upstreamWrong, credentialsWithheld, gatewayBusy; an aborted `signal` throws its reason.
 * `askers` are the clients for whom it is done, and whose turn it waits for; left out where none asks.
 */
export interface Upstream {
  manifest(key: RepositoryKey, reference: Reference, options: ManifestOptions): Promise<UpstreamManifest>;
  /** HEAD of a blob, by GET of its first byte where HEAD is refused. */
  statBlob(key: BlobKey, signal: AbortSignal, askers?: Askers): Promise<{ readonly size: number | undefined }>;
  /**
   * One plain GET, streamed, resumed with Range where it breaks off; `range.to` is exclusive. For blobs that are not kept.
   * @param expectedSize of the blob, as its manifest gives it: an answer with another one is wrong
   */
  openBlob(
    key: BlobKey,
    range: { from: number; to?: number } | null,
    signal: AbortSignal,
    askers?: Askers,
    expectedSize?: number,
  ): Promise<BlobStream>;
  /**
   * Fetches what the sink lacks and wishes for, over as many connections, endpoints and attempts as needed. Resolves when every byte has been
   * written, or, where the sink has wishes, when nothing more is wanted: it may be called again then.
   */
  download(key: BlobKey, sink: BlobSink, signal: AbortSignal, askers?: Askers): Promise<void>;
  tags(key: RepositoryKey, request: TagsRequest, signal: AbortSignal, askers?: Askers): Promise<ListPage>;
  /** Null where the registry has no referrers API: the caller falls back to the tag scheme. */
  referrers(
    key: RepositoryKey,
    digest: Digest,
    request: ReferrersRequest,
    signal: AbortSignal,
    askers?: Askers,
  ): Promise<ListPage | null>;
  /** Whether a registry counts GETs of manifests, and allows so few that a HEAD before may be worth its while. */
  countsPulls(key: RepositoryKey): boolean;
  /**
   * Sets so many pulls aside, for a minute, for a manifest and what is asked of its repository next.
   * @param sparing as for {@link manifest}
   * @throws {RegistryError} upstreamBudgetSpent where there are not as many
   */
  setAside(key: BlobKey, pulls: number, sparing: boolean): void;
  /** What registries allow, as far as they said; of one registry, or of all. */
  budgets(registry?: string): BudgetRow[];
  /** Whether no endpoint of a registry could be connected to when it was last tried, so that an answer would be a surprise. */
  outOfReach(registry: string): boolean;
  /** The health of each endpoint, for `registry show` and metrics. */
  health(registry: string): EndpointHealth[];
  /** The same in a word, for those who pull. */
  wellbeing(registry: string): Wellbeing;
  close(): Promise<void>;
}

/**
 * How a registry was when it was last asked: every endpoint that was asked lately answered as it should (`well`); some failed (`partly`); none can be
 * reached, or each failed for several repositories in a row (`down`); none was asked lately (`unknown`).
 */
export type Wellbeing = 'well' | 'partly' | 'down' | 'unknown';

export interface EndpointHealth {
  readonly url: string;
  /** `open`: it cannot be connected to. `half-open`: an attempt to connect is under way. */
  readonly state: 'closed' | 'open' | 'half-open';
  /** Failures to connect in a row. */
  readonly failures: number;
  /** Why it could not be connected to; else what went wrong last, and for which repository. */
  readonly lastError: string | null;
  /** When an open one is tried again by itself, while other endpoints serve, ISO 8601; the next request that needs it does so sooner. */
  readonly retryAt: string | null;
  /** Repositories that failed there last and have not been answered since, the latest first. */
  readonly failing: readonly { readonly repository: string; readonly reason: string; readonly at: string }[];
}

/** What a registry allows one account, or this gateway's address. Times in ISO 8601. */
export interface BudgetRow {
  /** The row of the table. */
  readonly registry: string;
  /** Scheme, host and port. */
  readonly endpoint: string;
  /** The user of the credentials; null for this gateway's address. */
  readonly account: string | null;
  /** Whom the registry says that it counts (`docker-ratelimit-source`). */
  readonly source: string | null;
  readonly limit: number | null;
  readonly remaining: number | null;
  readonly windowSeconds: number | null;
  /** When there is more, at the latest. */
  readonly refillsAt: string;
  /** `pulls`: GETs of manifests are counted. `abuse`: this gateway's address sent too many requests of any kind. */
  readonly kind: 'pulls' | 'abuse';
  /** Until when nothing is asked that would count; null while something is left. */
  readonly restingUntil: string | null;
}
