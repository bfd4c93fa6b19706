import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { describeProblem, Transport } from '../../../src/acme/transport.ts';

describe('describeProblem', () => {
  it('joins the subproblems, which say it more exactly', () => {
    expect(
      describeProblem({
        type: 'urn:ietf:params:acme:error:compound',
        detail: 'some are wrong',
        subproblems: [{ type: 'urn:ietf:params:acme:error:caa', detail: 'forbidden by CAA' }],
      }),
    ).toEqual({
      type: 'urn:ietf:params:acme:error:compound',
      detail: 'some are wrong; urn:ietf:params:acme:error:caa: forbidden by CAA',
    });
  });

  it('takes nothing else for a problem', () => {
    for (const value of [null, 'text', {}, { type: 7 }]) expect(describeProblem(value)).toBeNull();
  });
});

describe('Transport', () => {
  async function open(answer: RequestListener) {
    const server = createServer(answer).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const transport = new Transport(`${base}/directory`, null);
    onTestFinished(() => {
      transport.close();
      server.closeAllConnections();
      server.close();
    });
    const terms = { signal: new AbortController().signal, timeout: 200 };
    return { base, send: (path: string) => transport.send('GET', `${base}${path}`, terms), transport, terms };
  }

  it('keeps type, status and Retry-After of a problem', async () => {
    const { send } = await open((_, response) => {
      const body = JSON.stringify({ type: 'urn:ietf:params:acme:error:rateLimited', detail: 'too many' });
      response.writeHead(429, { 'retry-after': '60', 'content-type': 'application/problem+json' }).end(body);
    });
    await expect(send('/')).rejects.toMatchObject({
      type: 'urn:ietf:params:acme:error:rateLimited',
      detail: 'too many',
      status: 429,
      retryAfter: 60_000,
    });
  });

  it('bounds an answer that never comes, one that never ends, and one that is too long', async () => {
    const { send } = await open((request, response) => {
      if (request.url === '/hang') return;
      response.writeHead(200);
      if (request.url === '/stall') response.write('{');
      else response.end(Buffer.alloc(2 * 1024 * 1024));
    });
    await expect(send('/hang')).rejects.toMatchObject({ type: 'timeout' });
    await expect(send('/stall')).rejects.toMatchObject({ type: 'timeout' });
    await expect(send('/long')).rejects.toMatchObject({ type: 'badAnswer' });
  });

  it('calls a refused connection by its name', async () => {
    const { transport, terms } = await open(() => {});
    await expect(transport.send('GET', 'http://127.0.0.1:1/', terms)).rejects.toMatchObject({
      type: 'network',
      detail: expect.stringContaining('ECONNREFUSED'),
    });
  });

  it('leaves badNonce to the client that can mend it, and follows no redirect', async () => {
    const { send } = await open((request, response) => {
      if (request.url === '/moved') response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end();
      else
        response.writeHead(400).end(JSON.stringify({ type: 'urn:ietf:params:acme:error:badNonce', detail: 'stale' }));
    });
    expect((await send('/nonce')).status).toBe(400);
    await expect(send('/moved')).rejects.toMatchObject({ type: 'badAnswer', status: 302 });
  });

  it('never goes from https to plain http', async () => {
    const transport = new Transport('https://ca.example/directory', null);
    const terms = { signal: new AbortController().signal, timeout: 200 };
    await expect(transport.send('GET', 'http://127.0.0.1:1/order', terms)).rejects.toMatchObject({ type: 'badAnswer' });
    transport.close();
  });
});
