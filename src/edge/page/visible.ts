import { isInternalAlias, isInternalHost } from '../../aliases/discretion.ts';
import type { TableSnapshot } from '../../aliases/table.ts';
import type { ClientFacts } from '../../clients/facts.ts';
import { isGlobalAddress, parseAddress } from '../../kit/networks.ts';
import type { RegistryOutline } from '../../proxy/outline.ts';

/** Who asks, as far as it decides what may be told. */
export interface Asker {
  /** The operator knows the client by its credentials, or by a network that the configuration names. */
  readonly known: boolean;
  readonly address: string;
}

/**
 * Whether a client is none of its operator's own people. Everyone who reaches a gateway without a public name from an address that is not
 * globally reachable counts as one of them: there is nobody else on such a network.
 */
export function isStranger(
  { known, address }: Asker,
  { domain, publicHost }: Pick<TableSnapshot, 'domain' | 'publicHost'>,
): boolean {
  if (known) return false;
  const isPublic = !isInternalHost(domain) || (publicHost !== undefined && !isInternalHost(publicHost));
  const parsed = parseAddress(address);
  return isPublic || parsed === null || isGlobalAddress(parsed);
}

/** What a stranger is told: nothing of registries that are their operator's own business, nor of aliases that stand for them or are internal hosts. */
export function forStrangers(facts: ClientFacts, outlines: readonly RegistryOutline[]): ClientFacts {
  const unlisted = new Set(outlines.filter((outline) => outline.unlisted).map(({ host }) => host));
  return {
    ...facts,
    registries: facts.registries.filter((host) => !unlisted.has(host)),
    patterns: facts.patterns.filter((host) => !unlisted.has(host)),
    aliases: facts.aliases.filter((alias) => !unlisted.has(alias.registry) && !isInternalAlias(alias)),
  };
}
