import { connect, createServer, type Socket } from 'node:net';

/**
 * A link with a length and a width, in a process of its own: `node link-relay.ts PORT TO-PORT ROUND-TRIP-MS BYTES-A-SECOND`.
 * Every byte arrives half a round trip after it was sent, a new connection costs one round trip more, and all connections
 * together bring no more bytes a second towards the client than it is wide.
 */
const [port = 0, to = 0, roundTrip = 0, rate = 0] = process.argv.slice(2).map(Number);
/** What may be under way on one connection: the link is full with it, and no more is held. */
const WINDOW = Math.ceil((rate * roundTrip) / 1000) + 1024 * 1024;
/** When the link is free for the next byte, ms. */
let free = 0;

function relay(from: Socket, into: Socket, first: number, wide: boolean): void {
  const queue: { readonly chunk: Buffer; readonly due: number }[] = [];
  let held = 0;
  let ended = false;
  let timer: NodeJS.Timeout | null = null;
  const deliver = (): void => {
    timer = null;
    const now = performance.now();
    for (let next = queue[0]; next !== undefined && next.due <= now; next = queue[0]) {
      const { chunk } = next;
      queue.shift();
      into.write(chunk, () => {
        held -= chunk.length;
        if (held < WINDOW && from.isPaused()) from.resume();
        if (ended && held === 0) into.end();
      });
    }
    const [later] = queue;
    if (later !== undefined) timer = setTimeout(deliver, later.due - now);
  };
  from.on('data', (chunk: Buffer) => {
    held += chunk.length;
    if (held >= WINDOW) from.pause();
    let sent = Math.max(performance.now(), first);
    if (wide) {
      free = Math.max(sent, free) + (chunk.length / rate) * 1000;
      sent = free;
    }
    queue.push({ chunk, due: sent + roundTrip / 2 });
    if (timer === null) deliver();
  });
  from.once('end', () => {
    ended = true;
    if (held === 0) into.end();
  });
  from.once('close', () => {
    if (!ended) into.destroy();
  });
  from.on('error', () => into.destroy());
}

createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
  const server = connect({ port: to, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
  relay(client, server, performance.now() + roundTrip, false);
  relay(server, client, 0, true);
}).listen(port, '127.0.0.1');
