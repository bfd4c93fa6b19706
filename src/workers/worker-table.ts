import type { AliasEntry, RegistryEntry, TableSnapshot } from '../aliases/table.ts';
import type { StateMessage } from './wire.ts';

/** The table as a worker needs it: which names there are. Where content comes from, only the owner must know. */
export function tableOf(domain: string, state: StateMessage): TableSnapshot {
  const registries = new Map(
    state.registries.map((host): [string, RegistryEntry] => [
      host,
      { host, endpoints: [], proxy: null, credentials: null, public: false },
    ]),
  );
  const aliases = new Map<string, AliasEntry>();
  const hosts = new Map<string, AliasEntry>();
  for (const alias of state.aliases) {
    aliases.set(alias.name, alias);
    hosts.set(alias.host, alias);
  }
  return { domain, registries, aliases, hosts };
}
