import { once } from 'node:events';
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type EdgeBed, startEdgeBed } from '../support/edge-bed.ts';
import { type Answer, parseAnswer, rawExchange, tlsClient } from '../support/raw-client.ts';

let bed: EdgeBed;
beforeAll(async () => {
  bed = await startEdgeBed();
});
afterAll(() => bed.stop());
beforeEach(() => bed.registry.reset());

/** What a client sends, byte for byte, to the HTTPS port; the answer to it. */
async function send(bytes: string): Promise<Answer> {
  const socket = await tlsClient({ port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' });
  return parseAnswer(await rawExchange(0, Buffer.from(bytes, 'latin1'), socket));
}

function expectRefusal(answer: Answer, status = 400): void {
  expect([answer.status, answer.headers['content-type']]).toEqual([status, 'application/json']);
  expect(answer.headers['docker-distribution-api-version']).toBe('registry/2.0');
  expect(Number(answer.headers['content-length'])).toBe(answer.body.length);
  const { errors } = JSON.parse(answer.body);
  expect(errors).toEqual([expect.objectContaining({ code: 'UNSUPPORTED', message: expect.stringMatching(/\w/) })]);
}

/** Of each path that the edge answers by other means: a ping, a manifest, the page, health. */
const PATHS = ['/v2/', '/v2/a/manifests/1', '/', '/healthz'];

describe('a Host that HTTP forbids is refused with 400', () => {
  test.each([
    ['two', 'Host: localhost\r\nHost: hub.localhost\r\n'],
    ['two of a kind', 'Host: localhost\r\nHost: localhost\r\n'],
    ['two, the first empty', 'Host: \r\nHost: localhost\r\n'],
    ['none', ''],
    ['with userinfo', 'Host: someone@localhost\r\n'],
    ['with a path', 'Host: localhost/v2\r\n'],
    ['with a query', 'Host: localhost?x\r\n'],
    ['with a backslash', 'Host: localhost\\x\r\n'],
    ['with a space', 'Host: local host\r\n'],
    ['with a tab', 'Host: local\thost\r\n'],
    ['beyond ASCII', 'Host: h\xfcb.localhost\r\n'],
    ['with a port that is no number', 'Host: localhost:https\r\n'],
    ['with two ports', 'Host: localhost:1:2\r\n'],
    ['with a broken address', 'Host: [::1\r\n'],
    ['with something else in brackets', 'Host: [v1.x]\r\n'],
    ['percent-encoded', 'Host: local%68ost\r\n'],
    ['overlong', `Host: ${'a'.repeat(300)}.localhost\r\n`],
  ])('%s', async (_, host) => {
    for (const path of PATHS) expectRefusal(await send(`GET ${path} HTTP/1.1\r\n${host}\r\n`));
    for (const port of [bed.httpPort, bed.metricsPort]) {
      expectRefusal(parseAnswer(await rawExchange(port, Buffer.from(`GET /v2/ HTTP/1.1\r\n${host}\r\n`, 'latin1'))));
    }
    expect(bed.registry.pulls).toEqual([]);
  });
});

const TARGETS: readonly (readonly [string, string])[] = [
  ['the asterisk-form', '*'],
  ['the authority-form', 'localhost:443'],
  ['a path without its slash', 'v2/'],
  ['a backslash', '/v2\\a/manifests/1'],
  ['a backslash behind the slash', '/\\evil.example/'],
  ['a fragment', '/v2/#x'],
  ['a percent sign alone', '/v2/%'],
  ['a percent sign with one digit', '/v2/a%2/manifests/1'],
  ['a percent sign without hex digits', '/v2/%zz/manifests/1'],
  ['the same in the query', '/v2/?n=%zz'],
  ['overlong', `/v2/${'a'.repeat(9_000)}/manifests/1`],
];

describe('a target that HTTP forbids is refused with 400', () => {
  test.each<readonly [string, string]>([
    ...TARGETS,
    ['bytes beyond ASCII', '/v2/\xc3\xbc/manifests/1'],
    ['userinfo', 'https://someone:secret@localhost/v2/'],
    ['an absolute-form without a host', 'https:///v2/'],
    ['another scheme', 'ftp://localhost/v2/'],
    ['a host with a space', 'https://local%20host/v2/'],
  ])('%s', async (_, target) => {
    expectRefusal(await send(`GET ${target} HTTP/1.1\r\nHost: localhost\r\n\r\n`));
    expect(bed.registry.pulls).toEqual([]);
  });

  test.each(TARGETS)('%s, over HTTP/2', async (_, path) => {
    const session = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: bed.certificates.root });
    const stream = session.request({ ':path': path, ':authority': 'localhost' });
    const answer = await Promise.race([
      once(stream, 'response').then(async ([headers]) => {
        let body = '';
        for await (const chunk of stream) body += chunk;
        const { ':status': status, ...rest } = headers as IncomingHttpHeaders & { ':status': number };
        return { status, headers: rest as Record<string, string>, body };
      }),
      // What cannot be a path of HTTP/2 at all resets the stream (RFC 9113 §8.1.1) before it is a request.
      once(stream, 'error').then(
        () => null,
        () => null,
      ),
    ]).catch(() => null);
    session.destroy();
    if (answer === null) expect(stream.rstCode).not.toBe(0);
    else expectRefusal(answer);
    expect(bed.registry.pulls).toEqual([]);
  });

  test.each([
    [{ ':authority': 'someone@localhost' }],
    [{ ':authority': 'localhost', host: 'hub.localhost' }],
    [{ ':authority': 'local\\host' }],
  ])('over HTTP/2 the authority %o', async (headers) => {
    const session = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: bed.certificates.root });
    const stream = session.request({ ':path': '/v2/', ...headers });
    stream.on('error', () => {});
    const status = await new Promise((resolve) => {
      stream.once('response', (answer) => resolve(answer[':status']));
      stream.once('close', () => resolve('reset'));
    });
    session.destroy();
    expect([400, 'reset']).toContain(status);
  });

  test('what only looks odd is served', async () => {
    for (const [target, host] of [
      ['/v2/?x=%0d', 'localhost:0'],
      ['/v2/', 'LOCALHOST.'],
      ['/v2/', '[::1]:443'],
      ['http://localhost/v2/', 'other.example'],
      ['/v2/?scope=a|b&x={"y"}', 'localhost'],
    ]) {
      expect([
        target,
        (await send(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)).status,
      ]).toEqual([target, 200]);
    }
    expect((await send('GET //nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')).status).toBe(404);
  });
});

