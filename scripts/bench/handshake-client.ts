import { openSync, writeSync } from 'node:fs';
import { connect, type TLSSocket } from 'node:tls';

/**
 * Runs in a process of its own, on the client's core: `node handshake-client.ts PORT full|resumed FILE HOST…`.
 * Shakes hands from several lanes until it is ended, and ends each connection in order, which tells that the server is done with it too.
 * FILE holds how many were shaken and how many of them were resumed: two doubles, written over after each.
 * A session is fetched once a host and offered again and again: servers differ in whether they send a new one when one was resumed.
 */
const [port = '', kind = '', file = '', ...hosts] = process.argv.slice(2);
const LANES = 8;
/**
 * The only group offered, so that all servers do the same amount of cryptography: newer ones would choose a hybrid with ML-KEM, which
 * OpenSSL knows from 3.5 on.
 */
const GROUP = 'X25519';

interface Shaken {
  readonly resumed: boolean;
  readonly session: Buffer | undefined;
}

function shake(host: string, offered: Buffer | undefined): Promise<Shaken> {
  return new Promise((resolve, reject) => {
    let session: Buffer | undefined;
    const socket: TLSSocket = connect({
      port: Number(port),
      host: '127.0.0.1',
      servername: host,
      rejectUnauthorized: false,
      ecdhCurve: GROUP,
      ...(offered === undefined ? {} : { session: offered }),
    });
    socket.once('error', reject);
    socket.once('session', (ticket: Buffer) => {
      session = ticket;
    });
    socket.once('secureConnect', () => {
      const resumed = socket.isSessionReused();
      socket.once('close', () => resolve({ resumed, session }));
      socket.resume();
      socket.end();
    });
  });
}

const sessions = new Map<string, Buffer>();
if (kind === 'resumed') {
  for (const host of hosts) {
    const { session } = await shake(host, undefined);
    if (session === undefined) throw new Error(`${host} gave no session`);
    sessions.set(host, session);
  }
}

const counts = new Float64Array(2);
const bytes = new Uint8Array(counts.buffer);
const out = openSync(file, 'w');

/** In a row. A server ends a handshake in the middle of which this client was held still for too long. */
let failures = 0;

async function lane(first: number): Promise<never> {
  for (let turn = first; ; turn += LANES) {
    const host = hosts[turn % hosts.length] ?? 'localhost';
    let resumed: boolean;
    try {
      ({ resumed } = await shake(host, sessions.get(host)));
      failures = 0;
    } catch (error) {
      failures += 1;
      if (failures > 2 * LANES) throw error;
      continue;
    }
    counts[0] = (counts[0] ?? 0) + 1;
    if (resumed) counts[1] = (counts[1] ?? 0) + 1;
    writeSync(out, bytes, 0, bytes.length, 0);
  }
}

await Promise.all(Array.from({ length: LANES }, (_, index) => lane(index)));
