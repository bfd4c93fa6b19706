import type { AliasStore, StoredAlias, StoredTable, TableChange } from '../../src/aliases/store.ts';
import type { RegistryEntry } from '../../src/aliases/table.ts';
import { SharedBacking } from './store-harness.ts';

class AliasBacking extends SharedBacking {
  version = 0;
  registries = new Map<string, RegistryEntry>();
  aliases = new Map<string, StoredAlias>();
}

/** An alias table that lives as long as the test. */
export class MemoryAliasStore implements AliasStore {
  readonly #backing: AliasBacking;

  constructor(backing = new AliasBacking()) {
    this.#backing = backing;
  }

  another(): MemoryAliasStore {
    return new MemoryAliasStore(this.#backing);
  }

  async load(): Promise<StoredTable> {
    const { version, registries, aliases } = this.#backing;
    return { version, isNew: version === 0, registries: [...registries.values()], aliases: [...aliases.values()] };
  }

  async apply(change: TableChange, basedOn: number): Promise<number | null> {
    const backing = this.#backing;
    if (backing.version !== basedOn) return null;
    const registries = new Map(backing.registries);
    const aliases = new Map(backing.aliases);
    for (const name of change.removeAliases ?? []) aliases.delete(name);
    for (const one of change.putRegistries ?? []) registries.set(one.host, one);
    for (const one of change.putAliases ?? []) aliases.set(one.name, one);
    for (const host of change.removeRegistries ?? []) registries.delete(host);
    for (const { registry } of aliases.values())
      if (!registries.has(registry)) throw new Error(`no registry ${registry}`);
    Object.assign(backing, { version: basedOn + 1, registries, aliases });
    backing.changedBy(this);
    return backing.version;
  }

  watch(listener: () => void): () => void {
    return this.#backing.watch(this, listener);
  }
}
