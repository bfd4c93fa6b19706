import type { RegistryEntry, TableSnapshot } from '../../src/aliases/table.ts';
import type { FillBudget } from '../../src/cache/allowance.ts';
import type { Config } from '../../src/config/config.ts';
import type { NamedCredentials } from '../../src/oci/credentials.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import { type Digest, parseDigest, parseReference, type Reference, type What } from '../../src/oci/names.ts';
import { Cooldown } from '../../src/policy/cooldown.ts';
import { ImageHistory } from '../../src/policy/history.ts';
import type { HistoryStore } from '../../src/policy/history-store.ts';
import { ImagePolicy } from '../../src/policy/image-policy.ts';
import type { SharedDownloads } from '../../src/proxy/blob-fills.ts';
import { createProxyCore, type ManagedProxyCore, type ProxyCoreOptions } from '../../src/proxy/core.ts';
import { ManifestCache } from '../../src/proxy/manifest-cache.ts';
import type { PrefetchRules } from '../../src/proxy/prefetch.ts';
import { type ProxyCore, type Pull, type Reply, repliesTally } from '../../src/proxy/reply.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import type { Upstream } from '../../src/upstream/upstream.ts';
import { endRig, makeRig, type Rig, type RigOptions, readUntilEnd } from './cache-rig.ts';
import type { FakeRegistry } from './fake-registry/index.ts';
import { MemoryHistoryStore } from './memory-history.ts';
import { startUpstream } from './upstream.ts';

export interface BedRegistry {
  readonly fake: FakeRegistry;
  /** Default: the fake alone. */
  readonly endpoints?: readonly string[];
  readonly credentials?: { readonly username: string; readonly password: string };
  readonly named?: readonly NamedCredentials[];
  readonly public?: boolean;
  readonly realms?: readonly string[];
  readonly ca?: string;
}

export interface BedOptions {
  readonly registries: Readonly<Record<string, BedRegistry>>;
  readonly cache?: RigOptions;
  /** `cache.maxSize: 0`. */
  readonly keepNothing?: boolean;
  readonly tagTtl?: number;
  readonly staleFor?: number;
  readonly connections?: number;
  /** The gateways that it shares its downloads with. */
  readonly shared?: SharedDownloads;
  /** Which images may pass, and how old they have to be; what was seen is remembered for them. Left out: all may, and nothing is. */
  readonly rules?: Partial<Config['policy']>;
  /** Where that is remembered, for other beds too; left out: in memory, for this one. */
  readonly history?: HistoryStore;
  readonly prefetch?: PrefetchRules;
  /** `cache.s3.redirect`. */
  readonly redirect?: boolean | 'all';
  readonly budget?: (client: string) => FillBudget | null;
  /** Stands in front of the real one. */
  readonly wrapUpstream?: (upstream: Upstream) => Upstream;
}

export type AskOptions = Partial<Omit<Pull, 'target' | 'signal'>> & { readonly signal?: AbortSignal };

export interface Answered {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  readonly from: Reply['from'];
  /** The body broke off. */
  readonly truncated: boolean;
}

/** The proxy core behind its manifest cache, over the real cache and the real upstream room, with fake registries behind it and a clock of the test's own. */
export class RegistryBed {
  readonly rig: Rig;
  readonly upstream: Upstream;
  core: ManagedProxyCore;
  /** As the edge has it. */
  proxy: ProxyCore;
  /** Rows may be replaced while the test runs. */
  readonly rows = new Map<string, RegistryEntry>();
  /** As the core has them: other rows are another map, as the table's are. */
  #published: TableSnapshot['registries'] = new Map();
  /** Milliseconds; moved by the test. */
  clock = Date.now();
  /** Null without `rules`. */
  history: ImageHistory | null = null;
  #policy: Config['policy'];
  readonly #historyStore: HistoryStore;
  readonly #options: BedOptions;

  private constructor(options: BedOptions, rig: Rig) {
    this.rig = rig;
    this.#options = options;
    this.#policy = { images: [], cooldown: null, cooldownImages: [], ...options.rules };
    this.#historyStore = options.history ?? new MemoryHistoryStore();
    for (const [host, row] of Object.entries(options.registries)) this.put(host, row);
    const upstream = startUpstream({}, { connections: options.connections ?? 1 });
    for (const [host, row] of this.rows) upstream.routes.set(host, row);
    this.upstream = options.wrapUpstream?.(upstream) ?? upstream;
    this.put = (host, row) => {
      RegistryBed.prototype.put.call(this, host, row);
      const entry = this.rows.get(host);
      if (entry !== undefined) upstream.routes.set(host, entry);
      this.core.invalidate();
    };
    [this.core, this.proxy] = this.#makeCore(rig.metrics);
  }

  /** As after a start on the same cache: what the core had in memory is gone. */
  restartCore(): void {
    this.core.close();
    [this.core, this.proxy] = this.#makeCore(new Metrics());
  }

