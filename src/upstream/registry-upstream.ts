import type { Config } from '../config/config.ts';
import { RegistryError } from '../oci/errors.ts';
import type { BlobKey, Digest, Reference, RepositoryKey } from '../oci/names.ts';
import type { BlobSink, BlobStream } from '../oci/transfer.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { Tokens } from './authorization.ts';
import { type UpstreamContext, upstreamMetrics } from './context.ts';
import { readManifest, readManifestHead, readReferrers, readTags } from './documents.ts';
import { openBlob, resumable, statBlob } from './download/blob-stream.ts';
import { download } from './download/download.ts';
import { SingleConnectionHosts } from './download/parallelism.ts';
import { Endpoints, tryEndpoints } from './endpoints.ts';
import { type RequestSubject, SinkError, StatusError, toRegistryError } from './failures.ts';
import { OutgoingConnections } from './net/connections.ts';
import { ProxyChoice } from './net/egress.ts';
import { type PoolLimits, Pools, type Purpose } from './pools.ts';
import { manifestRequestHeaders, Requester } from './request.ts';
import type { UpstreamResponse } from './responses.ts';
import type { EndpointHealth, ListPage, Route, TagsRequest, Upstream, UpstreamManifest } from './upstream.ts';

/**
 * Connections in use at one time: a third of the 1024 file descriptors that every process may open.
 *
 * A fill holds a file too, up to 256 KiB that wait for the disk, and the last 128 KiB that came; it can rest at any time. A document can
 * only be ended, so that a quarter of those permits is never lent, and those who wait have patience. For one registry there are no more
 * additional connections than a handful of downloads can use; they need not rest, since they end with their downloads.
 */
const POOLS: Readonly<Record<Purpose, PoolLimits>> = {
  document: { permits: 64, perRegistry: 48, perGroup: 24, safeFor: 2_000, turn: 5_000 },
  fill: { permits: 128, perRegistry: 128, perGroup: 96, safeFor: 0, turn: 5_000 },
  passing: { permits: 64, perRegistry: 64, perGroup: 48, safeFor: 0, turn: 5_000 },
  segment: { permits: 96, perRegistry: 24, perGroup: 24, safeFor: 0, turn: 5_000 },
};

export interface UpstreamOptions {
  /** The table as it is now: the registries there are, by host. */
  readonly table: () => { readonly registries: ReadonlyMap<string, Route> };
  readonly config: Config['upstream'];
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Where the usual proxy variables are read from; default `process.env`. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

export function createUpstream(options: UpstreamOptions): Upstream {
  return new RegistryUpstream(options);
}

class RegistryUpstream implements Upstream {
  readonly #table: UpstreamOptions['table'];
  readonly #connections: OutgoingConnections;
  readonly #context: UpstreamContext;

  constructor({ table, config, log, metrics, environment }: UpstreamOptions) {
    this.#table = table;
    this.#connections = new OutgoingConnections(new ProxyChoice(config.proxy, environment));
    const pools = new Pools(POOLS);
    const tokens = new Tokens(this.#connections, pools);
    this.#context = {
      requester: new Requester(this.#connections, tokens, pools, config.stallTimeout),
      endpoints: new Endpoints(),
      singleConnectionHosts: new SingleConnectionHosts(),
      pools,
      config,
      log: log.child({ room: 'upstream' }),
      metrics: upstreamMetrics(metrics, pools),
    };
  }

  manifest(
    key: RepositoryKey,
    reference: Reference,
    { method, accept, signal }: { method: 'GET' | 'HEAD'; accept: string | undefined; signal: AbortSignal },
  ): Promise<UpstreamManifest> {
    const text = reference.kind === 'tag' ? reference.tag : reference.digest;
    const path = `/v2/${key.repository}/manifests/${text}`;
    const headers = manifestRequestHeaders(accept);
    return this.#tryEndpoints(subjectOf(key, 'manifestUnknown', text), signal, async (route, endpoint) => {
      const request = {
        route,
        endpoint,
        path,
        repository: key.repository,
        headers,
        signal,
        purpose: 'document',
      } as const;
      if (method === 'HEAD') {
        const head = await readManifestHead(
          await this.#context.requester.send({ ...request, method: 'HEAD' }),
          endpoint,
          reference,
        );
        if (head !== null) return head;
      }
      const response = await this.#context.requester.send({ ...request, method: 'GET' });
      const manifest = await readManifest(response, endpoint, reference);
      this.#context.metrics.bytes.inc({ registry: route.host }, manifest.size ?? 0);
      return method === 'HEAD' ? { ...manifest, body: null, named: [] } : manifest;
    });
  }

