import { lookup } from 'node:dns/promises';
import { request as plainRequest } from 'node:http';
import { connect, isIP, type Socket, type TcpNetConnectOpts } from 'node:net';
import { type SecureContext, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { isUnknownIssuer } from '../../kit/authorities.ts';
import { ForbiddenAddressError, ProxyError, reasonOf } from '../failures.ts';
import { bareHost, mayName, mayReach, type ProxyServer, type Reach } from './egress.ts';
import type { Trust } from './trust.ts';

/** RFC 8305 §5 (Connection Attempt Delay): after this time without an answer the next address is tried beside the one before. */
const ATTEMPT_DELAY_MS = 250;
/** How many addresses of one name are tried. */
const MAX_ADDRESSES = 8;
/** TCP keep-alive finds a peer that vanished while a connection lies idle in the pool. */
const KEEP_ALIVE_MS = 60_000;

export interface DialOptions {
  readonly reach: Reach;
  readonly proxy: ProxyServer | null;
  /** Whom an `https://` proxy's certificate may be signed by; a registry's own authorities vouch for no proxy. */
  readonly trust: Trust;
  /** Milliseconds for everything up to the open TCP connection. */
  readonly timeout: number;
  /** Begins to connect, where no proxy is in between; default: plain TCP. */
  readonly open?: ((options: TcpNetConnectOpts) => Socket) | undefined;
}

/**
 * Opens a TCP connection to host and port, directly or through a proxy. The reach is checked against the very addresses that are then
 * connected to, so that a name whose address changes between check and use (DNS rebinding) gains nothing; where the proxy resolves names,
 * only the name can be checked.
 * @returns the socket and the address at its other end, null where a proxy chose it.
 */
export async function openSocket(
  host: string,
  port: number,
  options: DialOptions,
): Promise<{ socket: Socket; address: string | null }> {
  const opening = open(host, port, options);
  let timer: NodeJS.Timeout | undefined;
  const timedOut = new Promise<never>((_, reject) => {
    // Limits the resolving of the name too, which has no time limit of its own.
    timer = setTimeout(() => {
      opening.then(({ socket }) => socket.destroy()).catch(() => {});
      reject(
        Object.assign(new Error(`no connection to ${host}:${port} within ${options.timeout} ms`), {
          code: 'ETIMEDOUT',
        }),
      );
    }, options.timeout);
  });
  return await Promise.race([opening, timedOut]).finally(() => clearTimeout(timer));
}

async function open(
  host: string,
  port: number,
  options: DialOptions,
): Promise<{ socket: Socket; address: string | null }> {
  const { proxy, reach, trust, timeout, open: begin } = options;
  if (proxy === null) {
    const socket = await dialAny(await resolveHost(host, reach), port, timeout, begin);
    return { socket, address: socket.remoteAddress ?? null };
  }
  let target = bareHost(host);
  if (proxy.resolves) requireName(reach, target);
  else target = (await resolveHost(target, reach))[0] ?? target;
  // The operator chose the proxy: its address may be private.
  const proxySocket = await dialProxy(proxy, trust, timeout);
  try {
    const tunnel =
      proxy.kind === 'socks5'
        ? socksTunnel(proxySocket, proxy, target, port, timeout)
        : connectTunnel(proxySocket, proxy, target, port, timeout);
    return { socket: await tunnel, address: proxy.resolves ? null : target };
  } catch (error) {
    proxySocket.destroy();
    throw error;
  }
}

/** The check where a proxy resolves the name. @throws {ForbiddenAddressError} */
export function requireName(reach: Reach, host: string): void {
  if (mayName(reach, host)) return;
  throw new ForbiddenAddressError(`${host} is no host that a public registry may point to`);
}

/** A connection to the proxy itself, TLS of an `https://` proxy included. @throws {ProxyError} */
export async function dialProxy(proxy: ProxyServer, trust: Trust, timeout: number): Promise<Socket> {
  const trusted = proxy.kind === 'https' ? trust.context(null) : undefined;
  try {
    const socket = await dialAny(await resolveHost(proxy.host, 'operator'), proxy.port, timeout);
    return proxy.kind === 'https' ? await secureProxy(socket, proxy.host, trusted, timeout) : socket;
  } catch (error) {
    if (proxy.kind === 'https' && isUnknownIssuer(error) && trust.readSystem(trusted))
      return dialProxy(proxy, trust, timeout);
    throw new ProxyError(`the proxy ${proxy.host}:${proxy.port} is out of reach: ${reasonOf(error)}`, { cause: error });
  }
}

async function socksTunnel(
  socket: Socket,
  proxy: ProxyServer,
  host: string,
  port: number,
  timeout: number,
): Promise<Socket> {
  try {
    // Loaded on first use: most gateways have no such proxy.
    const { SocksClient } = await import('socks');
    const { socket: open } = await SocksClient.createConnection({
      command: 'connect',
      existing_socket: socket,
      destination: { host, port },
      proxy: {
        host: proxy.host,
        port: proxy.port,
        type: 5,
        ...(proxy.username === null ? {} : { userId: proxy.username, password: proxy.password ?? '' }),
      },
      timeout,
    });
    return open;
  } catch (error) {
    throw new ProxyError(
      `the proxy ${proxy.host}:${proxy.port} did not connect to ${host}:${port}: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
}

/** The credentials of an HTTP proxy, as a header (RFC 9110 §11.7.2). */
export function proxyAuthorization(proxy: ProxyServer): { 'proxy-authorization'?: string } {
  if (proxy.username === null) return {};
  const credentials = Buffer.from(`${proxy.username}:${proxy.password ?? ''}`).toString('base64');
  return { 'proxy-authorization': `Basic ${credentials}` };
}

/** HTTP CONNECT (RFC 9110 §9.3.6). */
async function connectTunnel(
  socket: Socket,
  proxy: ProxyServer,
  host: string,
  port: number,
  timeout: number,
): Promise<Socket> {
  const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`;
  const headers = { host: authority, ...proxyAuthorization(proxy) };
  return new Promise((resolve, reject) => {
    // The request's own `timeout` is never set on a socket that is connected already.
    const late = setTimeout(() => fail(`no answer within ${timeout} ms`), timeout);
    const fail = (reason: string, cause?: unknown): void => {
      clearTimeout(late);
      socket.destroy();
      reject(
        new ProxyError(`the proxy ${proxy.host}:${proxy.port} did not connect to ${authority}: ${reason}`, { cause }),
      );
    };
    const request = plainRequest({
      method: 'CONNECT',
      path: authority,
      headers,
      createConnection: () => socket,
    });
    request.once('connect', (response, open, head) => {
      if (response.statusCode !== 200) return fail(`it answered ${response.statusCode}`);
      clearTimeout(late);
      if (head.length > 0) open.unshift(head);
      return resolve(open as Socket);
    });
    request.once('response', (response) => fail(`it answered ${response.statusCode}`));
    // `on`, not `once`: destroying the socket in `fail` raises another error, which must be handled too.
    request.on('error', (error) => fail(error.message, error));
    request.end();
  });
}

/** TLS with an `https://` proxy itself; that with the registry then runs inside it. */
function secureProxy(
  socket: Socket,
  host: string,
  secureContext: SecureContext | undefined,
  timeout: number,
): Promise<Socket> {
  const secure = tlsConnect({ socket, host, secureContext, ...serverName(host), ALPNProtocols: ['http/1.1'] });
  return handshake(secure, timeout).catch((error: Error) => {
    socket.destroy();
    throw error;
  });
}

/** A certificate is checked against the host either way, but an address may not be sent as the server name (RFC 6066 §3). */
export function serverName(host: string): { servername?: string } {
  return isIP(host) === 0 ? { servername: host } : {};
}

/** Waits until the handshake of a TLS connection that was begun is done. @throws what it failed with */
export function handshake(secure: TLSSocket, timeout: number): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      secure.destroy(Object.assign(new Error(`no TLS within ${timeout} ms`), { code: 'ETIMEDOUT' }));
    }, timeout);
    const fail = (error: Error): void => {
      clearTimeout(late);
      reject(error);
    };
    const ended = (): void =>
      fail(Object.assign(new Error('the connection ended in the TLS handshake'), { code: 'ECONNRESET' }));
    secure.once('error', fail).once('close', ended);
    secure.once('secureConnect', () => {
      clearTimeout(late);
      // An error event without a listener would end the process before the caller has set its own.
      secure
        .off('error', fail)
        .off('close', ended)
        .on('error', () => {});
      resolve(secure);
    });
  });
}

