import type { RegistryEntry, TableSnapshot } from '../aliases/table.ts';
import type { FillBudget } from '../cache/allowance.ts';
import type { BlobCache } from '../cache/blob-cache.ts';
import type { FactStore, SharedDenials } from '../cache/facts.ts';
import type { ListStore } from '../cache/list-store.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import type { SharedContent } from '../cache/shared-store.ts';
import type { Config } from '../config/config.ts';
import { Askers } from '../kit/askers.ts';
import { andThen, Lifetime, type MaybePromise } from '../kit/async.ts';
import { steadyNow } from '../kit/time.ts';
import { passedThrough } from '../kit/via.ts';
import { openerOf } from '../oci/credentials.ts';
import { RegistryError } from '../oci/errors.ts';
import { acceptClass } from '../oci/media-types.ts';
import type { Digest, Reference, RepositoryKey, What } from '../oci/names.ts';
import type { Cooldown } from '../policy/cooldown.ts';
import type { ImageHistory } from '../policy/history.ts';
import type { Admission, ImagePolicy } from '../policy/image-policy.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { reasonClass } from '../upstream/failures.ts';
import { rowOf, type Upstream } from '../upstream/upstream.ts';
import { BlobFills, type HeldBlobKey, type SharedDownloads } from './blob-fills.ts';
import { BlobSizes } from './blob-sizes.ts';
import { Blobs } from './blobs.ts';
import { ManifestsByDigest } from './by-digest.ts';
import { ManifestsByTag } from './by-tag.ts';
import { CooldownGate } from './cooldown-gate.ts';
import type { Denials } from './denials.ts';
import { KeptLists } from './kept-lists.ts';
import { type ListQuestion, referrersQuestion, tagsQuestion } from './lists.ts';
import { unlessLoop } from './loops.ts';
import { type Found, ManifestFetcher } from './manifest-fetcher.ts';
import { NodeBlobs } from './node-blobs.ts';
import { Prefetch, type PrefetchRules } from './prefetch.ts';
import { Redirects } from './redirect.ts';
import {
  manifestHeaders,
  type Pull,
  type RepliesTally,
  type Reply,
  type VersionedCore,
  withCondition,
  withWarning,
} from './reply.ts';
import { RepositoryAccess } from './repository-access.ts';
import { shareSeen, tellParts, tellReferrers } from './told-parts.ts';

/** Of the configuration of the cache. `redirect`: whether clients are sent to the shared store for blobs; left out where there is none. */
type CoreConfig = Pick<Config['cache'], 'tagTtl' | 'staleFor'> & { readonly redirect?: boolean | 'all' };

export interface ProxyCoreOptions {
  readonly upstream: Upstream;
  /** As it is now; null where nothing is kept (`cache.maxSize: 0`). */
  readonly blobs: () => BlobCache | null;
  /** Null where nothing is remembered. */
  readonly facts: FactStore | null;
  readonly manifests: ManifestStore;
  readonly lists: ListStore;
  /** What a store has that several gateways share; left out or null where there is none. */
  readonly content?: SharedContent | null;
  readonly table: () => TableSnapshot;
  /** Which images may pass; left out where all may. It takes its rules with the core's configuration. */
  readonly policy?: ImagePolicy;
  /** Lets other gateways know what was seen in a repository; left out where there are none. */
  readonly share?: (key: RepositoryKey) => Promise<void>;
  readonly config: CoreConfig;
  /** Is told what registries show of images; left out where nothing is remembered. */
  readonly history?: ImageHistory;
  /** How old images have to be to pass; left out where nothing is remembered. It takes its configuration with the core's. */
  readonly cooldown?: Cooldown;
  readonly metrics: Metrics;
  readonly replies: RepliesTally;
  /** Called for bytes that were fetched for a client by a reply which does not say so (`Reply.from`); left out where nobody counts them. */
  readonly fetched?: (client: string, bytes: number) => void;
  /** The quotas of a client, of which it is asked whether a blob fits into them before anything of it is fetched; left out where nobody counts. */
  readonly budget?: (client: string) => FillBudget | null;
  /** When what a manifest names is fetched before a client asks for it; left out where it never is. */
  readonly prefetch?: PrefetchRules;
  /** The gateways that this one shares its downloads with; left out where it fetches all by itself. */
  readonly shared?: SharedDownloads;
  /** What registries deny to this gateway and to those; left out where no other has this table. */
  readonly denials?: SharedDenials;
  /** Milliseconds since 1970, of a clock that never leaps. */
  readonly now?: () => number;
}

