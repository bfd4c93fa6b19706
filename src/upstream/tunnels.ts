import { request as plainRequest } from 'node:http';
import type { Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { bareHost, mayName, type Reach } from './addresses.ts';
import { dialAny, ForbiddenAddressError, resolveHost } from './dial.ts';
import type { ProxyServer } from './proxies.ts';

/** A proxy that would not connect us. */
class ProxyError extends Error {
  override readonly name = 'ProxyError';
  readonly code = 'EPROXY';
}

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
  if (proxy.resolves) {
    if (!mayName(reach, target))
      throw new ForbiddenAddressError(`${target} is no host that a public registry may point to`);
  } else {
    target = (await resolveHost(target, reach))[0] ?? target;
  }
  // The proxy is the operator's own choice: its address may be private.
  const toProxy = await dialAny(await resolveHost(proxy.host, 'operator'), proxy.port, timeout);
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

/** HTTP CONNECT (RFC 9110 §9.3.6), to an `https://` proxy over TLS of its own. */
async function connectMethod(
  tcp: Socket,
  proxy: ProxyServer,
  host: string,
  port: number,
  timeout: number,
): Promise<Socket> {
  const socket = proxy.kind === 'https' ? await secured(tcp, proxy.host) : tcp;
  const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`;
  const headers: Record<string, string> = { host: authority };
  if (proxy.username !== null) {
    const credentials = Buffer.from(`${proxy.username}:${proxy.password ?? ''}`).toString('base64');
    headers['proxy-authorization'] = `Basic ${credentials}`;
  }
  return new Promise((resolve, reject) => {
    const fail = (reason: string, cause?: unknown): void => {
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
      timeout,
    });
    request.once('connect', (response, open, head) => {
      if (response.statusCode !== 200) return fail(`it answered ${response.statusCode}`);
      open.setTimeout(0);
      if (head.length > 0) open.unshift(head);
      return resolve(open as Socket);
    });
    request.once('response', (response) => fail(`it answered ${response.statusCode}`));
    request.once('timeout', () => fail(`no answer within ${timeout} ms`));
    request.once('error', (error) => fail(error.message, error));
    request.end();
  });
}

function secured(socket: Socket, host: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const secure = tlsConnect({ socket, servername: host, ALPNProtocols: ['http/1.1'] });
    secure.once('secureConnect', () => resolve(secure));
    secure.once('error', reject);
  });
}
