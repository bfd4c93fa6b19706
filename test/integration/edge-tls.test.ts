import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { request } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Freshness } from '../../src/kit/freshness.ts';
import { type EdgeBed, startEdgeBed } from '../support/edge-bed.ts';
import { eventually } from '../support/eventually.ts';
import { handshake, parseAnswer, rawExchange, tlsClient } from '../support/raw-client.ts';

let bed: EdgeBed;
beforeAll(async () => {
  bed = await startEdgeBed();
});
afterAll(() => bed.stop());

const trust = () => ({ port: bed.httpsPort, ca: bed.certificates.root });
const PING = 'GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n';

describe('certificates by SNI', () => {
  test.each(['hub.localhost', 'k8s-gcr.localhost', 'localhost', 'HUB.localhost', 'cr.example.com'])(
    '%s',
    async (name) => {
      const socket = await tlsClient({ ...trust(), servername: name });
      expect(socket.getPeerCertificate().subjectaltname).toBe(`DNS:${name.toLowerCase()}`);
      socket.destroy();
    },
  );

  test('no name: the fallback, valid for the address', async () => {
    const socket = await tlsClient(trust());
    expect(socket.authorized).toBe(true);
    expect(socket.getPeerCertificate().subjectaltname).toContain('127.0.0.1');
    socket.destroy();
  });

  test('no name: a new fallback from the next handshake on', async () => {
    const { fallback } = bed.certificates;
    const shown = async (): Promise<string> => {
      const socket = await tlsClient(trust());
      const { fingerprint256 } = socket.getPeerCertificate();
      socket.destroy();
      return fingerprint256;
    };
    try {
      const before = await shown();
      expect(await shown()).toBe(before);
      bed.certificates.fallback = bed.certificates.context('127.0.0.1');
      const after = await shown();
      expect(after).not.toBe(before);
      expect(await shown()).toBe(after);
    } finally {
      bed.certificates.fallback = fallback;
    }
  });

  test('a name that another gateway added while this one stood still is looked up again, once it was read', async () => {
    let asked = 0;
    const freshness: Freshness = new Freshness(async () => {
      asked++;
      late.certificates.cover(['added.localhost']);
      freshness.extend({ steady: performance.now() + 60_000, date: Date.now() + 60_000 });
    });
    const late = await startEdgeBed({ freshness });
    try {
      const trusted = { port: late.httpsPort, ca: late.certificates.root };
      const socket = await tlsClient({ ...trusted, servername: 'added.localhost' });
      expect(socket.getPeerCertificate().subjectaltname).toBe('DNS:added.localhost');
      socket.destroy();
      await expect(tlsClient({ ...trusted, servername: 'nope.localhost' })).rejects.toMatchObject({
        code: 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME',
      });
      expect(asked).toBe(1);
    } finally {
      await late.stop();
    }
  });

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'an unknown name gets an alert, not a wrong certificate (%s)',
    async (version) => {
      const attempt = tlsClient({
        ...trust(),
        servername: 'nope.example',
        minVersion: version,
        maxVersion: version,
        rejectUnauthorized: false,
      });
      await expect(attempt).rejects.toMatchObject({ code: 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME' });
    },
  );

  test('without a fallback a client without a name gets an alert', async () => {
    const { fallback } = bed.certificates;
    bed.certificates.fallback = null;
    try {
      await expect(tlsClient({ ...trust(), rejectUnauthorized: false })).rejects.toMatchObject({
        code: expect.stringMatching(/ALERT_HANDSHAKE_FAILURE|NO_SHARED/),
      });
    } finally {
      bed.certificates.fallback = fallback;
    }
  });

  test('a new map serves the very next handshake, and old connections go on', async () => {
    const old = await tlsClient({ ...trust(), servername: 'hub.localhost' });
    const serial = old.getPeerCertificate().serialNumber;
    bed.certificates.cover([...bed.certificates.byHost.keys(), 'new.localhost']);
    const fresh = await tlsClient({ ...trust(), servername: 'hub.localhost' });
    expect(fresh.getPeerCertificate().serialNumber).not.toBe(serial);
    (await tlsClient({ ...trust(), servername: 'new.localhost' })).destroy();
    fresh.destroy();
    expect(parseAnswer(await rawExchange(0, PING, old)).status).toBe(200);
  });
});

describe('protocols', () => {
  test.each(['TLSv1.2', 'TLSv1.3'] as const)('%s', async (version) => {
    const socket = await tlsClient({ ...trust(), servername: 'localhost', minVersion: version, maxVersion: version });
    expect(socket.getProtocol()).toBe(version);
    socket.destroy();
  });

  test.each([
    ['TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256', 'TLS_AES_128_GCM_SHA256'],
    // Without hardware for AES, as Go's client orders them on such machines.
    ['TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'],
    ['TLS_AES_256_GCM_SHA384', 'TLS_AES_256_GCM_SHA384'],
    ['ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES128-GCM-SHA256'],
    ['ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-CHACHA20-POLY1305'],
  ])('of %s: %s, by name and without', async (offered, chosen) => {
    const version = offered.startsWith('TLS_') ? 'TLSv1.3' : 'TLSv1.2';
    for (const name of [{ servername: 'localhost' }, {}]) {
      const socket = await tlsClient({ ...trust(), ...name, ciphers: offered, maxVersion: version });
      expect(socket.getCipher().name).toBe(chosen);
      socket.destroy();
    }
  });

  test('ciphers without forward secrecy, or with a separate MAC, are refused', async () => {
    for (const ciphers of ['AES128-GCM-SHA256', 'ECDHE-ECDSA-AES128-SHA256']) {
      const attempt = tlsClient({ ...trust(), servername: 'localhost', ciphers, maxVersion: 'TLSv1.2' });
      await expect(attempt).rejects.toThrow(/handshake failure/i);
    }
  });

  test('TLS 1.1 is refused', async () => {
    await expect(
      tlsClient({
        ...trust(),
        servername: 'localhost',
        minVersion: 'TLSv1.1',
        maxVersion: 'TLSv1.1',
        ciphers: 'DEFAULT@SECLEVEL=0',
      }),
    ).rejects.toThrow(/protocol version/i);
  });

  test.each([
    [['h2', 'http/1.1'], 'h2'],
    [['http/1.1'], 'http/1.1'],
    [undefined, false],
  ])('ALPN %s → %s', async (offered, chosen) => {
    const socket = await tlsClient({
      ...trust(),
      servername: 'localhost',
      ...(offered === undefined ? {} : { ALPNProtocols: offered }),
    });
    expect(socket.alpnProtocol).toBe(chosen);
    socket.destroy();
  });

  test('HTTP/2 pulls, many at once', async () => {
    const session = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: bed.certificates.root });
    const statuses = await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        const stream = session.request({ ':path': `/v2/app${index}/manifests/1`, ':authority': 'k8s-gcr.localhost:1' });
        const [headers] = await once(stream, 'response');
        stream.resume();
        await once(stream, 'close');
        return headers[':status'];
      }),
    );
    expect(new Set(statuses)).toEqual(new Set([200]));
    expect(bed.registry.pulls.at(-1)?.target.registry).toBe('k8s.gcr.io');
    session.close();
  });
});

