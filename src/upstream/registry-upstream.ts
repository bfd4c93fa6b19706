import type { Config } from '../config/config.ts';
import type { Askers } from '../kit/askers.ts';
import type { PoolLimits } from '../kit/fair-pool.ts';
import { allCredentials, forRepository } from '../oci/credentials.ts';
import { RegistryError } from '../oci/errors.ts';
import type { BlobKey, Digest, Reference, RepositoryKey } from '../oci/names.ts';
import type { BlobSink, BlobStream } from '../oci/transfer.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { secretsOf, Tokens } from './authorization.ts';
import { Budgets } from './budgets.ts';
import { type UpstreamContext, upstreamMetrics } from './context.ts';
import { asDocument, DOCUMENT_MS, type DocumentWork } from './document-deadline.ts';
import { readManifest, readManifestHead, readReferrers, readTags } from './document-responses.ts';
import { openBlob, resumable, statBlob } from './download/blob-stream.ts';
import { download } from './download/download.ts';
import { ParallelHosts } from './download/host-parallelism.ts';
import { projectOf } from './endpoint-url.ts';
import { Endpoints, tryEndpoints } from './endpoints.ts';
import { BudgetError, type RequestSubject, SinkError, StatusError, toRegistryError } from './failures.ts';
import { HeadOrGet } from './head-or-get.ts';
import { OutgoingConnections } from './net/connections.ts';
import { ProxyChoice } from './net/egress.ts';
import { Trust } from './net/trust.ts';
import { MAX_WAIT_MS, Pools, type Purpose } from './pools.ts';
import { ReferrersApi } from './referrers-api.ts';
import { manifestRequestHeaders, Requester } from './request.ts';
import { RequestMetrics } from './request-metrics.ts';
import { discardWhole, type UpstreamResponse } from './responses.ts';
import {
  type BudgetRow,
  type EndpointHealth,
  type ListPage,
  type ManifestOptions,
  type ReferrersRequest,
  type Route,
  rowOf,
  type TagsRequest,
  type Upstream,
  type UpstreamManifest,
  type Wellbeing,
} from './upstream.ts';

/**
 * Connections in use at one time: a third of the 1024 file descriptors that every process may open. Groups are registries, those who ask
 * are clients, and items repositories.
 *
 * A fill holds a file too, and up to 1 MiB of what waits for the disk and of what came last; it can rest at any time. A document can only be
 * ended, so that a quarter of those permits is never lent, and none is asked back at once. For one registry there are no more additional
 * connections than a handful of downloads can use; each fetches for some seconds, and is left to it. One client, and one repository, leave some
 * of what a registry may have to others, who then need not wait until a holder has been asked to rest.
 */
export const POOLS: Readonly<Record<Purpose, PoolLimits>> = {
  document: { permits: 64, perGroup: 48, perAsker: 36, perItem: 24, safeFor: 2_000, turn: 5_000 },
  fill: { permits: 128, perGroup: 128, perAsker: 112, perItem: 96, safeFor: 0, turn: 5_000 },
  passing: { permits: 64, perGroup: 64, perAsker: 56, perItem: 48, safeFor: 0, turn: 5_000 },
  segment: { permits: 96, perGroup: 24, perAsker: 24, perItem: 24, safeFor: 5_000, turn: 30_000 },
};

/** How much is done at a time, and how long it may take; tests have less. */
export interface UpstreamLimits {
  readonly pools: Readonly<Record<Purpose, PoolLimits>>;
  /** The longest wait for a connection, ms. */
  readonly wait: number;
  /** The longest that a document takes, ms. */
  readonly document: number;
}

const LIMITS: UpstreamLimits = { pools: POOLS, wait: MAX_WAIT_MS, document: DOCUMENT_MS };

export interface UpstreamOptions {
  /** The registry of this name as the table is now. */
  readonly route: (registry: string) => Route | undefined;
  /** The rows of the table as it is now, for metrics; left out where nobody reads them. */
  readonly rows?: () => Iterable<Route>;
  /** As `Via` names this gateway. */
  readonly pseudonym: string;
  readonly config: Config['upstream'];
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Where the usual proxy variables are read from; default `process.env`. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly limits?: Partial<UpstreamLimits>;
}

