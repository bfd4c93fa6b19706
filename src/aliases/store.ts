import type { AliasEntry, RegistryEntry } from './table.ts';

/** An alias as it is stored: its host follows from the configured domain and is not kept. */
export type AliasRow = Omit<AliasEntry, 'host'>;

/** Port: where the table lives. Every method is atomic and durable when it returns. test/conformance/alias-store.ts is its contract. */
export interface AliasStore {
  /** True until the first `seeded()`: the table has never been filled. */
  isNew(): boolean;
  load(): { registries: RegistryEntry[]; aliases: AliasRow[] };
  /** Applies all or nothing; rows are replaced by key. The first call ends `isNew`. */
  apply(change: TableChange): void;
}

export interface TableChange {
  readonly putRegistries?: readonly RegistryEntry[];
  readonly putAliases?: readonly AliasRow[];
  readonly removeRegistries?: readonly string[];
  readonly removeAliases?: readonly string[];
}
