import {
  createServer as createHttpServer,
  request as httpRequest,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** A proxy for tests: tunnels to loopback, and knows names that nothing else resolves. */
export interface TestProxy {
  readonly port: number;
  /** `host:port` of every tunnel that was asked for, as it was asked for. */
  readonly asked: string[];
  close(): Promise<void>;
}

export interface TestProxyOptions {
  /** Name → `host:port` that it stands for. */
  readonly names?: Readonly<Record<string, string>>;
  readonly credentials?: { readonly username: string; readonly password: string };
  /** Which `host:port` an HTTP proxy opens tunnels to; default all. */
  readonly tunnels?: RegExp;
  /** PEM. */
  readonly tls?: { readonly key: string; readonly cert: string };
}

/** HTTP CONNECT, and forwarding of plain HTTP; an `https://` proxy where `tls` is given. */
export function httpProxy(options: TestProxyOptions = {}): Promise<TestProxy> {
  const asked: string[] = [];
  const server = options.tls === undefined ? createHttpServer() : createHttpsServer(options.tls);
  const { credentials } = options;
  const wanted =
    credentials && `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`;
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? '/');
    asked.push(`${url.hostname}:${url.port || 80}`);
    if (wanted !== undefined && request.headers['proxy-authorization'] !== wanted) {
      response.writeHead(407).end();
      return;
    }
    forward(request, url, options, response);
  });
  server.on('connect', (request, client: Socket, head: Buffer) => {
    asked.push(request.url ?? '');
    // As tinyproxy and squid come: tunnels are for TLS.
    if (options.tunnels !== undefined && !options.tunnels.test(request.url ?? '')) {
      client.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    if (wanted !== undefined && request.headers['proxy-authorization'] !== wanted) {
      client.end('HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    tunnel(request.url ?? '', options, client, (upstream) => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n');
      upstream.write(head);
    });
  });
  return listen(server, asked);
}

/** SOCKS5 (RFC 1928), with user name and password (RFC 1929) where credentials are given. */
export function socksProxy(options: TestProxyOptions = {}): Promise<TestProxy> {
  const asked: string[] = [];
  const server = createServer((client) => {
    let seen = Buffer.alloc(0);
    let step: 'greeting' | 'login' | 'request' = 'greeting';
    const look = (chunk: Buffer): void => {
      seen = Buffer.concat([seen, chunk]);
      if (step === 'greeting' && seen.length >= 2 && seen.length >= 2 + (seen[1] ?? 0)) {
        const method = options.credentials === undefined ? 0 : 2;
        const offered = seen.subarray(2, 2 + (seen[1] ?? 0)).includes(method);
        seen = seen.subarray(2 + (seen[1] ?? 0));
        client.write(Buffer.from([5, offered ? method : 0xff]));
        if (!offered) client.end();
        step = method === 2 ? 'login' : 'request';
      }
      if (step === 'login' && seen.length >= 3) {
        const nameLength = seen[1] ?? 0;
        const passwordLength = seen[2 + nameLength] ?? 0;
        if (seen.length < 3 + nameLength + passwordLength) return;
        const username = seen.toString('utf8', 2, 2 + nameLength);
        const password = seen.toString('utf8', 3 + nameLength, 3 + nameLength + passwordLength);
        seen = seen.subarray(3 + nameLength + passwordLength);
        const right = username === options.credentials?.username && password === options.credentials.password;
        client.write(Buffer.from([1, right ? 0 : 1]));
        if (!right) client.end();
        step = 'request';
      }
      if (step !== 'request' || seen.length < 5) return;
      const kind = seen[3];
      const length = kind === 1 ? 4 : kind === 4 ? 16 : (seen[4] ?? 0) + 1;
      if (seen.length < 6 + length) return;
      const address = seen.subarray(4, 4 + length);
      const host =
        kind === 3
          ? address.toString('latin1', 1)
          : kind === 1
            ? [...address].join('.')
            : `[${(address.toString('hex').match(/.{4}/g) ?? []).join(':')}]`;
      const target = `${host}:${seen.readUInt16BE(4 + length)}`;
      asked.push(target);
      client.off('data', look);
      tunnel(target, options, client, () => client.write(Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])));
    };
    client.on('data', look);
    client.on('error', () => {});
  });
  return listen(server, asked);
}

function forward(request: IncomingMessage, url: URL, options: TestProxyOptions, response: ServerResponse): void {
  const stands = new URL(`http://${options.names?.[url.hostname] ?? url.host}`);
  const { 'proxy-authorization': _, ...headers } = request.headers;
  const onward = httpRequest({
    host: stands.hostname,
    port: Number(stands.port) || 80,
    method: request.method,
    path: `${url.pathname}${url.search}`,
    headers,
  });
  onward.on('response', (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(response);
    answer.on('error', () => response.destroy());
  });
  onward.on('error', () => response.destroy());
  response.on('close', () => onward.destroy());
  onward.end();
}

function tunnel(target: string, options: TestProxyOptions, client: Socket, opened: (upstream: Socket) => void): void {
  const stands = options.names?.[target.replace(/:\d+$/, '')] ?? target;
  const url = new URL(`http://${stands}`);
  const upstream = connect({ host: url.hostname, port: Number(url.port) || 80 });
  upstream.on('connect', () => {
    opened(upstream);
    client.pipe(upstream).pipe(client);
  });
  upstream.on('error', () => client.destroy());
  client.on('error', () => upstream.destroy());
  client.on('close', () => upstream.destroy());
}

async function listen(server: Server, asked: string[]): Promise<TestProxy> {
  const open = new Set<Socket>();
  server.on('connection', (socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    asked,
    close: () => {
      for (const socket of open) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
