import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface SlowLink {
  /** `http://127.0.0.1:<port>`, the far end of it. */
  readonly url: string;
  close(): Promise<void>;
}

/** A link to a port of loopback that delays every byte by half a round trip and lets each connection have so many bytes a second. */
export async function slowLink(options: {
  readonly to: number;
  readonly roundTripMs: number;
  readonly bytesPerSecond: number;
}): Promise<SlowLink> {
  const { to, roundTripMs, bytesPerSecond } = options;
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
    carry(near, far, roundTripMs / 2, bytesPerSecond);
    carry(far, near, roundTripMs / 2, bytesPerSecond);
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

/** Bytes that one direction of a connection holds on their way. */
const WINDOW = 1024 * 1024;

function carry(from: Socket, to: Socket, delayMs: number, bytesPerSecond: number): void {
  // In order: timers of different lengths do not promise theirs. Null is the end.
  const queue: { readonly due: number; readonly chunk: Buffer | null }[] = [];
  let timer: NodeJS.Timeout | undefined;
  let free = 0;
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
    free = Math.max(free, performance.now()) + (chunk.length / bytesPerSecond) * 1000;
    onTheWay += chunk.length;
    if (onTheWay > WINDOW) from.pause();
    queue.push({ due: free + delayMs, chunk });
    schedule();
  });
  from.on('end', () => {
    queue.push({ due: Math.max(free, performance.now()) + delayMs, chunk: null });
    schedule();
  });
  to.on('close', () => clearTimeout(timer));
}
