import net, { isIP } from 'node:net';
import { resolveHost } from '../../certs/self-check.ts';
import type { ListenAddress } from '../../config/config.ts';
import type { Check } from '../contract.ts';
import type { OperationsDeps } from '../operation.ts';
import { probeListener } from '../probe.ts';
import { mapInOrder } from './registries.ts';

/** DNS queries at once. */
const PARALLEL_QUERIES = 16;

/** Whether the domain and each alias host resolve, and, of a gateway that runs with ACME, whether they lead to it. */
export async function* checkNames(deps: OperationsDeps, signal: AbortSignal): AsyncGenerator<Check> {
  const { config, table } = deps;
  if (isIP(config.domain) !== 0) {
    yield { name: `dns ${config.domain}`, level: 'ok', message: 'the domain is an address and needs no DNS' };
  }
  // Where certificates are ordered, a host that is to have none and has none is of no use to anybody yet.
  const ordered = config.tls.mode === 'acme' ? deps.certificates : null;
  const used = [...table.snapshot().hosts.values()].filter(
    ({ host, certificate }) => certificate || ordered === null || ordered.info(host) !== null,
  );
  const hosts = [config.domain, ...used.map(({ host }) => host).sort()].filter((host) => isIP(host) === 0);
  // A resolver knows either all names under localhost or none, so one of them is enough.
  const local = hosts.filter((host) => host.endsWith('.localhost'));
  const asked = hosts.filter((host) => !local.includes(host) || host === local[0]);
  yield* mapInOrder(asked, PARALLEL_QUERIES, (host) => checkName(deps, host, signal));
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

/** Whether the gateway's listeners answer or, where none runs, whether their ports can be had. */
export async function* checkPorts(deps: OperationsDeps, signal: AbortSignal): AsyncGenerator<Check> {
  const { listen, metrics } = deps.config;
  if (deps.live !== null) {
    yield await checkListener(deps, deps.live, signal);
    if (listen.http !== null && deps.config.tls.mode !== 'off') {
      for (const address of deps.live.addresses.http) yield await checkConnect('http', address);
    }
    return;
  }
  for (const [name, address] of [
    ['https', listen.https],
    ['http', listen.http],
    ['metrics', metrics.listen],
  ] as const) {
    if (address !== null && address.port !== 0) yield await checkFree(name, address);
  }
}

async function checkListener(
  deps: OperationsDeps,
  live: NonNullable<OperationsDeps['live']>,
  signal: AbortSignal,
): Promise<Check> {
  const { domain, tls } = deps.config;
  const name = tls.mode === 'off' ? 'port http' : 'port https';
  try {
    const { status } = await live.probe(domain, signal);
    if ([200, 401, 403, 429].includes(status))
      return { name, level: 'ok', message: `answers ${domain}/v2/ (${status})` };
    return { name, level: 'fail', message: `answers ${status} to ${domain}/v2/`, next: 'see the log of the gateway' };
  } catch (error) {
    signal.throwIfAborted();
    return {
      name,
      level: 'fail',
      message: `does not answer ${domain}/v2/: ${(error as Error).message}`,
      next: 'see the log of the gateway',
    };
  }
}

function checkConnect(what: string, address: string): Promise<Check> {
  const name = `port ${what}`;
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
  const port = Number(address.slice(colon + 1));
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: ['0.0.0.0', '::', ''].includes(host) ? '127.0.0.1' : host });
    socket.once('connect', () => {
      socket.destroy();
      resolve({ name, level: 'ok', message: `answers on ${address}` });
    });
    socket.once('error', (error) =>
      resolve({ name, level: 'fail', message: `${address}: ${error.message}`, next: 'see the log of the gateway' }),
    );
  });
}

/** Binds the port for a moment, as the gateway would. */
function checkFree(what: string, { host, port }: ListenAddress): Promise<Check> {
  const name = `port ${what}`;
  const shown = `${host ?? ''}:${port}`;
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', (error: NodeJS.ErrnoException) =>
      resolve({ name, level: 'fail', ...refusal(what, shown, port, error) }),
    );
    server.listen({ port, ...(host === undefined ? {} : { host }), exclusive: true }, () => {
      server.close(() => resolve({ name, level: 'ok', message: `${shown} is free` }));
    });
  });
}

function refusal(
  what: string,
  shown: string,
  port: number,
  error: NodeJS.ErrnoException,
): { message: string; next: string } {
  if (error.code === 'EADDRINUSE') {
    return {
      message: `${shown} is taken by another program`,
      next: `end that program (ss -ltnp 'sport = :${port}' names it), or set ${setting(what)}`,
    };
  }
  if (error.code === 'EACCES') {
    return {
      message: `this user may not listen on ${shown}`,
      next: `run as root, give Node cap_net_bind_service, or set ${setting(what)} to a port above 1023`,
    };
  }
  return { message: `${shown} cannot be listened on: ${error.message}`, next: `correct ${setting(what)}` };
}

function setting(what: string): string {
  return what === 'metrics' ? 'metrics.listen' : `listen.${what}`;
}
