import type { X509Certificate } from 'node:crypto';
import { connect as connectTcp } from 'node:net';
import { Duplex } from 'node:stream';
import { connect } from 'node:tls';

export interface Met {
  readonly certificate: X509Certificate;
  readonly protocol: string | null;
  readonly alpn: string | false | null;
}

/** One handshake with a listener of this machine; rejects as the client does. */
export function meet(options: {
  readonly port: number;
  readonly host: string;
  /** PEM of the root to trust; nothing is verified without it. */
  readonly ca?: string;
  readonly alpn?: readonly string[];
  readonly version?: 'TLSv1.2' | 'TLSv1.3';
  /** Sends what it says in TCP segments of one byte. */
  readonly byteByByte?: boolean;
}): Promise<Met> {
  const { port, host, ca, alpn = ['h2', 'http/1.1'], version } = options;
  return new Promise((resolve, reject) => {
    const tcp = connectTcp({ host: '127.0.0.1', port, noDelay: true });
    tcp.on('error', reject);
    const socket = connect({
      socket: options.byteByByte === true ? inBytes(tcp) : tcp,
      servername: host,
      ALPNProtocols: [...alpn],
      rejectUnauthorized: ca !== undefined,
      ...(ca === undefined ? {} : { ca }),
      ...(version === undefined ? {} : { minVersion: version, maxVersion: version }),
    });
    socket.on('error', (error) => {
      tcp.destroy();
      reject(error);
    });
    socket.setTimeout(20_000, () => socket.destroy(new Error('no handshake in 20 s')));
    socket.once('secureConnect', () => {
      const certificate = socket.getPeerX509Certificate();
      const met = { protocol: socket.getProtocol(), alpn: socket.alpnProtocol };
      socket.destroy();
      tcp.destroy();
      if (certificate === undefined) reject(new Error('no certificate was shown'));
      else resolve({ certificate, ...met });
    });
  });
}

function inBytes(tcp: ReturnType<typeof connectTcp>): Duplex {
  const stream = new Duplex({
    read: () => tcp.resume(),
    write(chunk: Buffer, _, done) {
      const send = (at: number): void => {
        if (at === chunk.length) done();
        // A turn of the loop in between, so that segments leave one by one.
        else tcp.write(chunk.subarray(at, at + 1), () => setImmediate(send, at + 1));
      };
      send(0);
    },
    final: (done) => void tcp.end(done),
    destroy(error, done) {
      tcp.destroy();
      done(error);
    },
  });
  tcp.on('data', (chunk) => stream.push(chunk) || tcp.pause()).on('end', () => stream.push(null));
  tcp.on('error', (error) => stream.destroy(error));
  return stream;
}
