import { describeAuthorities } from '../../kit/authorities.ts';
import type { Operation, RegistryDetails, RegistrySet } from '../contract.ts';
import { type OperationsDeps, parseInput, registryRow } from '../operation.ts';
import { tryInTable } from '../registry-check.ts';

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
        budgets: deps.live?.upstream.budgets(entry.host) ?? [],
      };
    },

    'registry.set': async (input, context): Promise<RegistrySet> => {
      const { host, check, ...settings } = await parseInput('registry.set', input);
      const { registry } = await table.setRegistry(host, settings);
      await deps.live?.settled();
      return {
        ...registryRow(registry),
        check: check ? await tryInTable(deps, registry.host, context, settings.named?.name) : null,
      };
    },

    'registry.rm': async (input) => {
      const entry = await table.removeRegistry((await parseInput('registry.rm', input)).host);
      await deps.live?.settled();
      return registryRow(entry);
    },
  };
}
