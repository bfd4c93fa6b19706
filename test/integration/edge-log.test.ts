import { Writable } from 'node:stream';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type EdgeBed, startEdgeBed } from '../support/edge-bed.ts';
import { eventually } from '../support/eventually.ts';
import { rawExchange, tlsClient } from '../support/raw-client.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;
const lines: Record<string, unknown>[] = [];
let text = '';
const destination = new Writable({
  write(chunk, _encoding, done) {
    text += chunk;
    lines.push(JSON.parse(String(chunk)));
    done();
  },
});

let bed: EdgeBed;
beforeAll(async () => {
  bed = await startEdgeBed({ log: pino({ level: 'info' }, destination) });
});
afterAll(() => bed.stop());

async function ask(request: string): Promise<string> {
  const socket = await tlsClient({ port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' });
  return rawExchange(0, `${request}\r\nHost: localhost\r\nConnection: close\r\n\r\n`, socket);
}

test('one line a request, with what was asked and what became of it', async () => {
  const answer = await ask(`GET /v2/quay.io/org/app/manifests/v1 HTTP/1.1\r\nUser-Agent: test/1`);
  await eventually('lines.length === 1', () => lines.length === 1);
  expect(lines[0]).toMatchObject({
    requestId: /x-request-id: (\S+)/.exec(answer)?.[1],
    method: 'GET',
    host: 'localhost',
    kind: 'manifest',
    registry: 'quay.io',
    repository: 'org/app',
    reference: 'v1',
    status: 200,
    bytes: 2,
    ms: expect.any(Number),
    from: 'cache',
    client: '127.0.0.1',
    userAgent: 'test/1',
    msg: 'request',
  });
  await ask(`HEAD /v2/app/blobs/${DIGEST} HTTP/1.1`);
  await ask('PUT /v2/app/blobs/uploads/ HTTP/1.1');
  await ask('GET /v2/Bad/manifests/1 HTTP/1.1');
  await eventually('lines.length === 4', () => lines.length === 4);
  expect(lines.slice(1)).toMatchObject([
    { method: 'HEAD', kind: 'blob', repository: 'library/app', reference: DIGEST, bytes: 0 },
    { method: 'PUT', kind: 'refused', path: '/v2/app/blobs/uploads/', status: 405 },
    { method: 'GET', path: '/v2/Bad/manifests/1', status: 400 },
  ]);
});

test('no secret, and nothing for health checks', async () => {
  const before = lines.length;
  await ask('GET /healthz HTTP/1.1');
  await ask(
    'GET /v2/app/manifests/1?token=hunter2 HTTP/1.1\r\nAuthorization: Basic aHVudGVyMg==\r\nCookie: hunter2\r\nX-Token: hunter2',
  );
  await ask('GET /nothing?password=hunter2 HTTP/1.1');
  await eventually('lines.length === before + 2', () => lines.length === before + 2);
  expect(text).not.toContain('hunter2');
  expect(text).not.toContain('aHVudGVyMg');
});

test('a client that leaves before the answer is told apart', async () => {
  const { promise, resolve } = Promise.withResolvers<never>();
  bed.registry.answer = () => promise;
  const before = lines.length;
  const pulls = bed.registry.pulls.length;
  const socket = await tlsClient({ port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' });
  socket.write('GET /v2/app/manifests/1 HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await eventually('bed.registry.pulls.length > pulls', () => bed.registry.pulls.length > pulls);
  socket.destroy();
  await eventually('lines.length > before', () => lines.length > before);
  expect(lines.at(-1)).toMatchObject({ status: 499, cut: 'client left', bytes: 0 });
  bed.registry.reset();
  resolve(undefined as never);
});

test('garbage behind a request never lands in the body of its answer', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  bed.registry.answer = async () => {
    await promise;
    return { status: 200, headers: { 'content-length': '2' }, body: Buffer.from('{}'), from: 'cache' };
  };
  const pulls = bed.registry.pulls.length;
  const socket = await tlsClient({ port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' });
  const answer = rawExchange(0, 'GET /v2/app/manifests/1 HTTP/1.1\r\nHost: localhost\r\n\r\n', socket).catch(() => '');
  await eventually('bed.registry.pulls.length > pulls', () => bed.registry.pulls.length > pulls);
  socket.write('\0\0 garbage\r\n\r\n');
  expect(await answer).not.toContain('400');
  resolve();
  bed.registry.reset();
});
