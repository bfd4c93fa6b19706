import { connect, type TLSSocket } from 'node:tls';

/**
 * Runs in a process of its own, on the client's core: `node handshake-client.ts PORT SECONDS full|resumed HOST…`.
 * Shakes hands from several lanes, each connection closed once the handshake is done and its session ticket is here; prints the count.
 */
const [port = '', seconds = '', kind = '', ...hosts] = process.argv.slice(2);
const LANES = 8;
const deadline = performance.now() + Number(seconds) * 1000;
const sessions = new Map<string, Buffer>();
let count = 0;
let resumed = 0;

function shake(host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const session = kind === 'resumed' ? sessions.get(host) : undefined;
    const socket: TLSSocket = connect({
      port: Number(port),
      host: '127.0.0.1',
      servername: host,
      rejectUnauthorized: false,
      ...(session === undefined ? {} : { session }),
    });
    socket.once('error', reject);
    // TLS 1.3 sends tickets after the handshake; both kinds wait for one, so that they do the same.
    socket.once('session', (ticket: Buffer) => {
      sessions.set(host, ticket);
      count += 1;
      if (socket.isSessionReused()) resumed += 1;
      socket.destroy();
      resolve();
    });
  });
}

async function lane(first: number): Promise<void> {
  for (let turn = first; performance.now() < deadline; turn += LANES)
    await shake(hosts[turn % hosts.length] ?? 'localhost');
}

await Promise.all(Array.from({ length: LANES }, (_, index) => lane(index)));
console.log(JSON.stringify({ count, resumed }));
