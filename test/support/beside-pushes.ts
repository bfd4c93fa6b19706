import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Way } from '../conformance/distribution.ts';

/**
 * A registry for programs that push and pull: what pushes goes to the upstream, all that is read comes through the gateway, in the shape of
 * one of its ways. So programs whose tests need content of their own making can be run against a gateway that takes none.
 */
export async function startBesidePushes(
  upstream: string,
  way: Way,
): Promise<{ readonly registry: string; close(): Promise<void> }> {
  const server = createServer((incoming, outgoing) => {
    const path = incoming.url ?? '/';
    const reads = incoming.method === 'GET' || incoming.method === 'HEAD';
    if (!reads || path.includes('/blobs/uploads/')) return pass(upstream, incoming, outgoing);
    answer(way, path, incoming, outgoing).catch((error: unknown) => outgoing.destroy(error as Error));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    registry: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(way: Way, path: string, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const { host: _, connection: __, ...headers } = incoming.headers;
  const asked = path === '/v2/' ? path : path.replace(/^\/v2\//, way.base);
  const {
    status,
    headers: answered,
    body,
  } = await way.send(incoming.method ?? 'GET', asked, headers as Record<string, string>);
  if (status === 0) throw new Error('no answer came');
  const { connection: ___, 'keep-alive': ____, 'transfer-encoding': _____, ...kept } = answered;
  outgoing.writeHead(status, kept as Record<string, string>);
  outgoing.end(body);
}

function pass(upstream: string, incoming: IncomingMessage, outgoing: ServerResponse): void {
  const sent = request(new URL(incoming.url ?? '/', upstream), { method: incoming.method, headers: incoming.headers });
  sent.on('response', (response) => {
    outgoing.writeHead(response.statusCode ?? 502, response.headers);
    response.pipe(outgoing);
  });
  sent.on('error', (error) => outgoing.destroy(error));
  incoming.pipe(sent);
}