/** The upstream with what its owner needs besides. */
export interface ManagedUpstream extends Upstream {
  /** For requests from now on; those under way go on as they began. @throws {OperatorError} `CA_INVALID`; nothing has changed then */
  reconfigure(config: Pick<Config, 'upstream'>): void;
  /** Somebody waits for a connection by which blobs are fetched. */
  readonly isContended: boolean;
}

export function createUpstream(options: UpstreamOptions): ManagedUpstream {
  return new RegistryUpstream(options);
}

class RegistryUpstream implements ManagedUpstream {
  readonly #environment: UpstreamOptions['environment'];
  #config: Config['upstream'];
  readonly #find: UpstreamOptions['route'];
  readonly #connections: OutgoingConnections;
  readonly #context: UpstreamContext;
  readonly #limits: UpstreamLimits;

  constructor({ route, rows = () => [], pseudonym, config, log, metrics, environment, limits }: UpstreamOptions) {
    this.#find = route;
    this.#environment = environment;
    this.#config = config;
    this.#limits = { ...LIMITS, ...limits };
    this.#connections = new OutgoingConnections(
      new ProxyChoice(config.proxy, environment),
      new Trust(config.caFile),
      pseudonym,
    );
    const pools = new Pools(this.#limits.pools, this.#limits.wait);
    const endpoints = new Endpoints({ connect: (endpoint, route) => this.#connections.probe(endpoint, route) });
    const counted = new RequestMetrics(metrics);
    const tokens = new Tokens(this.#connections, pools, counted);
    const ownLog = log.child({ room: 'upstream' });
    const budgets = new Budgets(metrics, ownLog);
    this.#context = {
      requester: new Requester(this.#connections, tokens, pools, () => this.#config.stallTimeout, counted, budgets),
      endpoints,
      budgets,
      headOrGet: new HeadOrGet(() => this.#config.stallTimeout),
      referrersApi: new ReferrersApi(),
      parallelHosts: new ParallelHosts(ownLog),
      pools,
      config: () => this.#config,
      log: ownLog,
      metrics: upstreamMetrics(metrics, { pools, endpoints, rows }),
    };
  }

  get isContended(): boolean {
    return this.#context.pools.waiting('fill') > 0;
  }

  reconfigure({ upstream }: Pick<Config, 'upstream'>): void {
    this.#connections.reconfigure(new ProxyChoice(upstream.proxy, this.#environment), new Trust(upstream.caFile));
    this.#config = upstream;
  }

  manifest(key: RepositoryKey, reference: Reference, options: ManifestOptions): Promise<UpstreamManifest> {
    const { method, accept, signal, askers, sparing = false } = options;
    const text = reference.kind === 'tag' ? reference.tag : reference.digest;
    const path = `/v2/${key.repository}/manifests/${text}`;
    const headers = manifestRequestHeaders(accept);
    const { requester, headOrGet, metrics } = this.#context;
    const subject = subjectOf(key, 'manifestUnknown', text);
    // Elsewhere the tag may be an older one.
    const isFinal = (error: unknown) => sparing && reference.kind === 'tag' && error instanceof BudgetError;
    const work = { signal, askers, isFinal };
    return this.#document(subject, work, async (route, endpoint, { signal: within, holder, origin }) => {
      const request = {
        route,
        endpoint,
        path,
        what: 'manifests',
        headers,
        sparing,
        repository: key.repository,
        purpose: 'document',
        holder,
      } as const;
      const send = (by: typeof method, signal: AbortSignal) => requester.send({ ...request, signal, method: by });
      const get = async (signal: AbortSignal): Promise<UpstreamManifest> => {
        const manifest = await readManifest(await send('GET', signal), endpoint, reference, origin);
        metrics.bytes.inc({ registry: rowOf(route) }, manifest.size ?? 0);
        return manifest;
      };
      if (method === 'GET') return await get(within);
      const head = async (signal: AbortSignal) =>
        await readManifestHead(await send('HEAD', signal), endpoint, reference);
      return await headOrGet.ask(endpoint, 'manifest', within, { head, get });
    });
  }

  statBlob(key: BlobKey, signal: AbortSignal, askers?: Askers): Promise<{ readonly size: number | undefined }> {
    const subject = subjectOf(key, 'blobUnknown', key.digest);
    return this.#document(subject, { signal, askers }, (route, endpoint, work) =>
      statBlob(this.#context, route, endpoint, key, work),
    );
  }

  async openBlob(
    key: BlobKey,
    range: { from: number; to?: number } | null,
    signal: AbortSignal,
    askers?: Askers,
    expectedSize?: number,
  ): Promise<BlobStream> {
    const open = (segment: typeof range, goesOn: boolean): Promise<BlobStream> =>
      this.#tryEndpoints(subjectOf(key, 'blobUnknown', key.digest), signal, (route, endpoint) =>
        openBlob(this.#context, route, endpoint, key, segment, signal, { askers, goesOn, expectedSize }),
      );
    return resumable(await open(range, false), (rest) => open(rest, true), signal);
  }

  async download(key: BlobKey, sink: BlobSink, signal: AbortSignal, askers?: Askers): Promise<void> {
    const subject = subjectOf(key, 'blobUnknown', key.digest);
    const route = this.#route(key);
    try {
      await download(this.#context, route, key, sink, signal, askers);
    } catch (error) {
      // The owner of the sink gets its own error back.
      if (error instanceof SinkError) throw error.cause;
      signal.throwIfAborted();
      throw toRegistryError(error, { ...subject, hidden: this.#hidden(key.registry, route) });
    }
  }

  tags(key: RepositoryKey, request: TagsRequest, signal: AbortSignal, askers?: Askers): Promise<ListPage> {
    const path = `/v2/${key.repository}/tags/${request.page}`;
    const subject = subjectOf(key, 'nameUnknown', 'tags/list');
    return this.#document(subject, { signal, askers }, async (route, endpoint, work) => {
      let response = await this.#get(route, endpoint, { what: 'tags', path }, key, work);
      if (response.status === 400 && request.n !== undefined) {
        // More than it gives at once (distribution: PAGINATION_NUMBER_INVALID): as many as it likes are pages for the client too.
        await discardWhole(response.body);
        response = await this.#get(route, endpoint, { what: 'tags', path: withoutPageSize(path) }, key, work);
      }
      return await readTags(response, endpoint, request, work.origin);
    });
  }

  async referrers(
    key: RepositoryKey,
    digest: Digest,
    request: ReferrersRequest,
    signal: AbortSignal,
    askers?: Askers,
  ): Promise<ListPage | null> {
    const path = `/v2/${key.repository}/referrers/${request.page}`;
    const subject = subjectOf(key, 'manifestUnknown', digest);
    const { referrersApi } = this.#context;
    const skips = (endpoint: URL) => referrersApi.isMissing(endpoint);
    if (this.#route(key).endpoints.every((text) => skips(new URL(text)))) return null;
    try {
      return await this.#document(subject, { signal, askers, skips }, (route, endpoint, { signal: within, ...work }) =>
        referrersApi.list({
          endpoint,
          signal: within,
          isKnown: request.isKnown,
          ask: async (own, onRedirect) => {
            const within = { ...work, signal: own };
            const list = { what: 'referrers', path } as const;
            const response = await this.#get(route, endpoint, list, key, within, onRedirect);
            return await readReferrers(response, endpoint, request, work.origin);
          },
        }),
      );
    } catch (error) {
      // Only where all endpoints said so: one that did not answer may have the API.
      const { cause } = error as Error;
      if (cause instanceof StatusError && cause.status === 404) return null;
      throw error;
    }
  }

  countsPulls({ registry, repository }: RepositoryKey): boolean {
    const route = this.#find(registry);
    return route !== undefined && this.#context.budgets.isScarce(route, repository);
  }

  setAside({ registry, repository, digest }: BlobKey, pulls: number, sparing: boolean): void {
    const route = this.#route({ registry, repository });
    const shortage = this.#context.budgets.setAside(route, { repository, sparing }, digest, pulls);
    if (shortage === null) return;
    const subject = { registry, repository, missing: 'manifestUnknown', reference: digest } as const;
    throw toRegistryError(shortage, { ...subject, hidden: this.#hidden(registry, route) });
  }

  budgets(registry?: string): BudgetRow[] {
    const all = this.#context.budgets.rows();
    if (registry === undefined) return all;
    const route = this.#find(registry);
    return route === undefined ? [] : all.filter((row) => row.registry === rowOf(route));
  }

  outOfReach(registry: string): boolean {
    const route = this.#find(registry);
    return route !== undefined && this.#context.endpoints.areOutOfReach(route);
  }

  health(registry: string): EndpointHealth[] {
    const route = this.#find(registry);
    return route === undefined ? [] : this.#context.endpoints.health(route);
  }

  wellbeing(registry: string): Wellbeing {
    const route = this.#find(registry);
    return route === undefined ? 'unknown' : this.#context.endpoints.wellbeing(route);
  }

  close(): Promise<void> {
    return this.#connections.close();
  }

  #get(
    route: Route,
    endpoint: URL,
    list: { readonly what: 'tags' | 'referrers'; readonly path: string },
    { repository }: RepositoryKey,
    { signal, holder }: DocumentWork,
    onRedirect?: (to: URL) => void,
  ): Promise<UpstreamResponse> {
    const headers = { accept: 'application/json, */*' };
    const request = { route, endpoint, ...list, repository, headers, signal, holder, onRedirect };
    return this.#context.requester.send({ ...request, method: 'GET', purpose: 'document' });
  }

  /** Within the time of a document. */
  #document<T>(
    subject: RequestSubject,
    {
      signal,
      askers,
      isFinal = () => false,
      skips = () => false,
    }: {
      signal: AbortSignal;
      askers: Askers | undefined;
      /** See `FailoverOptions`. */
      isFinal?: (error: unknown) => boolean;
      /** Endpoints that need not be asked. */
      skips?: (endpoint: URL) => boolean;
    },
    attempt: (route: Route, endpoint: URL, work: DocumentWork) => Promise<T>,
  ): Promise<T> {
    const limits = { ms: this.#limits.document, what: 'its answer', askers };
    return this.#reporting(subject, signal, (route) =>
      asDocument(rowOf(route), signal, limits, (work) => {
        const { endpoints, log } = this.#context;
        const { repository } = subject;
        const candidates = () => endpoints.candidates(route, repository).filter((endpoint) => !skips(endpoint));
        const options = { route, repository, endpoints, candidates, log, isFinal, signal: work.signal };
        return tryEndpoints(options, (endpoint) => attempt(route, endpoint, work));
      }),
    );
  }

  #tryEndpoints<T>(
    subject: RequestSubject,
    signal: AbortSignal,
    attempt: (route: Route, endpoint: URL) => Promise<T>,
  ): Promise<T> {
    const { endpoints, log } = this.#context;
    const { repository } = subject;
    return this.#reporting(subject, signal, (route) => {
      const options = { route, repository, endpoints, log, signal };
      return tryEndpoints(options, (endpoint) => attempt(route, endpoint));
    });
  }

