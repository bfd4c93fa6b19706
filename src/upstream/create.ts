import type { Config } from '../config/config.ts';
import type { Digest } from '../oci/digest.ts';
import { RegistryError } from '../oci/errors.ts';
import type { Reference, RepositoryKey } from '../oci/target.ts';
import type { BlobKey, BlobSink, BlobStream } from '../oci/transfer.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { openBlob, statBlob } from './blobs.ts';
import { Budget } from './budget.ts';
import { Connections } from './connections.ts';
import { manifestHeaders, readList, readManifest, readManifestHead } from './documents.ts';
import { download } from './download.ts';
import { Endpoints } from './endpoints.ts';
import { overEndpoints } from './failover.ts';
import { type Asked, StatusError, toRegistryError } from './failures.ts';
import { measure } from './measures.ts';
import { Punishments } from './pieces.ts';
import { ProxyChoice } from './proxies.ts';
import { SinkError } from './pump.ts';
import { Requester } from './request.ts';
import { resumed } from './resumed-source.ts';
import type { Room } from './room.ts';
import { statusError } from './status.ts';
import { Tokens } from './tokens.ts';
import type { EndpointHealth, ListPage, Route, Upstream, UpstreamManifest } from './upstream.ts';

/**
 * Connections at once: a quarter of the 1024 descriptors that a process may count on, some of them for manifests and tokens only, and no more
 * extra ones for one host than a handful of fills can use.
 */
const SOCKETS = { total: 256, fill: 192, piece: 96, piecePerKey: 24 };
/** Downloads at once; each holds a file, up to a quarter of a MiB that waits for the disk, and the 128 KiB that came last. */
const FILLS = { total: 128 };

export interface UpstreamOptions {
  /** The registry's row of the table; undefined where there is none. */
  readonly routes: (registry: string) => Route | undefined;
  readonly config: Config['upstream'];
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Where the usual proxy variables are read; default `process.env`. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

export function createUpstream(options: UpstreamOptions): Upstream {
  return new RegistryUpstream(options);
}

class RegistryUpstream implements Upstream {
  readonly #routes: UpstreamOptions['routes'];
  readonly #connections: Connections;
  readonly #room: Room;

  constructor({ routes, config, log, metrics, environment }: UpstreamOptions) {
    this.#routes = routes;
    this.#connections = new Connections(new ProxyChoice(config.proxy, environment));
    const sockets = new Budget(SOCKETS);
    const fills = new Budget(FILLS);
    const tokens = new Tokens(this.#connections, sockets);
    this.#room = {
      requester: new Requester(this.#connections, tokens, sockets, config.stallTimeout),
      endpoints: new Endpoints(),
      punishments: new Punishments(),
      fills,
      sockets,
      config,
      log: log.child({ room: 'upstream' }),
      metrics: measure(metrics, { fills, sockets }),
    };
  }

  manifest(
    key: RepositoryKey,
    reference: Reference,
    { method, accept, signal }: { method: 'GET' | 'HEAD'; accept: string | undefined; signal: AbortSignal },
  ): Promise<UpstreamManifest> {
    const text = reference.kind === 'tag' ? reference.tag : reference.digest;
    const path = `/v2/${key.repository}/manifests/${text}`;
    const headers = manifestHeaders(accept);
    return this.#ask(asked(key, 'manifestUnknown', text), signal, async (route, endpoint) => {
      const ask = { route, endpoint, path, repository: key.repository, headers, signal, purpose: 'document' } as const;
      if (method === 'HEAD') {
        const head = await readManifestHead(await this.#room.requester.send({ ...ask, method: 'HEAD' }), endpoint);
        if (head !== null) return head;
      }
      const answer = await this.#room.requester.send({ ...ask, method: 'GET' });
      const manifest = await readManifest(answer, endpoint, reference);
      this.#room.metrics.bytes.inc({ registry: route.host }, manifest.size ?? 0);
      return method === 'HEAD' ? { ...manifest, body: null } : manifest;
    });
  }

