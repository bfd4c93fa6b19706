import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { parseAddress } from '../kit/networks.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { isPattern } from '../oci/names.ts';
import type { TableSnapshot } from './table.ts';

/** The ports of a URL without one. */
const PORTS: Readonly<Record<string, number>> = { 'https:': 443, 'http:': 80 };

/**
 * Refuses a change after which a registry would be fetched from this gateway itself. Only what the change brings is looked at: rows of an earlier
 * version are no reason to refuse another change. What leads here by a name of which the table does not know (DNS, another gateway) ends at its
 * first turn instead: see src/kit/via.ts.
 * @param ports on which this gateway listens
 * @throws {OperatorError} `LEADS_TO_ITSELF`
 */
export function refuseLoops(before: TableSnapshot, after: TableSnapshot, ports: readonly number[]): void {
  for (const { host, endpoints } of after.registries.values()) {
    if (isPattern(host)) continue;
    const known = before.registries.get(host);
    // The registry by its own name, too: it is what an alias is added for, though its endpoint may be another.
    for (const url of [`https://${host}`, ...endpoints]) {
      if (!leadsHere(new URL(url), after, ports)) continue;
      const wasThere = known !== undefined && (known.endpoints.includes(url) || url === `https://${host}`);
      if (wasThere && leadsHere(new URL(url), before, ports)) continue;
      throw new OperatorError(
        'LEADS_TO_ITSELF',
        `the registry ${host} would be fetched from this gateway itself: ${url}`,
        {
          next: 'name the registry as image names have it (quay.io), or the endpoint where its content really is',
        },
      );
    }
  }
}

/** Whether a URL is of this gateway: its domain, the host of `publicUrl` or an alias host, or an address of this machine, at one of its ports. */
function leadsHere(url: URL, { domain, publicHost, hosts }: TableSnapshot, ports: readonly number[]): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = url.port === '' ? (PORTS[url.protocol] ?? 0) : Number(url.port);
  // A name of its own is reached at the ports of the schemes, too, where another program or a port mapping stands in front. `localhost` and
  // addresses are no names of its own: other programs listen there as well.
  const isOwn =
    hosts.has(host) || ((host === domain || host === publicHost) && host !== 'localhost' && isIP(host) === 0);
  if (isOwn && Object.values(PORTS).includes(port)) return true;
  return ports.includes(port) && (isOwn || isOfMachine(host));
}

function isOfMachine(host: string): boolean {
  if (host === 'localhost' || host.endsWith('.localhost')) return true;
  const asked = parseAddress(host);
  if (asked === null) return false;
  const own = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  // The unspecified address connects to the machine itself (RFC 1122 §3.2.1.3).
  if (['loopback', 'unspecified'].includes(asked.range())) return true;
  return own.some(({ address }) => parseAddress(address)?.toString() === asked.toString());
}
