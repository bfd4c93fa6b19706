import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { type EdgeBed, PatternSource, startEdgeBed } from '../support/edge-bed.ts';
import { eventually } from '../support/eventually.ts';
import { parseAnswer, rawExchange, tlsClient } from '../support/raw-client.ts';

const BLOB = `/v2/app/blobs/sha256:${'a'.repeat(64)}`;
const PULL = `GET ${BLOB} HTTP/1.1\r\nHost: localhost\r\n\r\n`;
const PING = 'GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n';

let bed: EdgeBed;
afterEach(() => bed.stop());

type Version = 'TLSv1.2' | 'TLSv1.3';

/** A TLS client, and the TCP connection beneath, on which a test can write what is no TLS. */
async function client(version: Version, alpn?: string): Promise<{ socket: TLSSocket; tcp: Socket }> {
  const tcp = connectTcp(bed.httpsPort, '127.0.0.1');
  const socket = connectTls({
    socket: tcp,
    servername: 'localhost',
    ca: bed.certificates.root,
    minVersion: version,
    maxVersion: version,
    ...(alpn === undefined ? {} : { ALPNProtocols: [alpn] }),
  });
  await once(socket, 'secureConnect');
  for (const one of [socket, tcp]) one.on('error', () => {});
  return { socket, tcp };
}

/** A pull that gives its first bytes and then stands still for good. */
function endlessPull(): PatternSource {
  const source = new PatternSource(700_000);
  source.gate = () => (source.at === 0 ? Promise.resolve() : new Promise(() => {}));
  bed.registry.answer = () => ({
    status: 200,
    headers: { 'content-length': String(source.size) },
    body: source,
    from: 'cache',
  });
  return source;
}

const openConnections = async (): Promise<number> => bed.metrics.total('http_connections');
const gone = () => eventually('no connection is open', async () => (await openConnections()) === 0);

/** An application data record of the right form that no key fits. */
const BAD_RECORD = Buffer.concat([Buffer.from([0x17, 0x03, 0x03, 0x00, 0x40]), Buffer.alloc(0x40, 0x5a)]);

describe('after the handshake', () => {
  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'a record that no key fits ends the connection and what runs on it (%s)',
    async (version) => {
      bed = await startEdgeBed();
      const source = endlessPull();
      const { socket, tcp } = await client(version);
      socket.write(PULL);
      await once(socket, 'data');
      tcp.write(BAD_RECORD);
      await gone();
      await eventually('the pull is closed', () => source.closed);
      tcp.destroy();
    },
  );

  test('the same over HTTP/2', async () => {
    bed = await startEdgeBed();
    const source = endlessPull();
    const { socket, tcp } = await client('TLSv1.3', 'h2');
    const session = connectHttp2('https://localhost', { createConnection: () => socket });
    session.on('error', () => {});
    const stream = session.request({ ':path': BLOB });
    stream.on('error', () => {});
    await once(stream, 'data');
    tcp.write(BAD_RECORD);
    await gone();
    await eventually('the pull is closed', () => source.closed);
    tcp.destroy();
  });

  test('plain text behind the handshake ends the connection', async () => {
    bed = await startEdgeBed();
    const { tcp } = await client('TLSv1.3');
    tcp.write(PING);
    await gone();
    tcp.destroy();
  });

  test('a client that asks for renegotiation (TLS 1.2) is ended, and what runs for it', async () => {
    bed = await startEdgeBed();
    const source = endlessPull();
    const { socket } = await client('TLSv1.2');
    socket.write(PULL);
    await once(socket, 'data');
    socket.renegotiate({}, () => {});
    await gone();
    await eventually('the pull is closed', () => source.closed);
    socket.destroy();
  });
});

describe('session tickets', () => {
  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'of replaced keys cost a full handshake, and nothing else (%s)',
    async (version) => {
      let keys = Buffer.alloc(48, 1);
      bed = await startEdgeBed({ ticketKeys: () => keys });
      const options = { port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' };
      const range = { minVersion: version, maxVersion: version };
      const connect = async (session?: Buffer): Promise<{ reused: boolean; ticket: Buffer | undefined }> => {
        const socket = await tlsClient({ ...options, ...range, ...(session === undefined ? {} : { session }) });
        let ticket = version === 'TLSv1.2' ? socket.getSession() : undefined;
        socket.on('session', (given) => {
          ticket = given;
        });
        const reused = socket.isSessionReused();
        expect(parseAnswer(await rawExchange(0, PING, socket)).status).toBe(200);
        return { reused, ticket };
      };
      const { ticket } = await connect();
      expect((await connect(ticket)).reused).toBe(true);
      keys = Buffer.alloc(48, 2);
      const after = await connect(ticket);
      expect(after.reused).toBe(false);
      expect((await connect(after.ticket)).reused).toBe(true);
    },
  );

  test('have new keys after a while', async () => {
    bed = await startEdgeBed({ limits: { ticketKeysMs: 1 } });
    const options = {
      port: bed.httpsPort,
      ca: bed.certificates.root,
      servername: 'localhost',
      maxVersion: 'TLSv1.2' as const,
    };
    const first = await tlsClient(options);
    const session = first.getSession();
    if (session === undefined) throw new Error('no session');
    await rawExchange(0, PING, first);
    const second = await tlsClient({ ...options, session });
    expect(second.isSessionReused()).toBe(false);
    second.destroy();
  });
});

describe('a handshake', () => {
  test('is not charged the time in which this process was busy', async () => {
    bed = await startEdgeBed({ limits: { handshakeMs: 1_500 } });
    const tcp = connectTcp(bed.httpsPort, '127.0.0.1');
    await eventually('it is accepted', async () => (await openConnections()) === 1);
    // The server is in this process: it is busy for longer than a handshake may take, and so is its client.
    const until = performance.now() + 2_500;
    while (performance.now() < until);
    const socket = connectTls({ socket: tcp, servername: 'localhost', ca: bed.certificates.root });
    await once(socket, 'secureConnect');
    expect(parseAnswer(await rawExchange(0, PING, socket)).status).toBe(200);
  });
});