  statBlob(key: BlobKey, signal: AbortSignal): Promise<{ readonly size: number | undefined }> {
    return this.#ask(asked(key, 'blobUnknown', key.digest), signal, (route, endpoint) =>
      statBlob(this.#room, route, endpoint, key, signal),
    );
  }

  async openBlob(key: BlobKey, range: { from: number; to?: number } | null, signal: AbortSignal): Promise<BlobStream> {
    const open = (part: typeof range): Promise<BlobStream> =>
      this.#ask(asked(key, 'blobUnknown', key.digest), signal, (route, endpoint) =>
        openBlob(this.#room, route, endpoint, key, part, signal),
      );
    return resumed(await open(range), open, signal);
  }

  async download(key: BlobKey, sink: BlobSink, signal: AbortSignal): Promise<void> {
    const what = asked(key, 'blobUnknown', key.digest);
    const route = this.#route(key.registry);
    try {
      await download(this.#room, route, key, sink, signal);
    } catch (error) {
      // The sink's own failure is for its owner to understand.
      if (error instanceof SinkError) throw error.cause;
      signal.throwIfAborted();
      throw toRegistryError(error, what);
    }
  }

  tags(key: RepositoryKey, query: URLSearchParams, signal: AbortSignal): Promise<ListPage> {
    const path = `/v2/${key.repository}/tags/list${search(query)}`;
    return this.#ask(asked(key, 'nameUnknown', 'tags/list'), signal, async (route, endpoint) =>
      readList(await this.#get(route, endpoint, path, key, signal), endpoint),
    );
  }

  referrers(key: RepositoryKey, digest: Digest, query: URLSearchParams, signal: AbortSignal): Promise<ListPage | null> {
    const path = `/v2/${key.repository}/referrers/${digest}${search(query)}`;
    return this.#ask(asked(key, 'manifestUnknown', digest), signal, async (route, endpoint) => {
      const answer = await this.#get(route, endpoint, path, key, signal);
      if (answer.status === 200) return await readList(answer, endpoint);
      const error = await statusError(answer, endpoint);
      if (!NO_REFERRERS_API.has(error.status)) throw error;
      return null;
    });
  }

  health(registry: string): EndpointHealth[] {
    const route = this.#routes(registry);
    return route === undefined ? [] : this.#room.endpoints.health(route);
  }

  close(): Promise<void> {
    return this.#connections.close();
  }

  #get(route: Route, endpoint: URL, path: string, key: RepositoryKey, signal: AbortSignal) {
    const { repository } = key;
    return this.#room.requester.send({
      route,
      endpoint,
      path,
      repository,
      method: 'GET',
      headers: { accept: 'application/json, */*' },
      signal,
      purpose: 'document',
    });
  }

  async #ask<T>(what: Asked, signal: AbortSignal, attempt: (route: Route, endpoint: URL) => Promise<T>): Promise<T> {
    const route = this.#route(what.registry);
    const { endpoints, log } = this.#room;
    try {
      return await overEndpoints({ route, endpoints, log, signal }, (endpoint) => attempt(route, endpoint));
    } catch (error) {
      signal.throwIfAborted();
      // A registry that knows the repository answers differently from one that does not; others say the same for both.
      const unknown = error instanceof StatusError && error.status === 404 && error.code === 'NAME_UNKNOWN';
      throw toRegistryError(error, unknown ? { ...what, missing: 'nameUnknown' } : what);
    }
  }

  #route(registry: string): Route {
    const route = this.#routes(registry);
    if (route === undefined) throw new RegistryError('registryUnknown', { facts: { registry } });
    return route;
  }
}

/** Answers of registries that do not know the path. */
const NO_REFERRERS_API = new Set([400, 404, 405, 501]);

function asked(key: RepositoryKey, missing: Asked['missing'], reference: string): Asked {
  return { registry: key.registry, repository: key.repository, missing, reference };
}

function search(query: URLSearchParams): string {
  return query.size === 0 ? '' : `?${query}`;
}