/** The proxy core with what its owner needs besides. */
export interface ManagedProxyCore extends VersionedCore {
  /** What other gateways of the same table are given. */
  readonly forNodes: NodeBlobs;
  /** To be called after a registry was changed or the cache was pruned: raises the generation and forgets what failed a moment ago. */
  invalidate(): void;
  /** Answers that are ready in memory are made anew. */
  reconfigure(config: Pick<Config, 'cache' | 'policy'>): void;
  /** Ends upstream requests that no client waits for. */
  close(): void;
}

/** A pull that may be answered: its registry's row, and by which rules; null where there are none. */
interface Admitted {
  readonly entry: RegistryEntry;
  readonly admission: Admission | null;
}

export function createProxyCore(options: ProxyCoreOptions): ManagedProxyCore {
  return new Core(options);
}

class Core implements ManagedProxyCore {
  readonly forNodes: NodeBlobs;
  readonly #upstream: Upstream;
  readonly #store: ManifestStore;
  readonly #access: RepositoryAccess;
  readonly #policy: ImagePolicy | null;
  readonly #share: ((key: RepositoryKey) => Promise<void>) | null;
  readonly #fetcher: ManifestFetcher;
  readonly #cooldown: Cooldown | null;
  readonly #gate: CooldownGate | null;
  readonly #byTag: ManifestsByTag;
  readonly #byDigest: ManifestsByDigest;
  readonly #blobs: Blobs;
  readonly #lists: KeptLists;
  /** Null where nothing is ever fetched ahead. */
  readonly #prefetch: Prefetch | null;
  /** What its parts read at each use. */
  readonly #config: { tagTtl: number; staleFor: number; redirect?: boolean | 'all' };
  readonly #lifetime = new Lifetime();
  readonly #ignoreDenials: (() => void) | null;
  readonly #replies: RepliesTally;
  readonly #errors;
  readonly #staleServed;

