import { canonicalRegistry } from '../oci/known-registries.ts';
import { isPattern, patternExpression } from '../oci/names.ts';
import type { RegistryEntry, TableSnapshot } from './table.ts';

interface PatternRow {
  readonly row: RegistryEntry;
  readonly matches: RegExp;
}

/** By the rows of a table: its patterns, so that a host without a row of its own does not make the whole table be read. */
const patternsOf = new WeakMap<TableSnapshot['registries'], readonly PatternRow[]>();

/**
 * The registry that a host names: its own row, the row of the registry that has this name too (Docker Hub has several), or a pattern's, from
 * which a registry of its own is made. A pattern itself names no registry.
 */
export function registryOf({ registries }: Pick<TableSnapshot, 'registries'>, host: string): RegistryEntry | undefined {
  if (isPattern(host)) return undefined;
  const own = registries.get(host);
  if (own !== undefined) return own;
  // The port of HTTPS is the one that a registry without a port has: `quay.io:443` is `quay.io`, where it has no row of its own.
  const name = canonicalRegistry(host.replace(/:443$/, ''));
  const known = registries.get(name);
  if (known !== undefined) return known;
  const found = patterns(registries).find(({ matches }) => matches.test(name));
  return found === undefined ? undefined : ofPattern(found.row, name);
}

/** What a pattern's row says of one host: its endpoints have the host where they have the pattern. */
function ofPattern(row: RegistryEntry, host: string): RegistryEntry {
  return {
    ...row,
    host,
    endpoints: row.endpoints.map((endpoint) => endpoint.replaceAll(row.host, host)),
    pattern: row.host,
  };
}

/**
 * The row of the table as which a registry counts in metrics, since there is no end of hosts that match a pattern; empty where the table has it no
 * more.
 */
export function rowNameOf(table: Pick<TableSnapshot, 'registries'>, host: string): string {
  return table.registries.has(host) ? host : (registryOf(table, host)?.pattern ?? '');
}

/** The more exact ones first: a longer pattern says more of the host. */
function patterns(registries: TableSnapshot['registries']): readonly PatternRow[] {
  const known = patternsOf.get(registries);
  if (known !== undefined) return known;
  const found = [...registries.values()]
    .filter((row) => isPattern(row.host))
    .sort((one, other) => other.host.length - one.host.length || (one.host < other.host ? -1 : 1))
    .map((row) => ({ row, matches: patternExpression(row.host) }));
  patternsOf.set(registries, found);
  return found;
}