describe('messages', () => {
  test('of HTTP/1.0 with Transfer-Encoding are refused with 400, and the connection ends', async () => {
    const answer = await send(
      'GET /v2/ HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2/a/manifests/1 HTTP/1.0\r\n\r\n',
    );
    expectRefusal(answer);
    expect(answer.headers.connection).toBe('close');
    expect(bed.registry.pulls).toEqual([]);
  });

  test.each([
    ['no HTTP at all', 'GET /v2/\r\n\r\n', 400],
    ['another protocol', 'GET /v2/ SPDY/3\r\nHost: localhost\r\n\r\n', 400],
    ['HTTP/2 that was not agreed on', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
    ['a header name with a space', 'GET /v2/ HTTP/1.1\r\nHost : localhost\r\n\r\n', 400],
    ['a folded header', 'GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n', 400],
    ['a zero byte', 'GET /v2/ HTTP/1.1\r\nHost: local\0host\r\n\r\n', 400],
    ['a control character in the target', 'GET /v2/\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n', 400],
    ['two lengths', 'GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', 400],
    [
      'a length and chunks',
      'GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
      400,
    ],
    ['a header of 60 KiB', `GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(61_440)}\r\n\r\n`, 431],
  ])('that the parser refuses: %s', async (_, bytes, status) => {
    expectRefusal(await send(bytes), status);
  });

  test('with 32 KiB of ranges reach the core, over HTTP/1.1 and HTTP/2', async () => {
    const ranges = Array.from({ length: 2_048 }, (_, n) => `${n * 1_000_000}-${n * 1_000_000 + 9}`).join(',');
    const range = `bytes=${ranges}`.slice(0, 32 * 1024).replace(/,[^,]*$/, '');
    expect(range.length).toBeGreaterThan(31 * 1024);
    const path = `/v2/a/blobs/sha256:${'a'.repeat(64)}`;
    expect(
      (await send(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nRange: ${range}\r\nConnection: close\r\n\r\n`)).status,
    ).toBe(200);
    const session = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: bed.certificates.root });
    const stream = session.request({ ':path': path, range });
    const [headers] = await once(stream, 'response');
    expect(headers[':status']).toBe(200);
    session.destroy();
    expect(bed.registry.pulls.map((pull) => pull.range === range)).toEqual([true, true]);
  });
});
