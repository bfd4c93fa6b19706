import type { OperationContext } from '../admin/contract.ts';
import { createOperations } from '../admin/operations/index.ts';
import { registryOf } from '../aliases/lookup.ts';
import { type Cache, createCache } from '../cache/cache.ts';
import type { SharedStoreParts } from '../cache/shared-store.ts';
import type { Config } from '../config/config.ts';
import type { ImageSource } from '../images/image-source.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { Lifecycle, version } from '../kit/process.ts';
import { createProxyCore } from '../proxy/core.ts';
import { CoreSource } from '../proxy/core-source.ts';
import { repliesTally } from '../proxy/reply.ts';
import type { Unplugged } from '../proxy/unplugged.ts';
import { silentLog } from '../telemetry/log.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { createUpstream } from '../upstream/registry-upstream.ts';
import { WarmService } from '../warm/service.ts';
import { Warmer } from '../warm/warmer.ts';
import { coreParts, unplug } from './core-parts.ts';
import { sharedState } from './fleet.ts';
import { openPassage, type Passage } from './policy.ts';
import { openState, type State } from './state.ts';
import { holderOf, openIndex, openSharedStore } from './stores.ts';

/** Whether a process works on the data directory, a gateway or a command. */
export function isHeld(dataDir: string): boolean {
  return holderOf(dataDir) !== null;
}

/** A data directory that no gateway works on, opened for one command. What it does not need is not opened. */
class Offline {
  readonly #config: Config;
  readonly #state: State;
  readonly #lifecycle: Lifecycle;
  readonly #shared: SharedStoreParts | null;
  readonly #log = silentLog();
  readonly #metrics = new Metrics();
  #cache: Cache | null = null;
  #passage: Passage | null = null;
  #images: ImageSource | null = null;
  #warm: WarmService | null = null;

  /** @param shared null where there is none, or it is not needed */
  constructor(config: Config, state: State, shared: SharedStoreParts | null, lifecycle: Lifecycle) {
    this.#config = config;
    this.#state = state;
    this.#shared = shared;
    this.#lifecycle = lifecycle;
  }

  get cache(): Cache {
    if (this.#cache !== null) return this.#cache;
    const { dataDir, cache: settings } = this.#config;
    const index = openIndex(dataDir, this.#log);
    const parts = { index, shared: this.#shared, log: this.#log, metrics: this.#metrics };
    const cache = createCache({ dataDir, config: settings, ...parts, maintain: false });
    this.#cache = cache;
    this.#lifecycle.defer('the cache', () => cache.close());
    return cache;
  }

  get passage(): Passage {
    const by = { metrics: this.#metrics, log: this.#log, lifecycle: this.#lifecycle };
    this.#passage ??= openPassage(() => this.#config, this.#state, by);
    return this.#passage;
  }

  /** Images from the cache or through it, as the gateway would give them. */
  get images(): ImageSource {
    if (this.#images !== null) return this.#images;
    const { table, pseudonym } = this.#state;
    const upstream = createUpstream({
      route: (registry) => registryOf(table.snapshot(), registry),
      pseudonym,
      config: this.#config.upstream,
      log: this.#log,
      metrics: this.#metrics,
    });
    this.#lifecycle.defer('the upstream connections', () => upstream.close());
    const core = createProxyCore({
      ...coreParts(() => this.#config, this.#state, this.cache),
      ...this.passage,
      upstream,
      metrics: this.#metrics,
      replies: repliesTally(this.#metrics),
    });
    this.#lifecycle.defer('the proxy core', () => core.close());
    this.#images = new CoreSource(core);
    return this.#images;
  }

  /** The same with every registry out of reach; see `OperationsDeps.unplugged`. */
  unplugged(signal: AbortSignal): Promise<Unplugged> {
    const { cache, passage } = this;
    return unplug({ config: () => this.#config, state: this.#state, cache, passage }, signal);
  }

  get warm(): WarmService {
    const { warm: store, nodes } = this.#state;
    const cache = () => this.cache.admin;
    const warmer = new Warmer({ images: () => this.images, cache });
    this.#warm ??= new WarmService({ store, warmer, cache, node: nodes.self.id });
    return this.#warm;
  }

  async run(name: string, input: unknown, context: OperationContext): Promise<unknown> {
    const { table, users, certificates, fleet, pseudonym, snapshot, nodes } = this.#state;
    // Not started: it knows its hosts and what is stored, and orders nothing.
    certificates?.cover(this.#state.coveredHosts());
    const operations = createOperations({
      config: this.#config,
      version: version(),
      pseudonym,
      table,
      certificates,
      users,
      cache: () => this.cache.admin,
      images: () => this.images,
      passage: () => this.passage,
      unplugged: (signal) => this.unplugged(signal),
      warm: () => this.warm,
      snapshot,
      nodes,
      shared: fleet === null ? null : sharedState(fleet),
      live: null,
    });
    const operation = operations.get(name);
    if (operation === undefined) throw new OperatorError('OPERATION_UNKNOWN', `there is no operation ${name}`);
    return await operation(input, context);
  }
}

/** Operations that give content, or say what would be given: for the others no shared store is opened. */
const GIVES_CONTENT: ReadonlySet<string> = new Set(['drill']);

/**
 * Opens a data directory that no gateway works on for one command, without listeners and without orders. It is held meanwhile, so that no gateway
 * starts on half a change; `opened` is told when it is. `content`: what a shared store has is given too.
 * @throws {OperatorError} `DATA_DIR_IN_USE` where a gateway or another command holds it
 */
async function offline<T>(
  config: Config,
  activity: string,
  opened: (() => void) | undefined,
  content: boolean,
  work: (directory: Offline) => Promise<T>,
): Promise<T> {
  const lifecycle = new Lifecycle();
  const state = await openState({ config, log: silentLog(), metrics: new Metrics(), activity: `gateway ${activity}` });
  lifecycle.defer('the state', () => state.close());
  opened?.();
  try {
    const shared = content ? await openSharedStore(config.cache, state.objects) : null;
    return await work(new Offline(config, state, shared, lifecycle));
  } finally {
    await lifecycle.end(() => {});
  }
}

/** Runs one operation on a data directory that no gateway works on: the same operations on the same stores. For what it throws see {@link offline}. */
export async function runOffline(
  config: Config,
  name: string,
  input: unknown,
  context: OperationContext & { readonly opened?: () => void },
): Promise<unknown> {
  const run = (directory: Offline) => directory.run(name, input, context);
  return await offline(config, name.replace('.', ' '), context.opened, GIVES_CONTENT.has(name), run);
}

/** Lets `use` have images from a data directory that no gateway works on. For what it throws see {@link offline}. */
export async function withImagesOffline<T>(
  config: Config,
  activity: string,
  opened: () => void,
  use: (images: ImageSource) => Promise<T>,
): Promise<T> {
  return await offline(config, activity, opened, true, (directory) => use(directory.images));
}
