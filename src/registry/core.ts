import type { RegistryEntry, TableSnapshot } from '../aliases/table.ts';
import type { BlobCache } from '../cache/blob-cache.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import type { Config } from '../config/config.ts';
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
import { repliesCounter } from './measures.ts';
import { serveReferrers } from './referrers.ts';
import type { Pull, RegistryCore, Reply } from './reply.ts';
import { Sizes } from './sizes.ts';
import { serveTags } from './tags.ts';

export interface RegistryCoreOptions {
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
export interface ProxyCore extends RegistryCore {
  /** Drops what is ready in memory, after the cache was pruned or a registry changed. */
  forget(): void;
  /** Ends upstream requests that only memory waits for. */
  close(): void;
}

export function createRegistryCore(options: RegistryCoreOptions): ProxyCore {
  return new Core(options);
}

class Core implements ProxyCore {
  readonly #upstream: Upstream;
  readonly #access: Access;
  readonly #hot = new HotAnswers();
  readonly #manifests: Manifests;
  readonly #blobs: Blobs;
  readonly #ending = new AbortController();
  readonly #count: (kind: string, from: string) => void;
  readonly #countError: (kind: string, error: string) => void;
  readonly #countStale: () => void;

  constructor(options: RegistryCoreOptions) {
    const { upstream, blobs, manifests, table, config, metrics, now = Date.now } = options;
    const log = options.log.child({ room: 'registry' });
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
    this.#count = counting(repliesCounter(metrics));
    this.#countError = counting(
      metrics.counter('registry_errors_total', 'Refusals and failures of the proxy core, by what was asked', [
        'kind',
        'error',
      ]),
    );
    const stale = metrics.counter('registry_stale_served_total', 'Kept answers served while the registry failed');
    this.#countStale = () => stale.inc();
  }

  async serve(pull: Pull): Promise<Reply> {
    const { what } = pull.target;
    try {
      const entry = this.#access.admit(pull);
      const answered = this.#dispatch(pull, entry);
      const reply = answered instanceof Promise ? await answered : answered;
      this.#count(what.kind, reply.from);
      return reply;
    } catch (error) {
      this.#countError(what.kind, error instanceof RegistryError ? error.kind : 'other');
      throw error;
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
    return found instanceof Promise ? found.then((later) => this.#render(pull, later)) : this.#render(pull, found);
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

/** A counter of two labels that looks each pair of them up only once: this runs for every reply. */
function counting(counter: { labels(...values: string[]): { inc(): void } }): (first: string, second: string) => void {
  const children = new Map<string, Map<string, { inc(): void }>>();
  return (first, second) => {
    let row = children.get(first);
    if (row === undefined) {
      row = new Map();
      children.set(first, row);
    }
    let child = row.get(second);
    if (child === undefined) {
      child = counter.labels(first, second);
      row.set(second, child);
    }
    child.inc();
  };
}
