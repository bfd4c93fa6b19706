import { planImport, type RegistryDeclaration } from './import-export.ts';
import { defaultEndpoints, registryKey, sameList } from './names.ts';
import type { TableChange } from './store.ts';
import type { AliasEntry, TableSnapshot } from './table.ts';

/** What the table that ships with this version would change in the one there is. */
export interface PresetsDifference {
  /** A sentence each: what would be added or changed. */
  readonly differences: readonly string[];
  /** A sentence each: what stays, since somebody chose it. */
  readonly kept: readonly string[];
  /** Aliases that would be added and are to have a certificate. */
  readonly certificates: number;
}

/** Tells whether an alias is one that comes with this version, as it comes. */
export function presetTest(
  presets: readonly RegistryDeclaration[],
): (alias: Pick<AliasEntry, 'name' | 'registry'>) => boolean {
  const registries = new Map(
    presets.flatMap(({ host, aliases }) => aliases.map(({ name }) => [name, registryKey(host, new Map())] as const)),
  );
  return ({ name, registry }) => registries.get(name) === registry;
}

/**
 * Plans what of the presets goes into a table that has been in use: what it has not, and endpoints that nobody has ever set. What an operator
 * chose stays: other endpoints, those that have credentials, proxies, and an alias that stands for something else.
 */
export function planPresets(
  presets: readonly RegistryDeclaration[],
  snapshot: TableSnapshot,
): { change: TableChange; result: PresetsDifference } {
  const kept: string[] = [];
  const rows = presets.map((preset) => withoutChosen(preset, snapshot, kept));
  const { change, result } = planImport(rows, snapshot);
  const registries = (change.putRegistries ?? []).map(({ host, endpoints }) => {
    const from = endpoints.join(', ');
    return snapshot.registries.has(host)
      ? `${host} is fetched from ${from}`
      : `the registry ${host} is added, fetched from ${from}`;
  });
  const aliases = (change.putAliases ?? []).map(
    ({ name, registry, certificate }) =>
      `the alias ${name} is added for ${registry}${certificate ? '' : ', without a certificate'}`,
  );
  return { change, result: { differences: [...registries, ...aliases], kept, certificates: result.certificates } };
}

function withoutChosen(preset: RegistryDeclaration, snapshot: TableSnapshot, kept: string[]): RegistryDeclaration {
  const key = registryKey(preset.host, snapshot.registries);
  const known = snapshot.registries.get(key);
  const wanted = preset.endpoints ?? defaultEndpoints(key);
  // Credentials are for the endpoints that they were given with: no other host gets to see them.
  const isChosen =
    known !== undefined &&
    (known.credentials !== null || known.named.length > 0 || !sameList(known.endpoints, defaultEndpoints(key)));
  if (isChosen && !sameList(known.endpoints, wanted)) {
    kept.push(`${key} stays at ${known.endpoints.join(', ')}; this version has ${wanted.join(', ')}`);
  }
  const aliases = preset.aliases.filter(({ name }) => {
    const held = snapshot.aliases.get(name) ?? snapshot.hosts.get(`${name}.${snapshot.domain}`);
    if (held === undefined) return true;
    if (held.registry !== key)
      kept.push(`the alias ${held.name} stays with ${held.registry}; this version has it for ${key}`);
    return false;
  });
  return { host: key, endpoints: isChosen ? known.endpoints : wanted, aliases };
}
