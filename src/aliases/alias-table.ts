import { Mutex, Reloader } from '../kit/async.ts';
import { orNearest } from '../kit/did-you-mean.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { isPattern } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import { type Additions, planAdditions } from './additions.ts';
import { exportRows, type ImportResult, planImport, type RegistryDeclaration } from './import-export.ts';
import { registryOf } from './lookup.ts';
import {
  applySettings,
  isHostless,
  newRegistry,
  parseAliasName,
  type RegistrySettings,
  registryKey,
  sameList,
  sameRegistry,
} from './names.ts';
import { refuseLoops } from './own-places.ts';
import { type PresetsDifference, planPresets } from './presets.ts';
import { afterChange, aliasOfPattern, emptySnapshot, fromRows, refuseTaken, withoutHost } from './snapshot.ts';
import type { AliasStore, TableChange } from './store.ts';
import type { AliasEntry, RegistryEntry, TableSnapshot } from './table.ts';

/** Attempts at one change. Each fails only because another holder succeeded, so even a busy table needs few. */
const MAX_ATTEMPTS = 20;

export interface AliasTableOptions {
  readonly store: AliasStore;
  readonly domain: string;
  /** Called once in the life of a table, when it is new. */
  readonly seed: () => readonly RegistryDeclaration[];
  readonly log: Pick<Logger, 'error'>;
  /** On which this gateway listens: a registry that is fetched from there would be the gateway itself. */
  readonly ports?: readonly number[];
  /** See {@link TableSnapshot}. */
  readonly publicHost?: string | undefined;
}

export interface AddAlias {
  readonly name: string;
  readonly registry: string;
  /** Replace those of the registry; left out or empty, it keeps them, or gets the default. */
  readonly endpoints?: readonly string[];
  readonly certificate: boolean;
}

export interface AddedAlias {
  readonly alias: AliasEntry;
  readonly registry: RegistryEntry;
  /** False: it stood for this registry already, or (a label without a host) stands for another and keeps doing so. */
  readonly aliasAdded: boolean;
  /** The registry that the name stands for in the table. */
  readonly standsFor: string;
  readonly registryAdded: boolean;
  readonly endpointsChanged: boolean;
  /** It was there with `--no-cert` and is to have a certificate from now on. */
  readonly certificateTurnedOn: boolean;
}

type Listener = (snapshot: TableSnapshot) => void;

/** A change planned on a snapshot: the rows to change, and the result for the caller once they are stored. */
interface Plan<T> {
  readonly change: TableChange;
  readonly result: T;
}

/**
 * The alias table of a running gateway: checks every change, stores it, then replaces the snapshot as a whole and calls the listeners.
 * When a change method resolves, the change is durable and every later `snapshot()` shows it. Changes of other holders of the store
 * arrive through its `watch`.
 */
export class AliasTable {
  readonly #store: AliasStore;
  readonly #domain: string;
  #ports: readonly number[];
  readonly #listeners = new Set<Listener>();
  /** One change or reload at a time: each is planned on the snapshot that the one before left. */
  readonly #mutex = new Mutex();
  readonly #reloader: Reloader;
  readonly #unwatch: () => void;
  #version = 0;
  #snapshot: TableSnapshot;

