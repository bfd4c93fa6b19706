import { OperatorError } from '../kit/operator-error.ts';
import { isPattern } from '../oci/names.ts';
import { applySettings, newRegistry, parseAliasName, registryKey, sameRegistry, withoutPassword } from './names.ts';
import { aliasOfPattern, aliasTaken, refuseTaken, withoutHost } from './snapshot.ts';
import type { TableChange } from './store.ts';
import type { AliasEntry, RegistryEntry, TableSnapshot } from './table.ts';

/** A registry as an alias file declares it, with its aliases. */
export interface RegistryDeclaration {
  readonly host: string;
  /** Left out: what the table has, else the default. */
  readonly endpoints?: readonly string[];
  readonly proxy?: string | null;
  readonly public?: boolean;
  readonly realms?: readonly string[];
  /** PEM. */
  readonly ca?: string | null;
  /** Read where a person wrote it; never exported. */
  readonly credentials?: { readonly username: string; readonly password: string };
  readonly aliases: readonly AliasDeclaration[];
}

export interface AliasDeclaration {
  readonly name: string;
  readonly certificate: boolean;
}

/** The whole table without its secrets, sorted by host and name. */
export function exportRows(snapshot: TableSnapshot): RegistryDeclaration[] {
  const aliases = Map.groupBy(snapshot.aliases.values(), (alias) => alias.registry);
  const byText = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0);
  return [...snapshot.registries.values()]
    .sort((one, other) => byText(one.host, other.host))
    .map(({ host, endpoints, proxy, public: open, realms, ca }) => ({
      host,
      endpoints,
      proxy: proxy === null ? null : withoutPassword(proxy),
      public: open,
      realms,
      ca,
      aliases: (aliases.get(host) ?? [])
        .sort((one, other) => byText(one.name, other.name))
        .map(({ name, certificate }) => ({ name, certificate })),
    }));
}

export interface ImportResult {
  readonly registriesAdded: number;
  readonly registriesChanged: number;
  readonly aliasesAdded: number;
  readonly aliasesChanged: number;
  /** Of these aliases, those that are to have a certificate. */
  readonly certificates: number;
}

/**
 * Plans the change that would bring declared rows into the table: all of them or none.
 * @throws {OperatorError} with every problem, a line each; usage where something is malformed, else `ALIAS_TAKEN`.
 */
export function planImport(
  rows: readonly RegistryDeclaration[],
  snapshot: TableSnapshot,
): { change: TableChange; result: ImportResult } {
  const registries = new Map<string, RegistryEntry>();
  const aliases = new Map<string, AliasEntry>();
  const refusals: OperatorError[] = [];
  const attempt = (step: () => void): void => {
    try {
      step();
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      refusals.push(error);
    }
  };
  for (const row of rows) {
    attempt(() => {
      const key = registryKey(row.host, snapshot.registries);
      if (isPattern(key) && row.aliases.length > 0) throw aliasOfPattern(key);
      const before = registries.get(key) ?? snapshot.registries.get(key) ?? newRegistry(key);
      // An export leaves out the proxy's password, so the same proxy without it keeps the one in the table.
      const keepsProxy = row.proxy && before.proxy !== null && withoutPassword(before.proxy) === row.proxy;
      registries.set(key, applySettings(before, keepsProxy ? { ...row, proxy: undefined } : row));
      for (const one of row.aliases) {
        attempt(() => {
          // Labels are accepted even under a domain that is an IP address, where no host leads to them: the domain may become a name later.
          const { name, host } = parseAliasName(one.name, snapshot.domain);
          refuseTaken(snapshot, name, host, key);
          const twice = aliases.get(name);
          if (twice !== undefined && twice.registry !== key) throw aliasTaken(twice, name);
          aliases.set(name, { name, host, registry: key, certificate: one.certificate });
        });
      }
    });
  }
  if (refusals.length > 0) throw joined(refusals);
  const changedRegistries = [...registries.values()].filter(
    (one) => !sameRegistry(one, snapshot.registries.get(one.host)),
  );
  const changedAliases = [...aliases.values()].filter(
    (one) => snapshot.aliases.get(one.name)?.certificate !== one.certificate,
  );
  const registriesAdded = changedRegistries.filter((one) => !snapshot.registries.has(one.host)).length;
  const aliasesAdded = changedAliases.filter((one) => !snapshot.aliases.has(one.name)).length;
  return {
    change: { putRegistries: changedRegistries, putAliases: changedAliases.map(withoutHost) },
    result: {
      registriesAdded,
      registriesChanged: changedRegistries.length - registriesAdded,
      aliasesAdded,
      aliasesChanged: changedAliases.length - aliasesAdded,
      certificates: changedAliases.filter(({ certificate }) => certificate).length,
    },
  };
}

function joined(refusals: readonly OperatorError[]): OperatorError {
  const [first] = refusals;
  if (first !== undefined && refusals.length === 1) return first;
  return new OperatorError(
    (refusals.find((one) => one.usage) ?? first)?.code ?? 'ALIAS_TAKEN',
    `nothing was imported:\n${refusals.map((one) => `  ${one.message}`).join('\n')}`,
    { next: 'correct these rows and import again' },
  );
}
