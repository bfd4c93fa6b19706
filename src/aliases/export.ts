import { withoutPassword } from './registry-entry.ts';
import type { RegistryRow } from './rows.ts';
import type { TableSnapshot } from './table.ts';

/** Everything of a table but secrets, sorted by host and name. */
export function exportRows(snapshot: TableSnapshot): RegistryRow[] {
  const aliases = Map.groupBy(snapshot.aliases.values(), (alias) => alias.registry);
  const byText = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0);
  return [...snapshot.registries.values()]
    .sort((one, other) => byText(one.host, other.host))
    .map(({ host, endpoints, proxy, public: open }) => ({
      host,
      endpoints,
      proxy: proxy === null ? null : withoutPassword(proxy),
      public: open,
      aliases: (aliases.get(host) ?? [])
        .sort((one, other) => byText(one.name, other.name))
        .map(({ name, certificate }) => ({ name, certificate })),
    }));
}