  private constructor({ store, domain, log, ports = [], publicHost }: AliasTableOptions) {
    this.#store = store;
    this.#domain = domain;
    this.#ports = ports;
    this.#snapshot = emptySnapshot(domain, publicHost);
    this.#reloader = new Reloader(
      () => this.#mutex.run(() => this.#reload()),
      (error) => log.error({ err: error }, 'the alias table could not be read again after a change; it is tried again'),
    );
    this.#unwatch = store.watch(this.#reloader.request);
  }

  /** Loads the table, and fills it from the seed where it is new. */
  static async open(options: AliasTableOptions): Promise<AliasTable> {
    const table = new AliasTable(options);
    try {
      await table.#mutex.run(() => table.#fill(options.seed));
    } catch (error) {
      await table.close();
      throw error;
    }
    return table;
  }

  /** Stops following the store. */
  close(): Promise<void> {
    this.#unwatch();
    return this.#reloader.close();
  }

  /** The table as it is now. Bound: it is given to whatever reads the table. */
  readonly snapshot = (): TableSnapshot => this.#snapshot;

  /** The gateway is reached otherwise from now on. */
  reconfigure({ ports = [], publicHost }: Pick<AliasTableOptions, 'ports' | 'publicHost'>): Promise<void> {
    return this.#mutex.run(async () => {
      this.#ports = ports;
      if (publicHost !== this.#snapshot.publicHost) this.#publish(this.#version, { ...this.#snapshot, publicHost });
    });
  }

  /** The listener must not throw. Returns what ends the subscription. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Aliases that no host leads to, a sentence each: after a change of the domain, a full name may be the domain itself or the host of a label.
   */
  conflicts(): string[] {
    const { aliases, hosts, domain } = this.#snapshot;
    return [...aliases.values()]
      .filter((alias) => hosts.get(alias.host) !== alias && !isHostless(alias.name, domain))
      .map(({ name, host }) => {
        const taken = hosts.get(host)?.name;
        return `the alias ${name} is not reachable: ${host} is ${taken === undefined ? 'the gateway itself' : `the alias ${taken}`}`;
      });
  }

  /** @throws {OperatorError} usage where something is malformed; `ALIAS_TAKEN` where the name or its host stands for another registry. */
  addAlias(request: AddAlias): Promise<AddedAlias> {
    return this.#change((snapshot) => {
      const { name, host } = parseAliasName(request.name, this.#domain);
      const hostless = isHostless(name, this.#domain);
      const registryHost = registryKey(request.registry, snapshot.registries);
      if (isPattern(registryHost)) throw aliasOfPattern(registryHost);
      const held = snapshot.aliases.get(name);
      if (hostless) refuseUnreachable(name, registryHost, this.#domain);
      else refuseTaken(snapshot, name, host, registryHost);

      const known = snapshot.registries.get(registryHost);
      const before = registryOf(snapshot, registryHost) ?? newRegistry(registryHost);
      const registry = applySettings(before, { endpoints: request.endpoints });
      const alias: AliasEntry = {
        name,
        host,
        registry: registryHost,
        certificate: request.certificate || held?.certificate === true,
      };
      // A label without a host is in nobody's way: its registry is what matters.
      const free = held === undefined || held.registry === registryHost;
      const endpointsChanged = known !== undefined && !sameList(known.endpoints, registry.endpoints);
      const certificateTurnedOn = free && held !== undefined && !held.certificate && alias.certificate;
      return {
        change: {
          putRegistries: known === undefined || endpointsChanged ? [registry] : [],
          putAliases: held === undefined || certificateTurnedOn ? [withoutHost(alias)] : [],
        },
        result: {
          alias,
          registry,
          aliasAdded: held === undefined,
          standsFor: held?.registry ?? registryHost,
          registryAdded: known === undefined,
          endpointsChanged,
          certificateTurnedOn,
        },
      };
    });
  }

  /** Takes an alias's name or its host. @throws {OperatorError} `ALIAS_UNKNOWN` */
  alias(nameOrHost: string): AliasEntry {
    const { aliases, hosts } = this.#snapshot;
    const plain = nameOrHost.toLowerCase().replace(/\.$/, '');
    const found = aliases.get(plain) ?? hosts.get(plain) ?? aliases.get(parseAliasName(nameOrHost, this.#domain).name);
    if (found === undefined) {
      throw new OperatorError('ALIAS_UNKNOWN', `there is no alias ${plain}`, {
        next: orNearest('list them with: gateway alias ls', plain, [...aliases.keys(), ...hosts.keys()]),
      });
    }
    return found;
  }

  /** @throws {OperatorError} `ALIAS_UNKNOWN` */
  removeAlias(nameOrHost: string): Promise<AliasEntry> {
    return this.#change(() => {
      const found = this.alias(nameOrHost);
      return { change: { removeAliases: [found.name] }, result: found };
    });
  }

  /** Whether a certificate is to be ordered for it. @throws {OperatorError} `ALIAS_UNKNOWN` */
  setCertificate(nameOrHost: string, certificate: boolean): Promise<AliasEntry> {
    return this.#change(() => {
      const found = this.alias(nameOrHost);
      if (found.certificate === certificate) return { change: {}, result: found };
      const alias = { ...found, certificate };
      return { change: { putAliases: [withoutHost(alias)] }, result: alias };
    });
  }

  /** A row, or what a pattern's row says of a host. @throws {OperatorError} `REGISTRY_UNKNOWN`; usage where it is malformed. */
  registry(host: string): RegistryEntry {
    const { registries } = this.#snapshot;
    const key = registryKey(host, registries);
    const found = registries.get(key) ?? registryOf(this.#snapshot, key);
    if (found === undefined) {
      throw new OperatorError('REGISTRY_UNKNOWN', `the registry ${key} is not in the table`, {
        next: orNearest(
          `list them with: gateway registry ls; add it with: gateway alias add NAME ${key}`,
          key,
          registries.keys(),
        ),
      });
    }
    return found;
  }

  /** Creates or changes. @throws {OperatorError} usage where something is malformed. */
  setRegistry(
    host: string,
    settings: RegistrySettings,
  ): Promise<{ registry: RegistryEntry; added: boolean; changed: boolean }> {
    return this.#change((snapshot) => {
      const key = registryKey(host, snapshot.registries);
      const known = snapshot.registries.get(key);
      const registry = applySettings(known ?? registryOf(snapshot, key) ?? newRegistry(key), settings);
      const changed = known === undefined || !sameRegistry(known, registry);
      return {
        change: { putRegistries: changed ? [registry] : [] },
        result: { registry, added: known === undefined, changed },
      };
    });
  }

  /** @throws {OperatorError} `REGISTRY_UNKNOWN`; `REGISTRY_IN_USE` while aliases stand for it. */
  removeRegistry(host: string): Promise<RegistryEntry> {
    return this.#change((snapshot) => {
      const found = this.registry(host);
      if (found.pattern !== undefined) throw rowOfPattern(found.host, found.pattern);
      const names = [...snapshot.aliases.values()]
        .filter((alias) => alias.registry === found.host)
        .map((alias) => alias.name)
        .sort();
      if (names.length > 0) throw registryInUse(found.host, names);
      return { change: { removeRegistries: [found.host] }, result: found };
    });
  }

  /**
   * Adds and changes what the rows name, all or nothing; what they do not name stays.
   * @throws {OperatorError} with every problem, a line each; usage where something is malformed, else `ALIAS_TAKEN`.
   */
  importRows(rows: readonly RegistryDeclaration[]): Promise<ImportResult> {
    return this.#change((snapshot) => planImport(rows, snapshot));
  }

  /** What the presets of this version would change, and, with `take`, changes it. */
  presets(rows: readonly RegistryDeclaration[], take: boolean): Promise<PresetsDifference> {
    return this.#change((snapshot) => {
      const { change, result } = planPresets(rows, snapshot);
      return { change: take ? change : {}, result };
    });
  }

  /** What another program's rows would add, and, with `take`, adds it; what is there stays. */
  additions(rows: readonly RegistryDeclaration[], take: boolean): Promise<Additions> {
    return this.#change((snapshot) => {
      const { change, result } = planAdditions(rows, snapshot);
      return { change: take ? change : {}, result };
    });
  }

  exportRows(): RegistryDeclaration[] {
    return exportRows(this.#snapshot);
  }

  /** Plans on the newest snapshot and stores what was planned; plans anew where another holder's change came first. */
  #change<T>(plan: (snapshot: TableSnapshot) => Plan<T>): Promise<T> {
    return this.#mutex.run(async () => {
      for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        const { change, result } = plan(this.#snapshot);
        if (Object.values(change).every((list) => list.length === 0)) return result;
        const after = afterChange(this.#snapshot, change);
        refuseLoops(this.#snapshot, after, this.#ports);
        const version = await this.#store.apply(change, this.#version);
        if (version !== null) {
          // Published after it was stored: what the edge sees has always been written.
          this.#publish(version, after);
          return result;
        }
        await this.#reload();
      }
      throw new Error(`another process changed the alias table before each of ${MAX_ATTEMPTS} attempts to change it`);
    });
  }

  async #fill(seed: () => readonly RegistryDeclaration[]): Promise<void> {
    const { isNew, version } = await this.#store.load();
    // Null where another holder filled it meanwhile: then its rows are the ones to load.
    if (isNew) await this.#store.apply(planImport(seed(), emptySnapshot(this.#domain)).change, version);
    await this.#reload();
  }

  async #reload(): Promise<void> {
    const stored = await this.#store.load();
    if (stored.version !== this.#version) this.#publish(stored.version, fromRows(this.#snapshot, stored));
  }

  #publish(version: number, snapshot: TableSnapshot): void {
    this.#version = version;
    this.#snapshot = snapshot;
    for (const listener of this.#listeners) listener(snapshot);
  }
}

/** A path cannot have a port in it: such a registry needs a host of its own. @throws {OperatorError} usage, `NAME_INVALID` */
function refuseUnreachable(name: string, registry: string, domain: string): void {
  if (!registry.includes(':')) return;
  throw new OperatorError(
    'NAME_INVALID',
    `the alias "${name}" would have no host, since the domain ${domain} is an IP address, and ${registry}, with its port, cannot be pulled by prefix`,
    { next: `use a full host name: gateway alias add hub.corp.example ${registry}` },
  );
}

function rowOfPattern(host: string, pattern: string): OperatorError {
  return new OperatorError('REGISTRY_UNKNOWN', `the registry ${host} has no row of its own: it is one of ${pattern}`, {
    next: `remove all of them: gateway registry rm '${pattern}'`,
  });
}

function registryInUse(host: string, aliases: readonly string[]): OperatorError {
  const several = aliases.length > 1;
  return new OperatorError(
    'REGISTRY_IN_USE',
    `the registry ${host} stays: the ${several ? 'aliases' : 'alias'} ${aliases.join(', ')} ${several ? 'stand' : 'stands'} for it`,
    { next: `remove ${several ? 'them' : 'it'} first: gateway alias rm ${aliases[0]}` },
  );
}
