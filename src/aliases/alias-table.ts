import { isIP } from 'node:net';
import { OperatorError } from '../kit/operator-error.ts';
import { refuseTaken } from './claims.ts';
import { exportRows } from './export.ts';
import { type ImportResult, planImport } from './import-plan.ts';
import { parseAliasName, parseEndpoints, parseRegistryHost } from './names.ts';
import { applySettings, newRegistry, type RegistrySettings, sameList, sameRegistry } from './registry-entry.ts';
import type { RegistryRow } from './rows.ts';
import { afterChange, emptySnapshot, fromRows, withoutHost } from './snapshot.ts';
import type { AliasStore, TableChange } from './store.ts';
import type { AliasEntry, RegistryEntry, TableSnapshot } from './table.ts';

export interface AliasTableOptions {
  readonly store: AliasStore;
  readonly domain: string;
  /** Called once in the life of a table, when it is new. */
  readonly seed: () => readonly RegistryRow[];
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
  /** False: it stood for this registry already. */
  readonly aliasAdded: boolean;
  readonly registryAdded: boolean;
  readonly endpointsChanged: boolean;
  /** It was there with `--no-cert` and is to have a certificate from now on. */
  readonly certificateTurnedOn: boolean;
}

type Listener = (snapshot: TableSnapshot) => void;

/**
 * The alias table of a running gateway: checks every change, stores it, then swaps the snapshot whole and tells the listeners.
 * All of it is synchronous, so that a change is durable and seen by every later request when the call returns.
 */
export class AliasTable {
  readonly #store: AliasStore;
  readonly #domain: string;
  readonly #listeners = new Set<Listener>();
  #snapshot: TableSnapshot;

  constructor({ store, domain, seed }: AliasTableOptions) {
    this.#store = store;
    this.#domain = domain;
    this.#snapshot = emptySnapshot(domain);
    if (store.isNew()) {
      const { change } = planImport(seed(), this.#snapshot);
      store.apply(change);
    }
    this.#snapshot = fromRows(domain, store.load());
  }

  snapshot(): TableSnapshot {
    return this.#snapshot;
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
      .filter((alias) => hosts.get(alias.host) !== alias)
      .map(({ name, host }) => {
        if (isIP(domain) !== 0)
          return `the alias ${name} has no host name, since the domain ${domain} is an IP address`;
        const taken = hosts.get(host)?.name;
        return `the alias ${name} is not reachable: ${host} is ${taken === undefined ? 'the gateway itself' : `the alias ${taken}`}`;
      });
  }

  /** @throws {OperatorError} usage where something is malformed; `ALIAS_TAKEN` where the name or its host stands for another registry. */
  addAlias(request: AddAlias): AddedAlias {
    const { name, host } = this.#aliasName(request.name);
    const registryHost = parseRegistryHost(request.registry);
    const asked =
      request.endpoints === undefined || request.endpoints.length === 0 ? null : parseEndpoints(request.endpoints);
    const held = this.#snapshot.aliases.get(name);
    refuseTaken(this.#snapshot, name, host, registryHost);

    const known = this.#snapshot.registries.get(registryHost);
    const registry: RegistryEntry = {
      ...(known ?? newRegistry(registryHost)),
      ...(asked === null ? {} : { endpoints: asked }),
    };
    const alias: AliasEntry = {
      name,
      host,
      registry: registryHost,
      certificate: request.certificate || held?.certificate === true,
    };
    const endpointsChanged = known !== undefined && !sameList(known.endpoints, registry.endpoints);
    const certificateTurnedOn = held !== undefined && !held.certificate && alias.certificate;
    this.#commit({
      putRegistries: known === undefined || endpointsChanged ? [registry] : [],
      putAliases: held === undefined || certificateTurnedOn ? [withoutHost(alias)] : [],
    });
    return {
      alias,
      registry,
      aliasAdded: held === undefined,
      registryAdded: known === undefined,
      endpointsChanged,
      certificateTurnedOn,
    };
  }

