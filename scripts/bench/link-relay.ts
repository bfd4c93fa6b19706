import { connect, createServer, type Socket } from 'node:net';

/**
 * A link with a length and a width, in a process of its own: `node link-relay.ts PORT TO-PORT ROUND-TRIP-MS BYTES-A-SECOND`.
 * What is asked arrives a round trip after it was sent, and the answer at once, so that a link of a millisecond costs one timer, not two; a new
 * connection costs one round trip more, and all connections together bring no more bytes a second towards the client than it is wide.
 */
const [port = 0, to = 0, roundTrip = 0, rate = 0] = process.argv.slice(2).map(Number);
/** What may be under way on one connection: the link is full with it, and no more is held. */
const WINDOW = Math.ceil((rate * roundTrip) / 1000) + 1024 * 1024;
/** A read of the wide direction. Large and used again, so that a fast link costs its core little: a read of Node's own is a new buffer of 64 KiB. */
const READ = 256 * 1024;
const spare: Buffer[] = [];
/** When the link is free for the next byte, ms. */
let free = 0;

/** One direction of one connection: takes bytes, and hands them on when they are due. */
class Direction {
  readonly #from: Socket;
  readonly #into: Socket;
  readonly #first: number;
  readonly #wide: boolean;
  readonly #queue: { readonly chunk: Buffer; readonly whole: Buffer | null; readonly due: number }[] = [];
  #held = 0;
  #ended = false;
  #timer: NodeJS.Timeout | null = null;

  /** @param first when the first byte may leave, ms */
  constructor(from: Socket, into: Socket, { first, wide }: { first: number; wide: boolean }) {
    this.#from = from;
    this.#into = into;
    this.#first = first;
    this.#wide = wide;
    from.once('end', () => {
      this.#ended = true;
      if (this.#held === 0) into.end();
    });
    from.once('close', () => {
      if (!this.#ended) into.destroy();
    });
    from.on('error', () => into.destroy());
  }

  /** @param whole the buffer that the chunk is a part of, where it is to be used again */
  take(chunk: Buffer, whole: Buffer | null = null): void {
    this.#held += chunk.length;
    if (this.#held >= WINDOW) this.#from.pause();
    const now = performance.now();
    if (this.#wide) free = Math.max(now, free) + (chunk.length / rate) * 1000;
    this.#queue.push({ chunk, whole, due: this.#wide ? free : Math.max(now, this.#first) + roundTrip });
    if (this.#timer === null) this.#deliver();
  }

  #deliver(): void {
    this.#timer = null;
    const now = performance.now();
    for (let next = this.#queue[0]; next !== undefined && next.due <= now; next = this.#queue[0]) {
      const { chunk, whole } = next;
      this.#queue.shift();
      this.#into.write(chunk, () => {
        if (whole !== null) spare.push(whole);
        this.#held -= chunk.length;
        if (this.#held < WINDOW && this.#from.isPaused()) this.#from.resume();
        if (this.#ended && this.#held === 0) this.#into.end();
      });
    }
    const [later] = this.#queue;
    if (later !== undefined) this.#timer = setTimeout(() => this.#deliver(), later.due - now);
  }
}

createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
  let back: Direction | undefined;
  let reading = spare.pop() ?? Buffer.allocUnsafeSlow(READ);
  const server = connect({
    port: to,
    host: '127.0.0.1',
    allowHalfOpen: true,
    noDelay: true,
    onread: {
      buffer: () => reading,
      callback: (bytes) => {
        const whole = reading;
        reading = spare.pop() ?? Buffer.allocUnsafeSlow(READ);
        back?.take(whole.subarray(0, bytes), whole);
        return true;
      },
    },
  });
  const towards = new Direction(client, server, { first: performance.now() + roundTrip, wide: false });
  client.on('data', (chunk: Buffer) => towards.take(chunk));
  back = new Direction(server, client, { first: 0, wide: true });
}).listen(port, '127.0.0.1');
