import { connect, createServer, type Socket } from 'node:net';
import { LossyTcp, seeded } from './lossy-tcp.ts';

/**
 * A relay that breaks connections, in a process of its own: `node lossy-relay.ts HOST PORT TO RESET-AFTER ROUND-TRIP-MS LOSS SEED`. TO is the path of a
 * Unix socket, or HOST:PORT. Every connection is reset after RESET-AFTER bytes towards its client. With a ROUND-TRIP-MS of 0 bytes pass as they
 * come, for where the kernel makes the link; else each connection brings what TCP would over a path that is so long and loses so many segments
 * (`lossy-tcp.ts`).
 */
const [host = '', port = '', to = '', ...numbers] = process.argv.slice(2);
const [resetAfter = 0, roundTrip = 0, loss = 0, seed = 0] = numbers.map(Number);
const [toHost = '', toPort = ''] = to.split(':');
const target = to.startsWith('/') ? { path: to } : { host: toHost, port: Number(toPort), noDelay: true };
/** Bytes that a connection holds of what its sender has yet to send: more than any window. */
const BUFFER = 1024 * 1024;
let accepted = 0;

createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
  const server = connect({ ...target, allowHalfOpen: true });
  let delivered = 0;
  const deliver = (chunk: Buffer): void => {
    const left = resetAfter - delivered;
    delivered += chunk.length;
    if (left <= 0 || client.destroyed) return;
    client.write(chunk.subarray(0, left), () => {
      if (delivered >= resetAfter && !client.destroyed) client.resetAndDestroy();
    });
  };
  for (const [one, other] of [
    [client, server],
    [server, client],
  ] as const) {
    one.on('error', () => {});
    one.once('close', () => other.destroy());
  }
  if (roundTrip === 0) {
    client.pipe(server);
    server.once('end', () => client.end());
    server.on('data', (chunk: Buffer) => {
      deliver(chunk);
      if (!client.writableNeedDrain) return;
      server.pause();
      client.once('drain', () => server.resume());
    });
  } else bring(client, server, new LossyTcp({ roundTrip, loss }, seeded(seed + accepted++)), deliver);
}).listen(Number(port), host);

function bring(client: Socket, server: Socket, tcp: LossyTcp, deliver: (chunk: Buffer) => void): void {
  const ready = performance.now() + tcp.handshake();
  let before = 0;
  client.on('data', (chunk: Buffer) => {
    // In order, and not before the handshake is done.
    before = Math.max(before, Math.max(performance.now(), ready) + tcp.request());
    setTimeout(() => server.destroyed || server.write(chunk), before - performance.now());
  });
  client.once('end', () => setTimeout(() => server.end(), Math.max(0, before - performance.now())));

  /** What has not been sent, and what has been sent and has not arrived, in order. */
  const unsent: Buffer[] = [];
  const underWay: Buffer[] = [];
  let waiting = 0;
  let running = false;
  let ended = false;
  const round = (): void => {
    running = !client.destroyed && (waiting > 0 || tcp.unfinished);
    if (!running) {
      if (ended) client.end();
      return;
    }
    const { arrived, next } = tcp.round(waiting, (bytes) => {
      underWay.push(...take(unsent, bytes));
      waiting -= bytes;
    });
    const chunks = take(underWay, arrived);
    setTimeout(() => {
      for (const chunk of chunks) deliver(chunk);
    }, roundTrip / 2);
    if (waiting < BUFFER) server.resume();
    setTimeout(round, next);
  };
  server.on('data', (chunk: Buffer) => {
    unsent.push(chunk);
    waiting += chunk.length;
    if (waiting >= BUFFER) server.pause();
    if (!running) round();
  });
  server.once('end', () => {
    ended = true;
    // Behind what is still on its way.
    if (!running) setTimeout(() => client.end(), roundTrip / 2);
  });
}

/** Removes so many bytes from the front. */
function take(chunks: Buffer[], bytes: number): Buffer[] {
  const taken: Buffer[] = [];
  for (let left = bytes; left > 0; ) {
    const chunk = chunks.shift();
    if (chunk === undefined) break;
    taken.push(chunk.subarray(0, left));
    if (chunk.length > left) chunks.unshift(chunk.subarray(left));
    left -= chunk.length;
  }
  return taken;
}
