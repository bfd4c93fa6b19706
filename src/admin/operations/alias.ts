import type { AddedAlias } from '../../aliases/alias-table.ts';
import { isHostless } from '../../aliases/names.ts';
import type { PresetsDifference } from '../../aliases/presets.ts';
import type { AliasEntry } from '../../aliases/table.ts';
import { readAliasYaml, seedRows, writeAliasYaml } from '../../aliases/yaml.ts';
import type { CertificateInfo } from '../../certs/service.ts';
import { authority, type ClientFacts } from '../../clients/facts.ts';
import type { AliasAdded, AliasDetails, Operation, OperationContext } from '../contract.ts';
import { aliasRow, type OperationsDeps, parseInput, registryRow } from '../operation.ts';
import { waitUntilServed } from '../probe.ts';
import { tryInTable } from '../registry-check.ts';
import { clientFacts } from './client.ts';

export function aliasOperations(deps: OperationsDeps): Record<string, Operation> {
  const { table } = deps;
  return {
    'alias.add': async (input, context): Promise<AliasAdded> => {
      const { check, ...wanted } = await parseInput('alias.add', input);
      const added = await table.addAlias(wanted);
      context.step('table', inTable(added, deps.config.domain));
      // Beside the order of the certificate, which neither needs the registry nor waits for it.
      const checked = check ? tryInTable(deps, added.registry.host, context) : null;
      const [certificate, verdicts] = await allOf(bringIntoUse(deps, added.alias, context), checked);
      return {
        check: verdicts,
        alias: aliasRow(deps, added.alias),
        created: { alias: added.aliasAdded, registry: added.registryAdded },
        certificate,
        running: deps.live !== null,
        address: addressOf(await clientFacts(deps), deps, added.alias),
      };
    },

    'alias.ls': async () => {
      // Asked for all at once: one by one the internal CA would sign thousands of leaves. Those under a wildcard have no row there.
      const held = new Map(deps.certificates?.list().map((info) => [info.host, info]));
      return [...table.snapshot().aliases.values()]
        .sort(byName)
        .map((alias) => aliasRow(deps, alias, held.get(alias.host)));
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
      announceOrders(deps, result.certificates, context);
      return result;
    },

    'alias.presets': async (input, context): Promise<PresetsDifference> => {
      const { take } = await parseInput('alias.presets', input);
      const found = await table.presets(seedRows(), take);
      if (take) {
        await deps.live?.settled();
        announceOrders(deps, found.certificates, context);
      }
      return found;
    },

    'alias.export': async () => ({ yaml: writeAliasYaml(table.exportRows()) }),
  };
}

/** What both came to; waits for both, also where one fails, so that its steps are not lost. */
async function allOf<A, B>(one: Promise<A>, other: Promise<B> | null): Promise<[A, B | null]> {
  await Promise.allSettled([one, other]);
  return Promise.all([one, other]);
}

/**
 * Obtains the alias's certificate and waits until the gateway's own listener answers under it.
 * Null where there is none to obtain. @throws {OperatorError} as the CA refused, or where the listener does not show it.
 */
async function bringIntoUse(
  deps: OperationsDeps,
  alias: AliasEntry,
  context: OperationContext,
): Promise<CertificateInfo | null> {
  const { certificates, live, config } = deps;
  const step = context.step;
  if (isHostless(alias.name, config.domain)) {
    step(
      'prefix',
      `a label has no host below ${config.domain}, which is an address: ${alias.registry} is pulled by prefix`,
    );
    await live?.settled();
    return null;
  }
  if (live === null) {
    const what =
      certificates === null
        ? 'tls.mode is off, so it needs no certificate; it is served'
        : alias.certificate
          ? config.tls.mode === 'internal'
            ? 'its certificate is made'
            : 'the certificate is ordered'
          : 'it is served without a certificate';
    step('later', `nothing runs on ${config.dataDir}: ${what} when the gateway starts`);
    return null;
  }
  if (certificates === null) {
    step('cert', 'tls.mode is off: the program in front of the gateway needs a certificate for this name');
    await waitUntilServed(live, alias.host, null, context);
    return null;
  }
  if (!alias.certificate) {
    step('cert', `none is ordered until: gateway cert renew ${alias.host}`);
    await live.settled();
    return null;
  }
  const info = await certificates.obtain(alias.host, {
    onStep: ({ step: name, message }) => step(name, message),
    signal: context.signal,
  });
  await waitUntilServed(live, alias.host, info, context);
  return info;
}

/** An import does not wait for certificates: with a thousand aliases, a CA's rate limits can take weeks. */
function announceOrders(deps: OperationsDeps, certificates: number, context: OperationContext): void {
  if (certificates === 0 || deps.certificates === null || deps.config.tls.mode !== 'acme') return;
  context.step(
    'certs',
    deps.live === null
      ? `nothing runs on ${deps.config.dataDir}: their certificates are ordered when the gateway starts`
      : 'their certificates are ordered in the background; see: gateway cert ls',
  );
}

function inTable(added: AddedAlias, domain: string): string {
  const { alias, registry } = added;
  const called = isHostless(alias.name, domain) ? alias.name : `${alias.name} (${alias.host})`;
  const from = `fetched from ${registry.endpoints.join(', ')}`;
  if (added.standsFor !== registry.host) {
    const known = added.registryAdded
      ? `new, and ${from}`
      : added.endpointsChanged
        ? `from now on ${from}`
        : 'in the table';
    return `${called} still stands for ${added.standsFor}; ${registry.host} is ${known}`;
  }
  const stands = added.aliasAdded
    ? `${called} stands for ${registry.host}`
    : `${called} stood for ${registry.host} already`;
  if (added.registryAdded) return `${stands}, which is new and ${from}`;
  return added.endpointsChanged ? `${stands}, from now on ${from}` : stands;
}

/** What names of an alias's images begin with. */
function addressOf(facts: ClientFacts, { config }: OperationsDeps, { name, host, registry }: AliasEntry): string {
  return isHostless(name, config.domain) ? `${authority(facts)}/${registry}` : authority(facts, host);
}

function byName(one: { name: string }, other: { name: string }): number {
  return one.name < other.name ? -1 : one.name > other.name ? 1 : 0;
}