  /** Makes errors for clients of what went wrong. */
  async #reporting<T>(subject: RequestSubject, signal: AbortSignal, run: (route: Route) => Promise<T>): Promise<T> {
    const route = this.#route(subject);
    try {
      return await run(route);
    } catch (error) {
      signal.throwIfAborted();
      // Some registries distinguish a repository that they do not know from a missing manifest.
      const unknown = error instanceof StatusError && error.status === 404 && error.said.code === 'NAME_UNKNOWN';
      throw toRegistryError(error, {
        ...subject,
        hidden: this.#hidden(subject.registry, route),
        ...(unknown ? { missing: 'nameUnknown' } : {}),
      });
    }
  }

  /** What clients are not to read: of what was asked, and of the row as it is now. */
  #hidden(registry: string, asked: Route): string[] {
    return [...new Set([...hiddenOf(asked), ...hiddenOf(this.#find(registry))])];
  }

  /** As the table has it now, with the credentials of this repository. */
  #route({ registry, repository }: RepositoryKey): Route {
    const route = this.#find(registry);
    if (route === undefined) throw new RegistryError('registryUnknown', { facts: { registry } });
    return forRepository(route, repository);
  }
}

function subjectOf(key: RepositoryKey, missing: RequestSubject['missing'], reference: string): RequestSubject {
  return { registry: key.registry, repository: key.repository, missing, reference };
}

function withoutPageSize(path: string): string {
  const [page = '', text] = path.split('?');
  const query = new URLSearchParams(text);
  query.delete('n');
  return query.size === 0 ? page : `${page}?${query}`;
}

/** What clients are not to read of a registry, even in its own words: where it really is, and what the operator logs in with. */
function hiddenOf(route: Route | undefined): string[] {
  if (route === undefined) return [];
  const endpoints = route.endpoints.map((endpoint) => new URL(endpoint));
  const projects = endpoints.map(projectOf).filter((project) => project !== null);
  const hosts = [...endpoints.map(({ hostname }) => hostname).filter((host) => host !== route.host), ...projects];
  return [...hosts, ...allCredentials(route).flatMap(secretsOf)];
}