  /** As `reload` does. */
  setRules(rules: Partial<Config['policy']>): void {
    this.#policy = { ...this.#policy, ...rules };
    const { tagTtl = 60_000, staleFor = 7 * 86_400_000, redirect = false } = this.#options;
    const s3 = { redirect } as Config['cache']['s3'];
    this.core.reconfigure({ cache: { tagTtl, staleFor, s3 } as Config['cache'], policy: this.#policy });
  }

  #makeCore(metrics: Metrics): [ManagedProxyCore, ProxyCore] {
    const { keepNothing, tagTtl = 60_000, staleFor = 7 * 86_400_000, shared, prefetch, budget } = this.#options;
    const { redirect } = this.#options;
    const { cache } = this.rig;
    const replies = repliesTally(metrics);
    const core = createProxyCore({
      upstream: this.upstream,
      blobs: () => (keepNothing === true ? null : cache),
      facts: keepNothing === true ? null : cache.facts,
      manifests: cache.manifests,
      lists: cache.lists,
      content: cache.shared,
      table: () => this.#table(),
      config: { tagTtl, staleFor, ...(redirect === undefined ? {} : { redirect }) },
      metrics,
      replies,
      now: () => this.clock,
      ...(shared === undefined ? {} : { shared }),
      ...(prefetch === undefined ? {} : { prefetch }),
      ...(budget === undefined ? {} : { budget }),
      ...this.#makePassage(),
    });
    return [core, new ManifestCache({ core, replies, rowName: (host) => host, now: () => this.clock })];
  }

  #makePassage(): Pick<ProxyCoreOptions, 'history' | 'policy' | 'cooldown' | 'share'> {
    if (this.#options.rules === undefined) return {};
    const now = () => this.clock;
    const needsNames = (): boolean => policy.needsTags || cooldown.isOn;
    const history = new ImageHistory({ store: this.#historyStore, needsNames, log: silentLog(), now });
    const policy = new ImagePolicy({ rules: this.#policy.images, history });
    const cooldown = new Cooldown({ history, config: this.#policy, now });
    this.history = history;
    const shares = this.#options.history !== undefined;
    return { history, policy, cooldown, ...(shares ? { share: (key) => history.settled(key) } : {}) };
  }

  static async start(options: BedOptions): Promise<RegistryBed> {
    return new RegistryBed(options, await makeRig(options.cache));
  }

  async stop(): Promise<void> {
    this.core.close();
    await this.history?.close();
    await endRig(this.rig);
    await this.upstream.close();
  }

  put(host: string, row: BedRegistry): void {
    this.rows.set(host, {
      host,
      endpoints: row.endpoints ?? [row.fake.url],
      proxy: null,
      credentials: row.credentials ?? null,
      named: row.named ?? [],
      public: row.public ?? false,
      realms: row.realms ?? [],
      ca: row.ca ?? null,
    });
    this.#published = new Map(this.rows);
  }

  manifest(registry: string, repository: string, reference: string, options: AskOptions = {}): Promise<Answered> {
    return this.ask(registry, repository, { kind: 'manifest', reference: referenceOf(reference) }, options);
  }

  blob(registry: string, repository: string, digest: string, options: AskOptions = {}): Promise<Answered> {
    return this.ask(registry, repository, { kind: 'blob', digest: digestOf(digest) }, options);
  }

  async ask(registry: string, repository: string, what: What, options: AskOptions = {}): Promise<Answered> {
    const reply = await this.open(registry, repository, what, options);
    const { body } = reply;
    if (body === null || body instanceof Uint8Array) {
      return { ...reply, body: Buffer.from(body ?? []), truncated: false };
    }
    const { bytes, error } = await readUntilEnd(body);
    return { ...reply, body: bytes, truncated: error !== null };
  }

  /** The reply as it is, its body unread. */
  async open(registry: string, repository: string, what: What, options: AskOptions = {}): Promise<Reply> {
    return this.proxy.serve({
      target: { registry, repository, what },
      method: 'GET',
      authenticated: false,
      client: '192.0.2.1',
      base: '/v2/',
      signal: new AbortController().signal,
      ...options,
    });
  }

  /** Value of a counter, summed over the label sets that match. */
  counter(name: string, labels: Record<string, string> = {}): Promise<number> {
    return this.rig.metrics.total(name, labels);
  }

  #table(): TableSnapshot {
    return { domain: 'localhost', registries: this.#published, aliases: new Map(), hosts: new Map() };
  }
}

function referenceOf(text: string): Reference {
  const reference = parseReference(text);
  if (reference === null) throw new Error(`no reference: ${text}`);
  return reference;
}

export function digestOf(text: string): Digest {
  const digest = parseDigest(text);
  if (digest === null) throw new Error(`no digest: ${text}`);
  return digest;
}

/** The kind of the RegistryError that a promise rejects with; what else it does is told. */
export async function refusalOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'served';
  } catch (error) {
    return error instanceof RegistryError ? error.kind : String(error);
  }
}
