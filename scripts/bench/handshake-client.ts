import { connect, type TLSSocket } from 'node:tls';

/**
 * Runs in a process of its own, on the client's core: `node handshake-client.ts PORT SECONDS full|resumed HOST…`.
 * Shakes hands from several lanes and ends each connection in order, which tells that the server is done with it too; prints the count.
 * A session is fetched once a host and offered again and again: servers differ in whether they send a new one when one was resumed.
 */
const [port = '', seconds = '', kind = '', ...hosts] = process.argv.slice(2);
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

let count = 0;
let resumed = 0;
const started = performance.now();

async function lane(first: number): Promise<void> {
  for (let turn = first; performance.now() - started < Number(seconds) * 1000; turn += LANES) {
    const host = hosts[turn % hosts.length] ?? 'localhost';
    const shaken = await shake(host, sessions.get(host));
    count += 1;
    if (shaken.resumed) resumed += 1;
  }
}

await Promise.all(Array.from({ length: LANES }, (_, index) => lane(index)));
console.log(JSON.stringify({ count, resumed, seconds: (performance.now() - started) / 1000 }));