  /** Takes an alias's name or its host. @throws {OperatorError} `ALIAS_UNKNOWN` */
  alias(nameOrHost: string): AliasEntry {
    const { aliases, hosts } = this.#snapshot;
    const plain = nameOrHost.toLowerCase().replace(/\.$/, '');
    const found = aliases.get(plain) ?? hosts.get(plain) ?? aliases.get(parseAliasName(nameOrHost, this.#domain).name);
    if (found === undefined) {
      throw new OperatorError('ALIAS_UNKNOWN', `there is no alias ${plain}`, {
        next: 'list them with: gateway alias ls',
      });
    }
    return found;
  }

  /** @throws {OperatorError} `ALIAS_UNKNOWN` */
  removeAlias(nameOrHost: string): AliasEntry {
    const found = this.alias(nameOrHost);
    this.#commit({ removeAliases: [found.name] });
    return found;
  }

  /** Whether a certificate is to be ordered for it. @throws {OperatorError} `ALIAS_UNKNOWN` */
  setCertificate(nameOrHost: string, certificate: boolean): AliasEntry {
    const found = this.alias(nameOrHost);
    if (found.certificate === certificate) return found;
    const alias = { ...found, certificate };
    this.#commit({ putAliases: [withoutHost(alias)] });
    return alias;
  }

  /** @throws {OperatorError} `REGISTRY_UNKNOWN`; usage where it is malformed. */
  registry(host: string): RegistryEntry {
    const key = parseRegistryHost(host);
    const found = this.#snapshot.registries.get(key);
    if (found === undefined) {
      throw new OperatorError('REGISTRY_UNKNOWN', `the registry ${key} is not in the table`, {
        next: `list them with: gateway registry ls; add it with: gateway alias add <name> ${key}`,
      });
    }
    return found;
  }

  /** Creates or changes. @throws {OperatorError} usage where something is malformed. */
  setRegistry(host: string, settings: RegistrySettings): { registry: RegistryEntry; added: boolean; changed: boolean } {
    const key = parseRegistryHost(host);
    const known = this.#snapshot.registries.get(key);
    const registry = applySettings(known ?? newRegistry(key), settings);
    const changed = known === undefined || !sameRegistry(known, registry);
    if (changed) this.#commit({ putRegistries: [registry] });
    return { registry, added: known === undefined, changed };
  }

  /** @throws {OperatorError} `REGISTRY_UNKNOWN`; `REGISTRY_IN_USE` while aliases stand for it. */
  removeRegistry(host: string): RegistryEntry {
    const found = this.registry(host);
    const aliases = [...this.#snapshot.aliases.values()].filter((alias) => alias.registry === found.host);
    if (aliases.length > 0) {
      const names = aliases.map((alias) => alias.name).sort();
      const several = names.length > 1;
      throw new OperatorError(
        'REGISTRY_IN_USE',
        `the registry ${found.host} stays: the ${several ? 'aliases' : 'alias'} ${names.join(', ')} ${several ? 'stand' : 'stands'} for it`,
        { next: `remove ${several ? 'them' : 'it'} first: gateway alias rm ${names[0]}` },
      );
    }
    this.#commit({ removeRegistries: [found.host] });
    return found;
  }

  /**
   * Adds and changes what the rows name, all or nothing; what they do not name stays.
   * @throws {OperatorError} with every problem, a line each; usage where something is malformed, else `ALIAS_TAKEN`.
   */
  importRows(rows: readonly RegistryRow[]): ImportResult {
    const { change, result } = planImport(rows, this.#snapshot);
    this.#commit(change);
    return result;
  }

  exportRows(): RegistryRow[] {
    return exportRows(this.#snapshot);
  }

  #aliasName(text: string): { name: string; host: string } {
    const parsed = parseAliasName(text, this.#domain);
    if (isIP(this.#domain) !== 0 && !parsed.name.includes('.')) {
      throw new OperatorError(
        'NAME_INVALID',
        `the alias "${parsed.name}" has no host name, since the domain ${this.#domain} is an IP address`,
        { next: 'use a full host name such as hub.corp.example, or pull by prefix', usage: true },
      );
    }
    return parsed;
  }

  /** Store first: what the edge sees has always been written. */
  #commit(change: TableChange): void {
    if (Object.values(change).every((list) => list.length === 0)) return;
    this.#store.apply(change);
    this.#snapshot = afterChange(this.#snapshot, change);
    for (const listener of this.#listeners) listener(this.#snapshot);
  }
}
