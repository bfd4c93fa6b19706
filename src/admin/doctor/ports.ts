import { readdir, readFile, readlink } from 'node:fs/promises';
import net from 'node:net';
import type { ListenAddress } from '../../config/config.ts';
import type { OperationsDeps } from '../operation.ts';
import type { Finding } from './finding.ts';
import type { Surroundings } from './surroundings.ts';

/** Whether the gateway's listeners answer or, where none runs, whether their ports can be had. */
export async function checkPorts(deps: PortsDeps, around: Surroundings, signal: AbortSignal): Promise<Finding[]> {
  const { live, config } = deps;
  const { listen, metrics, tls } = config;
  if (live !== null) {
    const http = listen.http !== null && tls.mode !== 'off' ? live.addresses.http : [];
    const told = live.addresses.metrics === null ? [] : [live.addresses.metrics];
    return await Promise.all([
      checkListener(deps, live, signal),
      ...http.map((address) => checkConnect('http', address)),
      ...told.map((address) => checkConnect('metrics', address)),
    ]);
  }
  const wanted = [
    ['https', listen.https],
    ['http', listen.http],
    ['metrics', metrics.listen],
  ] as const;
  const found = wanted.map(async ([name, address]) =>
    address === null || address.port === 0 ? [] : [await checkFree(name, address, around)],
  );
  return (await Promise.all(found)).flat();
}

type PortsDeps = Pick<OperationsDeps, 'live' | 'config'>;

async function checkListener(
  { config }: PortsDeps,
  live: NonNullable<OperationsDeps['live']>,
  signal: AbortSignal,
): Promise<Finding> {
  const { domain, tls } = config;
  const name = tls.mode === 'off' ? 'port http' : 'port https';
  const next = 'see the log of the gateway; systemctl restart registry-gateway, or however it is run';
  try {
    const { status } = await live.probe(domain, signal);
    // The gateway's own rules for clients may keep itself out.
    if ([200, 401, 403, 429].includes(status))
      return { name, level: 'ok', message: `answers ${domain}/v2/ (${status})` };
    return { name, level: 'fail', message: `answers ${status} to ${domain}/v2/`, next };
  } catch (error) {
    // As a gateway answers TLS before it has a certificate, which is a finding of its own.
    if (/unrecognized name/.test((error as Error).message)) {
      const message = `answers, and has no certificate for ${domain} yet`;
      return { name, level: 'warn', message, next: `gateway cert explain ${domain}`, because: `certificate ${domain}` };
    }
    return { name, level: 'fail', message: `does not answer ${domain}/v2/: ${(error as Error).message}`, next };
  }
}

/** A listener on this machine that is well answers at once, ms. */
const CONNECT_TIMEOUT = 3_000;

function checkConnect(what: string, address: string): Promise<Finding> {
  const name = `port ${what}`;
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
  const port = Number(address.slice(colon + 1));
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: ['0.0.0.0', '::', ''].includes(host) ? '127.0.0.1' : host });
    const failed = (why: string) => {
      socket.destroy();
      resolve({ name, level: 'fail', message: `${address}: ${why}`, next: 'see the log of the gateway' });
    };
    socket.setTimeout(CONNECT_TIMEOUT, () => failed('takes no connection'));
    socket.once('connect', () => {
      socket.destroy();
      resolve({ name, level: 'ok', message: `answers on ${address}` });
    });
    socket.once('error', (error) => failed(error.message));
  });
}

/** Binds the port for a moment, as the gateway would. */
async function checkFree(what: string, { host, port }: ListenAddress, { proc }: Surroundings): Promise<Finding> {
  const name = `port ${what}`;
  const shown = `${host ?? ''}:${port}`;
  const error = await new Promise<NodeJS.ErrnoException | null>((resolve) => {
    const server = net.createServer();
    server.once('error', resolve);
    server.listen({ port, ...(host === undefined ? {} : { host }), exclusive: true }, () => {
      server.close(() => resolve(null));
    });
  });
  if (error === null) return { name, level: 'ok', message: `${shown} is free` };
  const holder = error.code === 'EADDRINUSE' ? await holderOf(port, proc) : null;
  return { name, level: 'fail', ...refusal(what, shown, port, error, holder) };
}

function refusal(
  what: string,
  shown: string,
  port: number,
  error: NodeJS.ErrnoException,
  holder: Holder | null,
): { message: string; next: string } {
  if (error.code === 'EADDRINUSE') {
    if (holder === null) {
      return {
        message: `${shown} is taken by another program`,
        next: `end that program (ss -ltnp 'sport = :${port}' as root names it), or set ${setting(what)}`,
      };
    }
    const { pid, name, isGateway } = holder;
    const by = isGateway ? `another gateway (process ${pid})` : `${name} (process ${pid})`;
    return {
      message: `${shown} is taken by ${by}`,
      next: isGateway
        ? `end that one (kill ${pid}), or act on it: name its data directory with --data-dir`
        : `end ${name} (systemctl disable --now ${name}, or kill ${pid}), or set ${setting(what)} to another port and let ${name} pass requests on (publicUrl)`,
    };
  }
  if (error.code === 'EACCES') {
    return {
      message: `this user may not listen on ${shown}`,
      next: `run as root, give Node cap_net_bind_service, or set ${setting(what)} to a port above 1023`,
    };
  }
  if (error.code === 'EADDRNOTAVAIL') {
    return {
      message: `${shown} is no address of this machine`,
      next: `set ${setting(what)} to an address that it has (ip addr), or to the port alone for all of them`,
    };
  }
  return { message: `${shown} cannot be listened on: ${error.message}`, next: `correct ${setting(what)}` };
}

function setting(what: string): string {
  return what === 'metrics' ? 'metrics.listen' : `listen.${what}`;
}

/** Who listens on a port. */
interface Holder {
  readonly pid: number;
  readonly name: string;
  readonly isGateway: boolean;
}

/** By the tables of proc(5): the socket's inode, then the process that has it open. Null where this user may not see it. */
async function holderOf(port: number, proc: string): Promise<Holder | null> {
  const inodes = new Set<string>();
  for (const file of ['tcp', 'tcp6']) {
    const text = await readFile(`${proc}/net/${file}`, 'utf8').catch(() => '');
    for (const line of text.split('\n').slice(1)) {
      const [, local = '', , state, , , , , , inode = ''] = line.trim().split(/\s+/);
      if (state === '0A' && Number.parseInt(local.split(':')[1] ?? '', 16) === port) inodes.add(`socket:[${inode}]`);
    }
  }
  if (inodes.size === 0) return null;
  for (const pid of (await readdir(proc)).filter((name) => /^\d+$/.test(name))) {
    const files = await readdir(`${proc}/${pid}/fd`).catch(() => []);
    for (const file of files) {
      const target = await readlink(`${proc}/${pid}/fd/${file}`).catch(() => '');
      if (!inodes.has(target)) continue;
      const name = (await readFile(`${proc}/${pid}/comm`, 'utf8').catch(() => '')).trim() || 'a program';
      const command = (await readFile(`${proc}/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
      return { pid: Number(pid), name, isGateway: command.includes('serve') && /node|gateway/.test(command.join(' ')) };
    }
  }
  return null;
}
