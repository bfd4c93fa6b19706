import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { afterEach, describe, expect, it } from 'vitest';
import { answersBed, closeAfterEach, REGISTRY, toldOf } from '../support/answers-bed.ts';

closeAfterEach();
const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

interface Asked {
  readonly method: string;
  readonly query: URLSearchParams;
  readonly form: URLSearchParams;
  readonly authorization: string | undefined;
}

/** A registry with one manifest behind a token, and its token endpoint, which answers as a test says. */
async function tokenRegistry(
  realm: (origin: string) => string,
  answer: (request: IncomingMessage, response: ServerResponse) => void = giveToken,
) {
  const asked: Asked[] = [];
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://x');
    if (pathname.endsWith('/token')) {
      let body = '';
      for await (const chunk of request) body += chunk;
      const { method = '', headers } = request;
      asked.push({
        method,
        query: searchParams,
        form: new URLSearchParams(body),
        authorization: headers.authorization,
      });
      answer(request, response);
      return;
    }
    if (request.headers.authorization !== 'Bearer good') {
      const { port } = server.address() as AddressInfo;
      const challenge = `Bearer realm="${realm(`127.0.0.1:${port}`)}",service="s",scope="repository:library/app:pull"`;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
      return;
    }
    response.writeHead(200, { 'content-type': 'application/vnd.oci.image.manifest.v1+json' });
    response.end('{"schemaVersion":2}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const { bed, fake, manifest } = await answersBed();
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const use = (credentials?: { username: string; password: string }) =>
    bed.put(REGISTRY, { fake, endpoints: [endpoint], ...(credentials === undefined ? {} : { credentials }) });
  use();
  return { asked, use, manifest };
}

const TOKEN = JSON.stringify({ token: 'good', expires_in: 300 });

function giveToken(_: IncomingMessage, response: ServerResponse): void {
  response.end(TOKEN);
}

describe('a realm', () => {
  it.each([
    ['that is absolute', (origin: string) => `http://${origin}/token`],
    ['that is a path', () => '/token'],
    ['without a scheme', (origin: string) => `${origin}/auth/token`],
    ['without a scheme, behind slashes', (origin: string) => `//${origin}/token`],
    ['with spaces around it', (origin: string) => ` http://${origin}/token `],
    ['with upper-case letters', (origin: string) => `HTTP://${origin}/token`],
  ])('%s is asked', async (_, realm) => {
    const { manifest, asked } = await tokenRegistry(realm);
    expect((await manifest('1')).status).toBe(200);
    expect(asked.map(({ query }) => query.get('service'))).toEqual(['s']);
  });

  it.each([
    ['nothing', '', 401],
    ['a word', 'token', 401],
    ['a mail address', 'mailto:a@b.example', 401],
    ['another scheme', 'ftp://127.0.0.1/token', 502],
    ['an address that no registry may name', 'http://169.254.169.254/token', 502],
  ])('that is %s is none', async (_, realm, status) => {
    const { manifest, asked } = await tokenRegistry(() => realm);
    expect((await toldOf(manifest('1'))).status).toBe(status);
    expect(asked).toEqual([]);
  });
});

describe('a token endpoint that takes no GET', () => {
  const postOnly = (request: IncomingMessage, response: ServerResponse): void => {
    if (request.method === 'POST') giveToken(request, response);
    else response.writeHead(405, { allow: 'POST' }).end();
  };

  it('is asked by POST, and from then on at once', async () => {
    const { manifest, asked, use } = await tokenRegistry(() => '/token', postOnly);
    expect((await manifest('1')).status).toBe(200);
    expect(asked.map(({ method }) => method)).toEqual(['GET', 'POST']);
    expect(Object.fromEntries(asked[1]?.form ?? [])).toEqual({
      service: 's',
      scope: 'repository:library/app:pull',
      client_id: 'registry-gateway',
      grant_type: 'client_credentials',
    });
    use({ username: 'ops', password: 'a&b=c' });
    expect((await manifest('2', { authenticated: true })).status).toBe(200);
    expect(asked.map(({ method }) => method)).toEqual(['GET', 'POST', 'POST']);
    expect(asked[2]?.authorization).toBeUndefined();
    expect(Object.fromEntries(asked[2]?.form ?? [])).toMatchObject({
      grant_type: 'password',
      username: 'ops',
      password: 'a&b=c',
    });
  });

  it('nor POST says so itself', async () => {
    const { manifest } = await tokenRegistry(
      () => '/token',
      (_, response) => void response.writeHead(405).end(),
    );
    const told = await toldOf(manifest('1'));
    expect([told.status, told.message]).toEqual([502, expect.stringContaining('its token endpoint answered 405')]);
  });

  it('for once, and gives nothing by POST, is asked by GET the next time', async () => {
    let isDown = true;
    const { manifest, asked } = await tokenRegistry(
      () => '/token',
      (request, response) => {
        if (request.method === 'POST') response.writeHead(400).end();
        else if (isDown) response.writeHead(405).end();
        else giveToken(request, response);
      },
    );
    expect((await toldOf(manifest('1'))).status).toBe(502);
    isDown = false;
    expect((await manifest('1')).status).toBe(200);
    expect(asked.map(({ method }) => method)).toEqual(['GET', 'POST', 'GET']);
  });

  it('does not get credentials by POST that are not for it', async () => {
    const { manifest, asked, use } = await tokenRegistry(
      (origin) => `http://${origin.replace('127.0.0.1', '127.66.6.6')}/token`,
    );
    use({ username: 'ops', password: 'secret' });
    const told = await toldOf(manifest('1', { authenticated: true }));
    expect([told.status, told.message]).toEqual([502, expect.stringContaining('--realm')]);
    expect(asked).toEqual([]);
  });
});

describe('a token', () => {
  it.each([
    ['gzip', gzipSync(TOKEN)],
    ['BR', brotliCompressSync(TOKEN)],
    ['gzip', TOKEN],
    ['identity', TOKEN],
  ])('that comes with the encoding %s is read', async (encoding, body) => {
    const { manifest } = await tokenRegistry(
      () => '/token',
      (_, response) => void response.writeHead(200, { 'content-encoding': encoding }).end(body),
    );
    expect((await manifest('1')).status).toBe(200);
  });

  it.each([
    ['in deep JSON', `{"token":${'['.repeat(30_000)}`],
    ['in a web page', '<html>'],
    ['with a line break', JSON.stringify({ token: 'good\r\nx: y' })],
    ['of no text', JSON.stringify({ token: { a: 1 } })],
    ['too long to be sent', JSON.stringify({ token: 'x'.repeat(20_000) })],
    ['larger than is read', JSON.stringify({ token: 'good', pad: 'x'.repeat(100_000) })],
  ])('that comes %s is none', async (_, body) => {
    const { manifest } = await tokenRegistry(
      () => '/token',
      (_request, response) => void response.end(body),
    );
    expect((await toldOf(manifest('1'))).status).toBe(502);
  });
});

describe('Retry-After', () => {
  it.each([
    ['999999999', 6 * 3600],
    ['1e9', 60],
    ['-5', 60],
    ['soon', 60],
    ['2.5', 2.5],
    [new Date(Date.now() - 3_600_000).toUTCString(), 0],
    ['Fri, 31 Dec 9999 23:59:59 GMT', 6 * 3600],
    ['9'.repeat(400), 6 * 3600],
  ])('%.40s is a wait that a client can keep', async (value, seconds) => {
    const { fake, ask } = await answersBed();
    fake.faults = () => ({ status: 429, headers: { 'retry-after': value } });
    const error = await ask({ kind: 'tags' }).catch((thrown: unknown) => thrown);
    expect((error as { options: { retryAfter: number } }).options.retryAfter).toBe(seconds);
  });
});
