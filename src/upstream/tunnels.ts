import { request as plainRequest } from 'node:http';
import { isIP, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { bareHost, mayName, type Reach } from './addresses.ts';
import { dialAny, ForbiddenAddressError, resolveHost } from './dial.ts';
import { reasonOf } from './failures.ts';
import { ProxyError, type ProxyServer } from './proxies.ts';

export interface Way {
  readonly reach: Reach;
  readonly proxy: ProxyServer | null;
  /** Milliseconds for everything up to the open TCP connection. */
  readonly timeout: number;
}

/**
 * A TCP connection to host and port, straight or through a proxy. The address is checked where it is known: against what the name
 * resolved to, at the moment of connecting, so that a name that changes its address in between helps nobody; behind a proxy that
 * resolves itself, by the name.
 * @returns the socket and the address at its other end, null where a proxy chose it.
 */
export async function openTunnel(
  host: string,
  port: number,
  way: Way,
): Promise<{ socket: Socket; address: string | null }> {
  const opening = open(host, port, way);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    // Bounds the look-up of the name too, which has no time limit of its own.
    timer = setTimeout(() => {
      opening.then(({ socket }) => socket.destroy()).catch(() => {});
      reject(
        Object.assign(new Error(`no connection to ${host}:${port} within ${way.timeout} ms`), { code: 'ETIMEDOUT' }),
      );
    }, way.timeout);
  });
  return await Promise.race([opening, late]).finally(() => clearTimeout(timer));
}

async function open(host: string, port: number, way: Way): Promise<{ socket: Socket; address: string | null }> {
  const { proxy, reach, timeout } = way;
  if (proxy === null) {
    const socket = await dialAny(await resolveHost(host, reach), port, timeout);
    return { socket, address: socket.remoteAddress ?? null };
  }
  let target = bareHost(host);
  if (proxy.resolves) requireName(reach, target);
  else target = (await resolveHost(target, reach))[0] ?? target;
  // The proxy is the operator's own choice: its address may be private.
  const toProxy = await dialProxy(proxy, timeout);
  try {
    const through =
      proxy.kind === 'socks5'
        ? socks(toProxy, proxy, target, port, timeout)
        : connectMethod(toProxy, proxy, target, port, timeout);
    return { socket: await through, address: proxy.resolves ? null : target };
  } catch (error) {
    toProxy.destroy();
    throw error;
  }
}

/** Where the proxy resolves names, all that can be checked is the name. @throws {ForbiddenAddressError} */
export function requireName(reach: Reach, host: string): void {
  if (mayName(reach, host)) return;
  throw new ForbiddenAddressError(`${host} is no host that a public registry may point to`);
}

/** A connection to the proxy itself, TLS of an `https://` proxy included. @throws {ProxyError} */
export async function dialProxy(proxy: ProxyServer, timeout: number): Promise<Socket> {
  try {
    const socket = await dialAny(await resolveHost(proxy.host, 'operator'), proxy.port, timeout);
    return proxy.kind === 'https' ? await secured(socket, proxy.host, timeout) : socket;
  } catch (error) {
    throw new ProxyError(`the proxy ${proxy.host}:${proxy.port} is out of reach: ${reasonOf(error)}`, { cause: error });
  }
}

async function socks(socket: Socket, proxy: ProxyServer, host: string, port: number, timeout: number): Promise<Socket> {
  try {
    // Most gateways have no such proxy and never load it.
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
async function connectMethod(
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
    // `on`, for it may be told of its end again after `fail`.
    request.on('error', (error) => fail(error.message, error));
    request.end();
  });
}

/** TLS of its own to an `https://` proxy. */
function secured(socket: Socket, host: string, timeout: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    // An address is verified as one, but is no server name (RFC 6066 §3).
    const servername = isIP(host) === 0 ? { servername: host } : {};
    const secure = tlsConnect({ socket, host, ...servername, ALPNProtocols: ['http/1.1'] });
    const late = (): void => {
      secure.destroy(Object.assign(new Error(`no TLS within ${timeout} ms`), { code: 'ETIMEDOUT' }));
    };
    secure.setTimeout(timeout, late);
    secure.once('secureConnect', () => {
      secure.setTimeout(0).off('timeout', late);
      secure.off('error', fail).on('error', () => {});
      resolve(secure);
    });
    const fail = (error: Error): void => {
      socket.destroy();
      reject(error);
    };
    secure.once('error', fail);
  });
}
