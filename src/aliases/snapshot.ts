import { OperatorError } from '../kit/operator-error.ts';
import { aliasHost, isHostless } from './names.ts';
import type { StoredAlias, StoredTable, TableChange } from './store.ts';
import type { AliasEntry, TableSnapshot } from './table.ts';

export function emptySnapshot(domain: string, publicHost?: string): TableSnapshot {
  return { domain, publicHost, registries: new Map(), aliases: new Map(), hosts: new Map() };
}

/** The table with these rows in place of its own. */
export function fromRows(
  { domain, publicHost }: TableSnapshot,
  rows: Pick<StoredTable, 'registries' | 'aliases'>,
): TableSnapshot {
  const aliases = new Map(rows.aliases.map((row) => [row.name, { ...row, host: aliasHost(row.name, domain) }]));
  const hosts = new Map<string, AliasEntry>();
  // Labels first: where a full name of an earlier domain means the same host, the label keeps it.
  const labelsFirst = [...aliases.values()].sort(
    (one, other) => Number(one.name.includes('.')) - Number(other.name.includes('.')),
  );
  for (const alias of labelsFirst) if (reachable(alias, domain) && !hosts.has(alias.host)) hosts.set(alias.host, alias);
  return { domain, publicHost, registries: new Map(rows.registries.map((one) => [one.host, one])), aliases, hosts };
}

/** Whether a client can ask for this host and mean the alias. */
function reachable(alias: AliasEntry, domain: string): boolean {
  return alias.host !== domain && !isHostless(alias.name, domain);
}

/** The snapshot with the change applied. It copies the maps (10,000 entries take a millisecond), so that readers of the old snapshot are not affected. */
export function afterChange(before: TableSnapshot, change: TableChange): TableSnapshot {
  const { putRegistries = [], putAliases = [], removeRegistries = [], removeAliases = [] } = change;
  const registries = new Map(before.registries);
  const aliases = new Map(before.aliases);
  const hosts = new Map(before.hosts);
  for (const name of removeAliases) {
    const alias = aliases.get(name);
    aliases.delete(name);
    if (alias !== undefined && hosts.get(alias.host) === alias) hosts.delete(alias.host);
  }
  for (const host of removeRegistries) registries.delete(host);
  for (const one of putRegistries) registries.set(one.host, one);
  for (const row of putAliases) {
    const alias = { ...row, host: aliasHost(row.name, before.domain) };
    const old = aliases.get(row.name);
    aliases.set(row.name, alias);
    const owner = hosts.get(alias.host);
    if (reachable(alias, before.domain) && (owner === undefined || owner === old)) hosts.set(alias.host, alias);
  }
  return { ...before, registries, aliases, hosts };
}

/** An alias as a store keeps it: its host follows from the domain. */
export function withoutHost({ name, registry, certificate }: AliasEntry): StoredAlias {
  return { name, registry, certificate };
}

/** @throws {OperatorError} `ALIAS_TAKEN` where the name or its host stands for another registry already. */
export function refuseTaken(snapshot: TableSnapshot, name: string, host: string, registry: string): void {
  const held = snapshot.aliases.get(name) ?? snapshot.hosts.get(host);
  if (held === undefined || (held.name === name && held.registry === registry)) return;
  throw aliasTaken(held, name, `choose another name, or remove it first: gateway alias rm ${held.name}`);
}

/** The refusal of `name` because of the alias `held`. */
export function aliasTaken(held: AliasEntry, name: string, next?: string): OperatorError {
  const message =
    held.name === name
      ? `the alias ${name} stands for ${held.registry} already`
      : `the host ${held.host} belongs to the alias ${held.name}, which stands for ${held.registry}`;
  return new OperatorError('ALIAS_TAKEN', message, next === undefined ? {} : { next });
}

/** The refusal of an alias for a pattern. */
export function aliasOfPattern(pattern: string): OperatorError {
  return new OperatorError(
    'REGISTRY_INVALID',
    `the registry "${pattern}" is a pattern, and an alias stands for one registry`,
    {
      next: `name the host: gateway alias add <name> ${pattern.replaceAll('*', 'x')}`,
    },
  );
}
