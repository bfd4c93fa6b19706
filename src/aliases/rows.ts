/** The table as files have it: registries with what was said about them, and the aliases that stand for each. */
export interface RegistryRow {
  readonly host: string;
  /** Left out: what the table has, else the default. */
  readonly endpoints?: readonly string[];
  readonly proxy?: string | null;
  readonly public?: boolean;
  /** Read where a person wrote it; never exported. */
  readonly credentials?: { readonly username: string; readonly password: string };
  readonly aliases: readonly AliasOfRow[];
}

export interface AliasOfRow {
  readonly name: string;
  readonly certificate: boolean;
}
