import type { RegistryEntry, TableSnapshot } from '../aliases/table.ts';
import type { BlobCache } from '../cache/blob-cache.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import type { Config } from '../config/config.ts';
import { andThen } from '../kit/maybe-promise.ts';
import { RegistryError } from '../oci/errors.ts';
import type { Reference, RepositoryKey } from '../oci/target.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Upstream } from '../upstream/upstream.ts';
import { Access } from './access.ts';
import { Blobs } from './blobs.ts';
import type { Found } from './fetching.ts';
import { matchesNone, notModifiedHeaders, staleHeaders } from './headers.ts';
import { HotAnswers } from './hot.ts';
import { Manifests } from './manifests.ts';
import { repliesTally } from './measures.ts';
import { serveReferrers } from './referrers.ts';
import type { ProxyCore, Pull, Reply } from './reply.ts';
import { Sizes } from './sizes.ts';
import { serveTags } from './tags.ts';

export interface ProxyCoreOptions {
  readonly upstream: Upstream;
  /** Null where nothing is kept (`cache.maxSize: 0`). */
  readonly blobs: BlobCache | null;
  readonly manifests: ManifestStore;
  readonly table: () => TableSnapshot;
  readonly config: Pick<Config['cache'], 'tagTtl' | 'staleFor'>;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

/** The proxy core with what its owner needs besides. */
export interface ManagedProxyCore extends ProxyCore {
  /** Drops what is ready in memory, after the cache was pruned or a registry changed. */
  forget(): void;
  /** Ends upstream requests that only memory waits for. */
  close(): void;
}

export function createProxyCore(options: ProxyCoreOptions): ManagedProxyCore {
  return new Core(options);
}

class Core implements ManagedProxyCore {
  readonly #upstream: Upstream;
  readonly #access: Access;
  readonly #hot = new HotAnswers();
  readonly #manifests: Manifests;
  readonly #blobs: Blobs;
  readonly #ending = new AbortController();
  readonly #replies;
  readonly #errors;
  readonly #countStale: () => void;

  constructor(options: ProxyCoreOptions) {
    const { upstream, blobs, manifests, table, config, metrics, now = Date.now } = options;
    const log = options.log.child({ room: 'proxy' });
    const { signal } = this.#ending;
    const sizes = new Sizes();
    this.#upstream = upstream;
    this.#access = new Access(table, blobs);
    const access = this.#access;
    const hot = this.#hot;
    this.#manifests = new Manifests({ upstream, store: manifests, access, hot, sizes, config, log, now, signal });
    const passed = metrics.counter('registry_blobs_passed_total', 'Blob replies that went past the cache, by reason', [
      'why',
    ]);
    this.#blobs = new Blobs({ upstream, blobs, access, sizes, now, signal, passed: (why) => passed.inc({ why }) });
    this.#replies = repliesTally(metrics);
    this.#errors = metrics.counter(
      'registry_errors_total',
      'Refusals and failures of the proxy core, by what was asked',
      ['kind', 'error'],
    );
    const stale = metrics.counter('registry_stale_served_total', 'Kept answers served while the registry failed');
    this.#countStale = () => stale.inc();
  }

  serve(pull: Pull): Promise<Reply> | Reply {
    const { kind } = pull.target.what;
    try {
      const answered = this.#dispatch(pull, this.#access.admit(pull));
      if (answered instanceof Promise) return this.#counted(kind, answered);
      this.#replies.add(1, kind, answered.from);
      return answered;
    } catch (error) {
      throw this.#failed(kind, error);
    }
  }

  forget(): void {
    this.#hot.clear();
    this.#manifests.clear();
    this.#blobs.clear();
  }

  close(): void {
    this.#ending.abort(new RegistryError('unavailable', { facts: { reason: 'it is stopping' } }));
  }

  async #counted(kind: string, answered: Promise<Reply>): Promise<Reply> {
    try {
      const reply = await answered;
      this.#replies.add(1, kind, reply.from);
      return reply;
    } catch (error) {
      throw this.#failed(kind, error);
    }
  }

  #failed(kind: string, error: unknown): unknown {
    this.#errors.inc({ kind, error: error instanceof RegistryError ? error.kind : 'other' });
    return error;
  }

  #dispatch(pull: Pull, entry: RegistryEntry): Promise<Reply> | Reply {
    const { registry, repository, what } = pull.target;
    const key: RepositoryKey = pull.target;
    switch (what.kind) {
      case 'manifest':
        return this.#manifest(pull, entry, key, what.reference);
      case 'blob':
        return this.#blobs.serve(pull, entry, { registry, repository, digest: what.digest });
      // A registry that refuses a list may still give every image: that closes nothing.
      case 'tags':
        return serveTags(this.#upstream, pull, key, what, pull.signal);
      case 'referrers':
        return serveReferrers(this.#upstream, this.#manifests, pull, entry, key, what, pull.signal);
    }
  }

  #manifest(pull: Pull, entry: RegistryEntry, key: RepositoryKey, reference: Reference): Promise<Reply> | Reply {
    const found = this.#manifests.find(entry, key, reference, this.#hot.accept(pull.accept), pull.method);
    return andThen(found, (known) => this.#render(pull, known));
  }

  #render(pull: Pull, { answer, from }: Found): Reply {
    const reply = pull.method === 'HEAD' ? answer.head : answer.get;
    if (reply === null) throw new TypeError('an answer to GET without a body');
    if (from === 'stale') this.#countStale();
    const notModified = pull.ifNoneMatch !== undefined && matchesNone(pull.ifNoneMatch, answer.digest);
    if (from === 'cache' && !notModified) return reply;
    const { status, body } = notModified ? { status: 304, body: null } : reply;
    const headers = notModified ? notModifiedHeaders(answer.digest) : reply.headers;
    if (from === 'stale') return { status, headers: staleHeaders(headers), body, from };
    return { ...reply, status, headers, body, from };
  }
}
