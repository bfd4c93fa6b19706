import type { AliasRow, AliasStore, TableChange } from '../../src/aliases/store.ts';
import type { RegistryEntry } from '../../src/aliases/table.ts';

/** An alias table that lives as long as the test. */
export class MemoryAliasStore implements AliasStore {
  #new = true;
  #registries = new Map<string, RegistryEntry>();
  #aliases = new Map<string, AliasRow>();

  isNew(): boolean {
    return this.#new;
  }

  load(): { registries: RegistryEntry[]; aliases: AliasRow[] } {
    return { registries: [...this.#registries.values()], aliases: [...this.#aliases.values()] };
  }

  apply(change: TableChange): void {
    const registries = new Map(this.#registries);
    const aliases = new Map(this.#aliases);
    for (const name of change.removeAliases ?? []) aliases.delete(name);
    for (const one of change.putRegistries ?? []) registries.set(one.host, one);
    for (const one of change.putAliases ?? []) aliases.set(one.name, one);
    for (const host of change.removeRegistries ?? []) registries.delete(host);
    for (const { registry } of aliases.values())
      if (!registries.has(registry)) throw new Error(`no registry ${registry}`);
    [this.#new, this.#registries, this.#aliases] = [false, registries, aliases];
  }
}