/** The addresses of a host that may be connected to, in the order to try: families alternate (RFC 8305 §4). */
export async function resolveHost(host: string, reach: Reach): Promise<string[]> {
  const name = bareHost(host);
  const all = isIP(name) !== 0 ? [name] : (await lookup(name, { all: true, order: 'verbatim' })).map((a) => a.address);
  const allowed = all.filter((address) => mayReach(reach, address));
  if (allowed.length === 0) {
    throw new ForbiddenAddressError(
      `${name} is ${all[0] ?? 'nothing'}, an address that a public registry may not point to`,
    );
  }
  return alternate(allowed).slice(0, MAX_ADDRESSES);
}

function alternate(addresses: readonly string[]): string[] {
  const first = isIP(addresses[0] ?? '');
  const one = addresses.filter((address) => isIP(address) === first);
  const other = addresses.filter((address) => isIP(address) !== first);
  return one.flatMap((address, i) => [address, ...other.slice(i, i + 1)]).concat(other.slice(one.length));
}

/** Connects to the first address that answers; each further one is tried `ATTEMPT_DELAY_MS` later, or at once when the one before failed (RFC 8305). */
export function dialAny(
  addresses: readonly string[],
  port: number,
  timeout: number,
  open: (options: TcpNetConnectOpts) => Socket = connect,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const trying = new Set<Socket>();
    let next = 0;
    let settled = false;
    let lastError: Error | undefined;
    let stagger: NodeJS.Timeout | undefined;

    const finish = (winner: Socket | null, error?: Error): void => {
      settled = true;
      clearTimeout(deadline);
      clearTimeout(stagger);
      for (const socket of trying) if (socket !== winner) socket.destroy();
      if (winner === null) reject(error);
      else resolve(winner);
    };
    const attempt = (): void => {
      clearTimeout(stagger);
      const host = addresses[next++];
      if (host === undefined || settled) return;
      const socket = open({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS });
      trying.add(socket);
      socket.once('connect', () => {
        // An error event without a listener would end the process before the caller has set its own.
        socket.off('error', onError).on('error', () => {});
        finish(socket);
      });
      const onError = (error: Error): void => {
        lastError = error;
        trying.delete(socket);
        if (settled) return;
        if (next < addresses.length) attempt();
        else if (trying.size === 0) finish(null, error);
      };
      socket.once('error', onError);
      if (next < addresses.length) stagger = setTimeout(attempt, ATTEMPT_DELAY_MS);
    };
    const deadline = setTimeout(() => finish(null, timeoutError(addresses, port, timeout, lastError)), timeout);
    attempt();
  });
}

function timeoutError(addresses: readonly string[], port: number, timeout: number, cause: unknown): Error {
  const error = new Error(`no connection to ${addresses.join(', ')} port ${port} within ${timeout} ms`, { cause });
  return Object.assign(error, { code: 'ETIMEDOUT' });
}
