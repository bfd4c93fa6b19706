import { describeAuthorities } from '../../kit/authorities.ts';
import type { Operation, RegistryDetails } from '../contract.ts';
import { type OperationsDeps, parseInput, registryRow } from '../operation.ts';

export function registryOperations(deps: OperationsDeps): Record<string, Operation> {
  const { table } = deps;
  return {
    'registry.ls': async () =>
      [...table.snapshot().registries.values()]
        .sort((one, other) => (one.host < other.host ? -1 : one.host > other.host ? 1 : 0))
        .map(registryRow),

    'registry.show': async (input): Promise<RegistryDetails> => {
      const entry = table.registry((await parseInput('registry.show', input)).host);
      const aliases = [...table.snapshot().aliases.values()].filter((alias) => alias.registry === entry.host);
      return {
        ...registryRow(entry),
        ca: entry.ca === null ? [] : describeAuthorities(entry.ca),
        aliases: aliases.map((alias) => alias.name).sort(),
        health: deps.live?.upstream.health(entry.host) ?? [],
      };
    },

    'registry.set': async (input) => {
      const { host, ...settings } = await parseInput('registry.set', input);
      const { registry } = await table.setRegistry(host, settings);
      await deps.live?.settled();
      return registryRow(registry);
    },

    'registry.rm': async (input) => {
      const entry = await table.removeRegistry((await parseInput('registry.rm', input)).host);
      await deps.live?.settled();
      return registryRow(entry);
    },
  };
}