describe('session tickets', () => {
  const resume = async (version: 'TLSv1.2' | 'TLSv1.3', between: () => void): Promise<boolean> => {
    const first = await tlsClient({
      ...trust(),
      servername: 'hub.localhost',
      minVersion: version,
      maxVersion: version,
    });
    let session: Buffer | undefined;
    first.on('session', (ticket) => {
      session = ticket;
    });
    session ??= version === 'TLSv1.2' ? first.getSession() : undefined;
    await rawExchange(0, PING, first);
    between();
    const second = await tlsClient({
      ...trust(),
      servername: 'hub.localhost',
      minVersion: version,
      maxVersion: version,
      ...(session === undefined ? {} : { session }),
    });
    const reused = second.isSessionReused();
    second.destroy();
    return reused;
  };

  test.each(['TLSv1.2', 'TLSv1.3'] as const)('survive a swap of certificates (%s)', async (version) => {
    expect(await resume(version, () => bed.certificates.cover([...bed.certificates.byHost.keys()]))).toBe(true);
  });

  test.each(['TLSv1.2', 'TLSv1.3'] as const)('survive a new fallback, and none (%s)', async (version) => {
    const { fallback } = bed.certificates;
    try {
      for (const next of [bed.certificates.context('127.0.0.1'), null]) {
        const swap = (): void => {
          bed.certificates.fallback = next;
        };
        expect(await resume(version, swap)).toBe(true);
      }
    } finally {
      bed.certificates.fallback = fallback;
    }
  });

  test('are good at another process with the same keys, and at no other', async () => {
    const keys = Buffer.alloc(48, 7);
    const ticketKeys = () => keys;
    const [a, b, c] = await Promise.all([startEdgeBed({ ticketKeys }), startEdgeBed({ ticketKeys }), startEdgeBed()]);
    try {
      const first = await tlsClient({
        port: a.httpsPort,
        servername: 'localhost',
        rejectUnauthorized: false,
        maxVersion: 'TLSv1.2',
      });
      const session = first.getSession();
      if (session === undefined) throw new Error('no session');
      first.destroy();
      const reused: boolean[] = [];
      for (const other of [b, c]) {
        const socket = await tlsClient({
          port: other.httpsPort,
          servername: 'localhost',
          rejectUnauthorized: false,
          maxVersion: 'TLSv1.2',
          session,
        });
        reused.push(socket.isSessionReused());
        socket.destroy();
      }
      expect(reused).toEqual([true, false]);
    } finally {
      await Promise.all([a.stop(), b.stop(), c.stop()]);
    }
  });
});

