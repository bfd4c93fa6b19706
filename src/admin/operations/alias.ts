import type { AddedAlias } from '../../aliases/alias-table.ts';
import { readAliasYaml, writeAliasYaml } from '../../aliases/yaml.ts';
import type { Operation, OperationContext } from '../contract.ts';
import type { OperationsDeps } from '../deps.ts';
import type { AliasAdded, AliasDetails } from '../rows.ts';
import { bringIntoUse } from './in-use.ts';
import { parseInput } from './input.ts';
import { aliasRow, registryRow } from './rows.ts';

export function aliasOperations(deps: OperationsDeps): Record<string, Operation> {
  const { table } = deps;
  return {
    'alias.add': async (input, context): Promise<AliasAdded> => {
      const added = await table.addAlias(await parseInput('alias.add', input));
      context.step('table', inTable(added));
      const certificate = await bringIntoUse(deps, added.alias, context);
      return {
        alias: aliasRow(deps, added.alias),
        created: { alias: added.aliasAdded, registry: added.registryAdded },
        certificate,
        running: deps.live !== null,
      };
    },

    'alias.ls': async () => {
      // Asked for all at once: one by one the internal CA would sign thousands of leaves.
      const held = new Map(deps.certificates?.list().map((info) => [info.host, info]));
      return [...table.snapshot().aliases.values()]
        .sort(byName)
        .map((alias) => aliasRow(deps, alias, held.get(alias.host) ?? null));
    },

    'alias.show': async (input): Promise<AliasDetails> => {
      const alias = table.alias((await parseInput('alias.show', input)).name);
      return {
        ...aliasRow(deps, alias),
        details: {
          registry: registryRow(table.registry(alias.registry)),
          certificate: deps.certificates?.info(alias.host) ?? null,
        },
      };
    },

    'alias.rm': async (input) => {
      const alias = table.alias((await parseInput('alias.rm', input)).name);
      const row = aliasRow(deps, alias);
      await table.removeAlias(alias.name);
      await deps.live?.settled();
      return row;
    },

    'alias.import': async (input, context) => {
      const { yaml, file } = await parseInput('alias.import', input);
      const result = await table.importRows(readAliasYaml(yaml, file));
      await deps.live?.settled();
      sayWhatFollows(deps, result.aliasesAdded + result.aliasesChanged, context);
      return result;
    },

    'alias.export': async () => ({ yaml: writeAliasYaml(table.exportRows()) }),
  };
}

/** An import waits for no certificate: a thousand aliases take the CA's limits weeks. */
function sayWhatFollows(deps: OperationsDeps, changed: number, context: OperationContext): void {
  if (changed === 0 || deps.certificates === null || deps.config.tls.mode !== 'acme') return;
  context.step(
    'certs',
    deps.live === null
      ? `nothing runs on ${deps.config.dataDir}: their certificates are ordered when the gateway starts`
      : 'their certificates are ordered in the background; see: gateway cert ls',
  );
}

function inTable(added: AddedAlias): string {
  const { alias, registry } = added;
  const from = `fetched from ${registry.endpoints.join(', ')}`;
  const stands = added.aliasAdded
    ? `${alias.name} (${alias.host}) stands for ${registry.host}`
    : `${alias.name} (${alias.host}) stood for ${registry.host} already`;
  if (added.registryAdded) return `${stands}, which is new and ${from}`;
  return added.endpointsChanged ? `${stands}, from now on ${from}` : stands;
}

function byName(one: { name: string }, other: { name: string }): number {
  return one.name < other.name ? -1 : one.name > other.name ? 1 : 0;
}