  constructor(options: ProxyCoreOptions) {
    const { upstream, blobs, manifests: store, lists, content = null, table, metrics, now = steadyNow } = options;
    const { history = null, cooldown = null } = options;
    const config = { ...options.config };
    this.#config = config;
    const lifetime = this.#lifetime;
    const access = new RepositoryAccess(table, options.facts, content);
    this.#ignoreDenials = options.denials === undefined ? null : access.shareDenials(options.denials);
    const sizes = new BlobSizes();
    const fetcher = new ManifestFetcher({ upstream, store, access, sizes, history, shared: content, lifetime });
    this.#fetcher = fetcher;
    this.#cooldown = cooldown;
    this.#upstream = upstream;
    this.#store = store;
    this.#access = access;
    this.#policy = options.policy ?? null;
    this.#share = options.share ?? null;
    this.#byTag = new ManifestsByTag({
      fetcher,
      store,
      access,
      history,
      config,
      now,
      outOfReach: (registry) => upstream.outOfReach(registry),
    });
    this.#lists = new KeptLists({ store: lists, access, config, now });
    this.#byDigest = new ManifestsByDigest({ fetcher, store, access, history, now });
    const passed = metrics.counter('registry_blobs_passed_total', 'Blob replies that went past the cache, by reason', [
      'why',
    ]);
    const onPassthrough = (why: string) => passed.inc({ why });
    const { fetched, budget } = options;
    const fills = new BlobFills({ upstream, access, sizes, lifetime, shared: options.shared ?? null });
    this.#gate =
      cooldown === null ? null : new CooldownGate({ cooldown, byDigest: this.#byDigest, fills, access, now });
    const redirects = new Redirects({ content, access, redirect: () => this.#config.redirect ?? false });
    this.#blobs = new Blobs({ upstream, blobs, access, redirects, fills, sizes, now, onPassthrough, fetched, budget });
    this.#prefetch =
      options.prefetch === undefined
        ? null
        : new Prefetch({ rules: options.prefetch, blobs, fills, budget, admit: this.#admitBlob, metrics });
    this.forNodes = new NodeBlobs({ blobs, access, policy: this.#policy, fills, table });
    this.#replies = options.replies;
    this.#errors = metrics.counter(
      'registry_errors_total',
      'Refusals and failures of the proxy core, by what was asked, and why the registry failed',
      ['kind', 'error', 'registry', 'reason'],
    );
    this.#staleServed = metrics.counter(
      'registry_stale_served_total',
      'Kept answers served since the registry failed, or since what is left of its limit is for other images',
      ['registry'],
    );
  }

  get generation(): number {
    return this.#access.generation + this.#store.generation;
  }

  get denials(): Denials {
    return this.#access.denials;
  }

  serve(pull: Pull): Promise<Reply> | Reply {
    const { kind } = pull.target.what;
    let registry = '';
    try {
      const entry = this.#access.admit(pull);
      registry = rowOf(entry);
      const admitted = this.#policy?.admit(pull.target, pull.audience) ?? null;
      const answered = andThen(admitted, (admission) => this.#answer(pull, { entry, admission }));
      if (answered instanceof Promise) return this.#counted(kind, registry, answered);
      this.#replies.add(1, kind, answered.from, registry);
      return answered;
    } catch (error) {
      throw this.#failed(kind, registry, error);
    }
  }

  reconfigure({ cache: { tagTtl, staleFor, s3 }, policy }: Pick<Config, 'cache' | 'policy'>): void {
    this.#policy?.reconfigure({ policy });
    this.#cooldown?.reconfigure(policy);
    Object.assign(this.#config, { tagTtl, staleFor, redirect: s3.redirect });
    this.invalidate();
  }

  invalidate(): void {
    this.#access.invalidate();
    this.#byTag.clear();
    this.#byDigest.clear();
    this.#lists.clear();
    this.#blobs.clear();
    this.#gate?.clear();
  }

  close(): void {
    this.#ignoreDenials?.();
    this.#lifetime.end(new RegistryError('unavailable', { facts: { reason: 'it is stopping' } }));
  }

  async #counted(kind: string, registry: string, answered: Promise<Reply>): Promise<Reply> {
    try {
      const reply = await answered;
      this.#replies.add(1, kind, reply.from, registry);
      return reply;
    } catch (error) {
      throw this.#failed(kind, registry, error);
    }
  }

  #failed(kind: string, registry: string, error: unknown): unknown {
    const known = error instanceof RegistryError;
    this.#errors.inc({ kind, registry, error: known ? error.kind : 'other', reason: reasonClass(error) });
    return error;
  }

  #answer(pull: Pull, by: Admitted): Promise<Reply> | Reply {
    const { via = [] } = pull;
    return via.length === 0 ? this.#dispatch(pull, by) : passedThrough(via, () => this.#watched(pull, by));
  }

  #dispatch(pull: Pull, { entry, admission }: Admitted): Promise<Reply> | Reply {
    const { registry, repository, what } = pull.target;
    switch (what.kind) {
      case 'manifest':
        return this.#manifest(pull, { entry, admission }, what.reference);
      case 'blob':
        return this.#blob(pull, entry, {
          registry,
          repository,
          digest: what.digest,
          opener: openerOf(entry, repository),
        });
      // A registry that refuses a list may still give every image: that closes nothing.
      case 'tags':
        return this.#list(pull, entry, tagsQuestion(this.#upstream, pull, entry, what, admission?.tagsFilter ?? null));
      case 'referrers':
        return this.#referrers(pull, { entry, admission }, what);
    }
  }

  /** Of a request that came through other gateways. */
  #watched(pull: Pull, by: Admitted): Promise<Reply> | Reply {
    const answered = this.#dispatch(pull, by);
    const { target, client } = pull;
    const { what } = target;
    // A list is asked for anew by each request, which finds out by itself.
    if (!(answered instanceof Promise) || what.kind === 'tags' || what.kind === 'referrers') return answered;
    const askers = new Askers(client);
    return unlessLoop(answered, () =>
      this.#lifetime.run(async (signal): Promise<unknown> => {
        if (what.kind === 'blob')
          return await this.#upstream.statBlob({ ...target, digest: what.digest }, signal, askers);
        return await this.#upstream.manifest(target, what.reference, {
          method: 'HEAD',
          accept: pull.accept,
          signal,
          askers,
        });
      }),
    );
  }

  async #referrers(pull: Pull, { entry, admission }: Admitted, what: What & { kind: 'referrers' }): Promise<Reply> {
    const isKnown = () => this.#access.knows(entry, pull.target, what.digest);
    const from = { upstream: this.#upstream, manifests: this.#byTag, isKnown };
    const reply = await this.#list(pull, entry, referrersQuestion(from, pull, entry, what));
    await tellReferrers(admission, reply, pull, entry);
    return reply;
  }

  async #list(pull: Pull, entry: RegistryEntry, question: ListQuestion): Promise<Reply> {
    const reply = await this.#lists.serve(pull, entry, question);
    if (reply.from === 'stale') this.#staleServed.inc({ registry: rowOf(entry) });
    return reply;
  }

  #manifest(pull: Pull, { entry, admission }: Admitted, reference: Reference): Promise<Reply> | Reply {
    const { target } = pull;
    const found =
      reference.kind === 'tag'
        ? this.#byTagNow(pull, entry, reference.tag)
        : this.#byDigestNow(pull, entry, reference.digest);
    return andThen(found, (known) => {
      const { manifest } = known;
      if (reference.kind === 'tag') admission?.tagged(reference.tag, manifest.digest);
      // Whoever has it asks for what it names the next moment.
      const learnt = andThen(this.#fetcher.learnt(target, manifest), () => tellParts(admission, manifest, pull, entry));
      const shared = andThen(learnt, () => this.#shareSeen(target, admission));
      return andThen(shared, () => this.#render(pull, entry, known));
    });
  }

  /** Only where something is judged by what was seen. */
  #shareSeen(key: RepositoryKey, admission: Admission | null): MaybePromise<void> {
    const isNeeded = admission?.dependsOnTags === true || this.#gate?.isOpen === false;
    if (this.#share !== null && isNeeded) return shareSeen(this.#share, key);
  }

  #byTagNow({ target, method, client: asker, accept }: Pull, entry: RegistryEntry, tag: string): MaybePromise<Found> {
    const client = acceptClass(accept);
    const found = this.#byTag.find(entry, target, tag, client, method, asker);
    const gate = this.#gate;
    if (gate === null || gate.isOpen) return found;
    return andThen(found, (known) => gate.byTag({ entry, key: target, method, asker }, tag, client, known));
  }

  #byDigestNow({ target, method, client: asker }: Pull, entry: RegistryEntry, digest: Digest): MaybePromise<Found> {
    if (this.#gate === null || this.#gate.isOpen) return this.#byDigest.find(entry, target, digest, method, asker);
    return this.#gate.byDigest({ entry, key: target, method, asker }, digest);
  }

  /** What is fetched ahead is judged as if the client had asked for it. */
  readonly #admitBlob = async (pull: Pull, entry: RegistryEntry, key: HeldBlobKey): Promise<void> => {
    const { registry, repository, digest } = key;
    await this.#policy?.admit({ registry, repository, what: { kind: 'blob', digest } }, pull.audience);
    if (this.#gate?.isOpen === false) await this.#gate.blob(entry, key, pull.client);
  };

  #blob(pull: Pull, entry: RegistryEntry, key: HeldBlobKey): MaybePromise<Reply> {
    this.#prefetch?.asked(key, key.digest);
    if (this.#gate === null || this.#gate.isOpen) return this.#blobs.serve(pull, entry, key);
    return andThen(this.#gate.blob(entry, key, pull.client), () => this.#blobs.serve(pull, entry, key));
  }

  #render(pull: Pull, entry: RegistryEntry, { manifest, from, since, freshUntil, stale, warning }: Found): Reply {
    const { mediaType, size, digest, body } = manifest;
    // What another repository's word opens is looked up each time: that word may be void by the next.
    const isOwn = body === null || this.#access.hasGiven(entry, pull.target, digest);
    if (pull.method === 'GET' && body === null) throw new TypeError('an answer to GET without a body');
    const headers = manifestHeaders(mediaType, size, digest);
    if (from === 'stale') this.#staleServed.inc({ registry: rowOf(entry) });
    else if (this.#config.redirect === undefined || this.#config.redirect === false)
      this.#prefetch?.given(pull, entry, manifest);
    return withCondition(pull, {
      status: 200,
      headers: withWarning(headers, stale?.warning ?? warning),
      body: pull.method === 'HEAD' ? null : body,
      from,
      ...(since === undefined ? {} : { since }),
      ...(stale === undefined ? {} : { reason: stale.reason }),
      ...(freshUntil === undefined || !isOwn ? {} : { freshUntil }),
    });
  }
}