test('swaps under load: no handshake and no request fails', async () => {
  let swaps = 0;
  const swapper = setInterval(() => {
    bed.certificates.cover(['localhost', 'hub.localhost', 'k8s-gcr.localhost']);
    swaps += 1;
  }, 5);
  try {
    const client = async (): Promise<number> => {
      let done = 0;
      for (let index = 0; index < 15; index++) {
        const socket = await tlsClient({ ...trust(), servername: 'hub.localhost' });
        if (parseAnswer(await rawExchange(0, PING.replace('localhost', 'hub.localhost'), socket)).status === 200)
          done += 1;
      }
      return done;
    };
    expect(await Promise.all(Array.from({ length: 6 }, client))).toEqual([15, 15, 15, 15, 15, 15]);
    expect(swaps).toBeGreaterThan(3);
  } finally {
    clearInterval(swapper);
  }
});

describe('TLS-ALPN-01', () => {
  afterEach(() => bed.certificates.challenges.clear());
  const HOST = 'hub.localhost';
  const begin = (): void => void bed.certificates.challenges.set(HOST, bed.certificates.context('challenge.invalid'));

  test('the CA sees the challenge certificate, ordinary clients the ordinary one, at the same time', async () => {
    begin();
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const range = { minVersion: version, maxVersion: version };
      const validators = Array.from({ length: 4 }, () =>
        handshake({
          ...trust(),
          ...range,
          servername: HOST,
          ALPNProtocols: ['acme-tls/1'],
          rejectUnauthorized: false,
        }),
      );
      const clients = [['h2', 'http/1.1'], ['http/1.1'], ['http/1.1', 'acme-tls/1'], undefined].map((offered) =>
        handshake({
          ...trust(),
          ...range,
          servername: HOST,
          ...(offered === undefined ? {} : { ALPNProtocols: offered }),
        }),
      );
      for (const seen of await Promise.all(validators)) {
        expect(seen).toEqual({ subject: 'DNS:challenge.invalid', protocol: 'acme-tls/1' });
      }
      for (const seen of await Promise.all(clients)) expect(seen.subject).toBe(`DNS:${HOST}`);
    }
  });

  test('the connection ends after the handshake', async () => {
    begin();
    const socket = await tlsClient({
      ...trust(),
      servername: HOST,
      ALPNProtocols: ['acme-tls/1'],
      rejectUnauthorized: false,
    });
    socket.resume();
    await once(socket, 'close');
  });

  test('a host without a pending challenge is refused', async () => {
    begin();
    await expect(
      tlsClient({ ...trust(), servername: 'localhost', ALPNProtocols: ['acme-tls/1'], rejectUnauthorized: false }),
    ).rejects.toMatchObject({ code: 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME' });
  });

  test('with nothing pending the protocol is refused', async () => {
    await expect(
      tlsClient({ ...trust(), servername: HOST, ALPNProtocols: ['acme-tls/1'], rejectUnauthorized: false }),
    ).rejects.toThrow(/no application protocol/i);
  });

  test.each([
    ['acme-tls/1', 'challenge.invalid'],
    ['http/1.1', HOST],
  ])('a ClientHello that comes byte by byte (%s)', async (protocol, name) => {
    begin();
    const client = connectTls({
      socket: new DrippingSocket(bed.httpsPort),
      servername: HOST,
      ALPNProtocols: [protocol],
      rejectUnauthorized: false,
    });
    const subject = await new Promise((resolve, reject) => {
      client.once('secureConnect', () => resolve(client.getPeerCertificate().subjectaltname));
      client.once('error', reject);
    });
    expect(subject).toBe(`DNS:${name}`);
    if (protocol === 'http/1.1') {
      client.write(PING.replace('localhost', HOST));
      const [answer] = await once(client, 'data');
      expect(parseAnswer(String(answer)).status).toBe(200);
    }
    client.destroy();
  });

  test('what is no ClientHello goes to the ordinary server', async () => {
    begin();
    const answer = await rawExchange(bed.httpsPort, 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    expect(answer).not.toContain('200');
  });
});

describe('strangers', () => {
  let bed: EdgeBed;
  beforeAll(async () => {
    bed = await startEdgeBed({ limits: { handshakeMs: 400, headersMs: 400 } });
  });
  afterAll(() => bed.stop());
  const trust = () => ({ port: bed.httpsPort, ca: bed.certificates.root });

  const closes = async (bytes: Buffer | null): Promise<void> => {
    const socket = connectTcp(bed.httpsPort, '127.0.0.1');
    socket.on('error', () => {});
    if (bytes !== null) socket.write(bytes);
    socket.resume();
    await once(socket, 'close');
  };

  test('a connection that says nothing is ended', () => closes(null));
  test('half a ClientHello is ended', () => closes(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01])));
  test('half a ClientHello is ended while a challenge is pending', async () => {
    bed.certificates.challenges.set('x', bed.certificates.context('x'));
    await closes(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]));
    bed.certificates.challenges.clear();
  });
  test('noise is ended', () => closes(Buffer.alloc(4096, 0x41)));

  test('each that fails is counted once, and a connection without a byte not at all', async () => {
    const failures = (labels = {}) => bed.metrics.total('tls_handshake_failures_total', labels);
    const before = await failures();
    const reset = await failures({ reason: 'ECONNRESET' });
    const silent = connectTcp(bed.httpsPort, '127.0.0.1');
    await once(silent, 'connect');
    silent.end();
    silent.resume();
    await once(silent, 'close');
    await closes(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]));
    await expect(tlsClient({ ...trust(), servername: 'stranger.test' })).rejects.toThrow(/unrecognized name/);
    await eventually('both are counted', async () => (await failures()) === before + 2);
    expect(await failures({ reason: 'ECONNRESET' })).toBe(reset);
  });

  test('headers that trickle in are ended with 408', async () => {
    const socket = await tlsClient({ ...trust(), servername: 'localhost' });
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.write('GET /v2/ HTTP/1.1\r\n');
    const drip = setInterval(() => socket.write('X'), 30);
    await once(socket, 'close').finally(() => clearInterval(drip));
    expect(Buffer.concat(chunks).toString()).toMatch(/^HTTP\/1\.1 408 /);
  });

  test('the edge goes on serving', async () => {
    const response = await new Promise<number | undefined>((resolve, reject) =>
      request(
        { ...trust(), host: '127.0.0.1', path: '/v2/', servername: 'localhost', headers: { host: 'localhost' } },
        (answer) => {
          answer.resume();
          resolve(answer.statusCode);
        },
      )
        .on('error', reject)
        .end(),
    );
    expect(response).toBe(200);
  });
});

/** A connection whose first flight leaves one byte a segment. */
class DrippingSocket extends Duplex {
  readonly #socket;
  #first = true;

  constructor(port: number) {
    super();
    this.#socket = connectTcp({ port, host: '127.0.0.1', noDelay: true });
    this.#socket.on('data', (chunk) => this.push(chunk));
    this.#socket.on('end', () => this.push(null));
    this.#socket.on('error', (error) => this.destroy(error));
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (!this.#first) {
      this.#socket.write(chunk, done);
      return;
    }
    this.#first = false;
    let at = 0;
    const next = (): void => {
      if (at === chunk.length) done();
      else this.#socket.write(chunk.subarray(at, ++at), () => setImmediate(next));
    };
    next();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}
