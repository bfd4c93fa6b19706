import { isIP } from 'node:net';
import { resolveHost } from '../../certs/resolve.ts';
import type { OperationsDeps } from '../deps.ts';
import { probeListener } from '../probe.ts';
import type { Check } from '../rows.ts';
import { each } from './each.ts';

/** DNS questions at once. */
const WIDTH = 16;

/** Whether the domain and each alias host resolve, and, of a gateway that runs with ACME, whether they lead to it. */
export async function* checkNames(deps: OperationsDeps, signal: AbortSignal): AsyncGenerator<Check> {
  const { config, table } = deps;
  if (isIP(config.domain) !== 0) {
    yield { name: `dns ${config.domain}`, level: 'ok', message: 'the domain is an address and needs no DNS' };
  }
  const hosts = [config.domain, ...[...table.snapshot().hosts.keys()].sort()].filter((host) => isIP(host) === 0);
  // Names under localhost are resolved all alike or not at all: one of them stands for the rest.
  const local = hosts.filter((host) => host.endsWith('.localhost'));
  const asked = hosts.filter((host) => !local.includes(host) || host === local[0]);
  yield* each(asked, WIDTH, (host) => checkName(deps, host, signal));
}

async function checkName(deps: OperationsDeps, host: string, signal: AbortSignal): Promise<Check> {
  const name = `dns ${host}`;
  const { addresses, problem } = await resolveHost(host, deps.config.acme.resolvers);
  if (problem !== null) return missing(deps, name, host, problem);
  const elsewhere = await leadsElsewhere(deps, host, addresses, signal);
  if (elsewhere !== null) return { name, level: 'warn', ...elsewhere };
  return { name, level: 'ok', message: `leads to ${addresses.join(', ')}` };
}

function missing(deps: OperationsDeps, name: string, host: string, problem: string): Check {
  // RFC 6761 §6.3: many programs resolve names under localhost themselves, so clients may well find it.
  if (host.endsWith('.localhost')) {
    return {
      name,
      level: 'warn',
      message: 'this machine resolves no names under localhost; some clients do so themselves',
      next: 'pull by prefix (localhost:PORT/REGISTRY/NAME), or set domain to a name with a wildcard DNS record',
    };
  }
  const wildcard = host !== deps.config.domain && host.endsWith(`.${deps.config.domain}`);
  return {
    name,
    level: 'fail',
    message: problem,
    next: wildcard
      ? `make a DNS record *.${deps.config.domain}, or ${host}, that points to this machine`
      : `make an A or AAAA record for ${host} that points to this machine`,
  };
}

/** Connects to the host by each of its addresses and compares certificates: another one means another machine. */
async function leadsElsewhere(
  deps: OperationsDeps,
  host: string,
  addresses: readonly string[],
  signal: AbortSignal,
): Promise<{ message: string; next: string } | null> {
  const { live, certificates, config } = deps;
  const held = certificates?.info(host);
  if (live === null || config.tls.mode !== 'acme' || held?.serial == null) return null;
  const port = config.listen.https?.port;
  if (port === undefined || port === 0) return null;
  for (const address of addresses) {
    let serial: string | null;
    try {
      ({ serial } = await probeListener({ host: address, port, tls: true }, host, signal));
    } catch (error) {
      signal.throwIfAborted();
      return {
        message: `leads to ${address}, where port ${port} cannot be reached from here: ${(error as Error).message}`,
        next: 'open that port, or correct the record; behind NAT without hairpin this is only how it looks from inside',
      };
    }
    if (serial?.toLowerCase() !== held.serial.toLowerCase().replaceAll(':', '')) {
      return {
        message: `leads to ${address}, which answers with another certificate than this gateway's`,
        next: `correct the record of ${host} if ${address} is not this machine`,
      };
    }
  }
  return null;
}
