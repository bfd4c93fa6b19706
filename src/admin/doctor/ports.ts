import net from 'node:net';
import type { ListenAddress } from '../../config/config.ts';
import type { OperationsDeps } from '../deps.ts';
import type { Check } from '../rows.ts';

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

/** Binds for a moment, as the gateway will. */
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