  statBlob(key: BlobKey, signal: AbortSignal): Promise<{ readonly size: number | undefined }> {
    return this.#tryEndpoints(subjectOf(key, 'blobUnknown', key.digest), signal, (route, endpoint) =>
      statBlob(this.#context, route, endpoint, key, signal),
    );
  }

  async openBlob(key: BlobKey, range: { from: number; to?: number } | null, signal: AbortSignal): Promise<BlobStream> {
    const open = (segment: typeof range, goesOn: boolean): Promise<BlobStream> =>
      this.#tryEndpoints(subjectOf(key, 'blobUnknown', key.digest), signal, (route, endpoint) =>
        openBlob(this.#context, route, endpoint, key, segment, signal, goesOn),
      );
    return resumable(await open(range, false), (rest) => open(rest, true), signal);
  }

  async download(key: BlobKey, sink: BlobSink, signal: AbortSignal): Promise<void> {
    const subject = subjectOf(key, 'blobUnknown', key.digest);
    const route = this.#route(key.registry);
    try {
      await download(this.#context, route, key, sink, signal);
    } catch (error) {
      // The owner of the sink gets its own error back.
      if (error instanceof SinkError) throw error.cause;
      signal.throwIfAborted();
      throw toRegistryError(error, subject);
    }
  }

  tags(key: RepositoryKey, request: TagsRequest, signal: AbortSignal): Promise<ListPage> {
    const path = `/v2/${key.repository}/tags/list${search(request.query)}`;
    return this.#tryEndpoints(subjectOf(key, 'nameUnknown', 'tags/list'), signal, async (route, endpoint) =>
      readTags(await this.#get(route, endpoint, path, key, signal), endpoint, request),
    );
  }

  referrers(key: RepositoryKey, digest: Digest, query: URLSearchParams, signal: AbortSignal): Promise<ListPage | null> {
    const path = `/v2/${key.repository}/referrers/${digest}${search(query)}`;
    return this.#tryEndpoints(subjectOf(key, 'manifestUnknown', digest), signal, async (route, endpoint) => {
      let elsewhere = false;
      const onRedirect = (to: URL): void => {
        elsewhere = to.origin !== endpoint.origin;
      };
      try {
        return await readReferrers(await this.#get(route, endpoint, path, key, signal, onRedirect), endpoint);
      } catch (error) {
        signal.throwIfAborted();
        // That a web host cannot be reached is no failure of the registry that redirects to it.
        if (elsewhere && !(error instanceof StatusError)) return null;
        throw error;
      }
    });
  }

  health(registry: string): EndpointHealth[] {
    const route = this.#table().registries.get(registry);
    return route === undefined ? [] : this.#context.endpoints.health(route);
  }

  close(): Promise<void> {
    return this.#connections.close();
  }

  #get(
    route: Route,
    endpoint: URL,
    path: string,
    key: RepositoryKey,
    signal: AbortSignal,
    onRedirect?: (to: URL) => void,
  ): Promise<UpstreamResponse> {
    const { repository } = key;
    return this.#context.requester.send({
      route,
      endpoint,
      path,
      repository,
      method: 'GET',
      headers: { accept: 'application/json, */*' },
      signal,
      purpose: 'document',
      onRedirect,
    });
  }

  async #tryEndpoints<T>(
    subject: RequestSubject,
    signal: AbortSignal,
    attempt: (route: Route, endpoint: URL) => Promise<T>,
  ): Promise<T> {
    const route = this.#route(subject.registry);
    const { endpoints, log } = this.#context;
    try {
      return await tryEndpoints({ route, endpoints, log, signal }, (endpoint) => attempt(route, endpoint));
    } catch (error) {
      signal.throwIfAborted();
      // Some registries distinguish a repository that they do not know from a missing manifest.
      const unknown = error instanceof StatusError && error.status === 404 && error.code === 'NAME_UNKNOWN';
      throw toRegistryError(error, unknown ? { ...subject, missing: 'nameUnknown' } : subject);
    }
  }

  #route(registry: string): Route {
    const route = this.#table().registries.get(registry);
    if (route === undefined) throw new RegistryError('registryUnknown', { facts: { registry } });
    return route;
  }
}

function subjectOf(key: RepositoryKey, missing: RequestSubject['missing'], reference: string): RequestSubject {
  return { registry: key.registry, repository: key.repository, missing, reference };
}

function search(query: URLSearchParams): string {
  return query.size === 0 ? '' : `?${query}`;
}
