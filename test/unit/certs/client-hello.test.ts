import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { connect } from 'node:tls';
import { describe, expect, it } from 'vitest';
import { HELLO_MAX, peekClientHello } from '../../../src/certs/client-hello.ts';

/** What Node's own TLS client sends first. */
async function helloOf(options: object): Promise<Buffer> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port, ...options });
  client.on('error', () => {});
  const [socket] = await once(server, 'connection');
  socket.on('error', () => {});
  const chunks: Buffer[] = [];
  for await (const chunk of socket) {
    chunks.push(chunk);
    if (peekClientHello(Buffer.concat(chunks)).state !== 'more') break;
  }
  client.destroy();
  server.close();
  return Buffer.concat(chunks);
}

const ASKING = { servername: 'Hub.Example.COM', ALPNProtocols: ['acme-tls/1', 'h2'] };
const EXPECTED = { state: 'hello', hello: { serverName: 'hub.example.com', protocols: ['acme-tls/1', 'h2'] } };

/** The same handshake message in records of `size` bytes. */
function inRecords(hello: Buffer, size: number): Buffer {
  const payload = hello.subarray(5);
  const parts: Buffer[] = [];
  for (let at = 0; at < payload.length; at += size) {
    const part = payload.subarray(at, at + size);
    parts.push(Buffer.from([22, 3, 1, part.length >> 8, part.length & 255]), part);
  }
  return Buffer.concat(parts);
}

describe('peekClientHello', () => {
  it.each(['TLSv1.2', 'TLSv1.3'] as const)('reads server name and protocols from a client of %s', async (version) => {
    const hello = await helloOf({ ...ASKING, minVersion: version, maxVersion: version });
    expect(peekClientHello(hello)).toEqual(EXPECTED);
  });

  it('reads one without either', async () => {
    expect(peekClientHello(await helloOf({}))).toEqual({ state: 'hello', hello: { serverName: null, protocols: [] } });
  });

  it('asks for more at every byte but the last', async () => {
    const hello = await helloOf(ASKING);
    for (let length = 0; length < hello.length; length++) {
      expect(peekClientHello(hello.subarray(0, length)).state, `after ${length} bytes`).toBe('more');
    }
    expect(peekClientHello(hello)).toEqual(EXPECTED);
  });

  it.each([1, 2, 3, 7, 100])('reads one cut into records of %i bytes, itself arriving byte by byte', async (size) => {
    const hello = inRecords(await helloOf(ASKING), size);
    for (let length = 0; length < hello.length; length += size === 1 ? 97 : 1) {
      expect(peekClientHello(hello.subarray(0, length)).state).toBe('more');
    }
    expect(peekClientHello(hello)).toEqual(EXPECTED);
  });

  it('does not mind what follows', async () => {
    expect(peekClientHello(Buffer.concat([await helloOf(ASKING), Buffer.from('\x14\x03\x03\x00\x01\x01')]))).toEqual(
      EXPECTED,
    );
  });

  it('leaves everything else to the TLS server', async () => {
    const hello = await helloOf(ASKING);
    const change = (at: number, value: number) => {
      const copy = Buffer.from(hello);
      copy[at] = value;
      return peekClientHello(copy).state;
    };
    expect(peekClientHello(Buffer.from('GET / HTTP/1.1\r\n')).state).toBe('other');
    expect(peekClientHello(Buffer.from([22, 9])).state).toBe('other');
    expect(change(5, 2), 'a ServerHello').toBe('other');
    expect(change(43, 255), 'a session id past the end').toBe('other');
    expect(peekClientHello(Buffer.from([22, 3, 1, 0, 4, 1, 1, 0, 0])).state, `longer than ${HELLO_MAX}`).toBe('other');
    expect(peekClientHello(Buffer.from([22, 3, 1, 0, 0])).state, 'an empty record').toBe('other');
  });

  it('never throws on damaged bytes', async () => {
    const hello = await helloOf(ASKING);
    for (let at = 0; at < hello.length; at++) {
      for (const value of [0, 1, 127, 255]) {
        const copy = Buffer.from(hello);
        copy[at] = value;
        expect(['hello', 'more', 'other']).toContain(peekClientHello(copy).state);
      }
    }
  });
});
