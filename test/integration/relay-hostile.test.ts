import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { parseImageName } from '../../src/images/image-name.ts';
import { Relay } from '../../src/images/relay.ts';
import type { OperatorError } from '../../src/kit/operator-error.ts';
import { openTarget } from '../../src/upstream/push/open-target.ts';
import { FileJournal } from '../../src/upstream/push/upload-journal.ts';
import { MemoryImages } from '../support/memory-images.ts';
import { buildImage } from '../support/oci-image.ts';

// Destinations of `relay` that do what no registry should.

const NAME = 'docker.io/library/app:1';
const LOGIN = { username: 'bob', password: 'the-secret-of-bob' };
const BASIC = Buffer.from(`${LOGIN.username}:${LOGIN.password}`).toString('base64');
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

type Answer = (request: IncomingMessage, response: ServerResponse) => unknown;
interface Host {
  readonly url: string;
  readonly host: string;
  readonly seen: IncomingMessage[];
}

async function host(answer: Answer): Promise<Host> {
  const seen: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    seen.push(request);
    request.resume();
    answer(request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const at = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { url: `http://${at}`, host: at, seen };
}

/** An empty registry that lets Basic in; `upload` answers what is about an upload. */
function registry(upload: Answer): Answer {
  return (request, response) => {
    if (request.headers.authorization === undefined)
      response.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end();
    else if (request.url === '/v2/') response.end('{}');
    else if (request.url?.includes('/blobs/uploads/')) upload(request, response);
    else response.writeHead(404).end();
  };
}

/** Relays an image of one layer. @returns how it failed */
async function failureOf(to: Host): Promise<OperatorError> {
  const source = new MemoryImages();
  source.add(NAME, buildImage('hostile', [300_000]));
  const signal = AbortSignal.timeout(60_000);
  const options = {
    config: { proxy: null, caFile: null, stallTimeout: 5_000 },
    pseudonym: 'of-this-test',
    environment: {},
    tell: () => {},
    backoff: { tries: 2, first: 1, most: 100 },
    chunk: 64 * 1024,
    answerTimeout: 300,
  };
  const open = { registry: to.host, credentials: LOGIN, realms: [], ca: null, plainHttp: true };
  const target = await openTarget(open, options, signal);
  closers.push(() => target.close());
  const relay = new Relay({ source, target, onBlob: () => {} });
  const selection = { platforms: null, referrers: false };
  return await relay.relay(parseImageName(NAME), { repository: 'mirror/app', tag: '1' }, selection, signal).then(
    () => {
      throw new Error('it was relayed');
    },
    (error: OperatorError) => error,
  );
}

test('credentials that a destination repeats in its refusal are in no error', async () => {
  const to = await host(
    registry(({ headers }, response) => {
      const message = `what is ${headers.authorization?.replace('Basic ', '')} with ${LOGIN.password}?`;
      response.writeHead(403).end(JSON.stringify({ errors: [{ code: 'DENIED', message }] }));
    }),
  );
  const error = await failureOf(to);
  expect(error).toMatchObject({ code: 'PUSH_REFUSED', message: expect.stringContaining('what is *** with ***?') });
});

test.each(['POST', 'PATCH'])('an answer to %s that comes byte by byte, without end, is given up', async (method) => {
  const to = await host(
    registry((request, response) => {
      const location = `${to.url}/v2/mirror/app/blobs/uploads/1`;
      response.writeHead(request.method === 'PUT' ? 201 : 202, { location, range: '0-0' });
      if (request.method !== method) return response.end();
      const drip = setInterval(() => response.write(' '), 20);
      return response.once('close', () => clearInterval(drip));
    }),
  );
  expect(await failureOf(to)).toMatchObject({ code: 'PUSH_FAILED', message: expect.stringContaining('does not end') });
});

test('an upload that goes to another host takes no credentials with it', async () => {
  const other = await host((_, response) => response.writeHead(403).end());
  const to = await host(
    registry((_, response) => response.writeHead(202, { location: other.url.replace('127.0.0.1', 'localhost') }).end()),
  );
  await failureOf(to);
  expect(other.seen.length).toBeGreaterThan(0);
  expect(JSON.stringify(other.seen.map(({ headers, url }) => [headers, url]))).not.toMatch(
    new RegExp(`authorization|${BASIC}|${LOGIN.password}`, 'i'),
  );
});

test('redirects without end are given up', async () => {
  const to = await host(registry(({ url }, response) => response.writeHead(307, { location: `${url}x` }).end()));
  const error = await failureOf(to);
  expect(error).toMatchObject({ code: 'PUSH_FAILED', message: expect.stringContaining('redirect') });
  expect(to.seen.length).toBeLessThan(100);
});

test('whoever asks for a login again and again is told as one that refuses', async () => {
  let challenges = 0;
  const to = await host((request, response) => {
    if (request.url === '/v2/' && request.headers.authorization !== undefined) return response.end('{}');
    challenges += 1;
    return response.writeHead(401, { 'www-authenticate': `Basic realm="${challenges}"` }).end();
  });
  expect(await failureOf(to)).toMatchObject({ code: 'PUSH_REFUSED' });
  expect(challenges).toBeLessThan(60);
});

test('a journal with a name that leads nowhere is one all the same', async () => {
  const folder = join(mkdtempSync(join(tmpdir(), 'journal-')), 'journal');
  closers.push(() => rmSync(join(folder, '..'), { recursive: true }));
  mkdirSync(folder, { mode: 0o700 });
  symlinkSync('/nowhere', join(folder, 'gone.json'));
  const journal = new FileJournal(folder);
  const key = { origin: 'https://registry.example', repository: 'app', digest: `sha256:${'a'.repeat(64)}` };
  const session = { location: new URL('https://registry.example/upload'), offset: 3, minChunk: 0 };
  await journal.put(key, session);
  expect(await journal.take(key)).toEqual(session);
});
