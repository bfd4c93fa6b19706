import type { AliasEntry, RegistryEntry } from './table.ts';

/** An alias as it is stored: its host follows from the configured domain and is not kept. */
export type StoredAlias = Omit<AliasEntry, 'host'>;

/** The whole table as a store has it. */
export interface StoredTable {
  /** Grows with each change; 0 for a table that was never filled. */
  readonly version: number;
  /** True until the first change, an empty one included. */
  readonly isNew: boolean;
  readonly registries: readonly RegistryEntry[];
  readonly aliases: readonly StoredAlias[];
}

/** Rows to put (they replace those with the same key) and keys to remove; a key that is not there is no error. */
export interface TableChange {
  readonly putRegistries?: readonly RegistryEntry[];
  readonly putAliases?: readonly StoredAlias[];
  readonly removeRegistries?: readonly string[];
  readonly removeAliases?: readonly string[];
}

/**
 * Port: where the alias table lives. Several holders may share one table. Every method is atomic, and what it changed is durable when
 * its promise resolves. test/conformance/alias-store.ts is its contract.
 */
export interface AliasStore {
  load(): Promise<StoredTable>;
  /**
   * Applies all of the change or nothing, if the table still has the version `basedOn`. The new version; null where another holder
   * has changed the table since, and nothing was applied. Rejects, with nothing applied, where an alias would stand for a registry that is
   * not in the table.
   */
  apply(change: TableChange, basedOn: number): Promise<number | null>;
  /** Calls `listener` after another holder's change; it may also be called after one's own. The function returned ends that. */
  watch(listener: () => void): () => void;
}
