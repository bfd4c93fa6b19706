import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface SlowLink {
  /** `http://127.0.0.1:<port>`, the far end of it. */
  readonly url: string;
  close(): Promise<void>;
}

/** A link to a port of loopback that delays every byte by half a round trip and lets each connection, or all together, have so many bytes a second. */
export async function slowLink(options: {
  readonly to: number;
  readonly roundTripMs: number;
  readonly bytesPerSecond: number;
  readonly shared?: boolean;
}): Promise<SlowLink> {
  const { to, roundTripMs, bytesPerSecond, shared = false } = options;
  const ofAll = shared ? [new Wire(bytesPerSecond), new Wire(bytesPerSecond)] : [];
  const open = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect({ host: '127.0.0.1', port: to });
    for (const socket of [near, far]) {
      open.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => {});
      socket.on('close', () => {
        open.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    const [there = new Wire(bytesPerSecond), back = new Wire(bytesPerSecond)] = ofAll;
    carry(near, far, roundTripMs / 2, there);
    carry(far, near, roundTripMs / 2, back);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      for (const socket of open) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** One direction of a link: it is free for the next byte when all before have been sent. */
class Wire {
  readonly #bytesPerSecond: number;
  #free = 0;

  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** @returns when so many bytes have been sent, ms */
  send(bytes: number): number {
    this.#free = Math.max(this.#free, performance.now()) + (bytes / this.#bytesPerSecond) * 1000;
    return this.#free;
  }
}

/** Bytes that one direction of a connection holds on their way. */
const WINDOW = 1024 * 1024;

function carry(from: Socket, to: Socket, delayMs: number, wire: Wire): void {
  // In order: timers of different lengths do not promise theirs. Null is the end.
  const queue: { readonly due: number; readonly chunk: Buffer | null }[] = [];
  let timer: NodeJS.Timeout | undefined;
  let onTheWay = 0;
  const deliver = (): void => {
    timer = undefined;
    for (let next = queue[0]; next !== undefined && next.due <= performance.now(); next = queue[0]) {
      queue.shift();
      if (to.destroyed) continue;
      if (next.chunk === null) to.end();
      else to.write(next.chunk);
      onTheWay -= next.chunk?.length ?? 0;
    }
    if (onTheWay <= WINDOW / 2) from.resume();
    schedule();
  };
  const schedule = (): void => {
    const [next] = queue;
    if (next !== undefined && timer === undefined)
      timer = setTimeout(deliver, Math.max(0, next.due - performance.now()));
  };
  from.on('data', (chunk: Buffer) => {
    onTheWay += chunk.length;
    if (onTheWay > WINDOW) from.pause();
    queue.push({ due: wire.send(chunk.length) + delayMs, chunk });
    schedule();
  });
  from.on('end', () => {
    queue.push({ due: wire.send(0) + delayMs, chunk: null });
    schedule();
  });
  to.on('close', () => clearTimeout(timer));
}
