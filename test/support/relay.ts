import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** Passes connections on to another port of this machine, and can be cut as a cable can. */
export class Relay {
  readonly port: number;
  readonly #server: Server;
  readonly #open = new Set<Socket>();
  #how: 'passes' | 'swallows' | 'refuses' = 'passes';
  #swallowAfter: string | null = null;

  private constructor(server: Server, to: number) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (near) => {
      this.#keep(near);
      if (this.#how === 'refuses') near.destroy();
      if (this.#how !== 'passes') return;
      const far = this.#keep(connect(to, '127.0.0.1'));
      for (const [from, into] of [
        [near, far],
        [far, near],
      ] as const) {
        from.on('data', (chunk) => {
          // What is on its way when the cable is cut is gone.
          if (this.#how === 'passes') into.write(chunk);
          if (from !== near || this.#swallowAfter === null || !chunk.includes(this.#swallowAfter)) return;
          this.#swallowAfter = null;
          this.#how = 'swallows';
        });
        from.on('close', () => {
          // What has arrived is passed on before.
          if (this.#how !== 'swallows') into.destroySoon();
        });
      }
    });
  }

  static async start(to: number): Promise<Relay> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new Relay(server, to);
  }

  /** `breaks`: connections are reset, new ones refused; `swallows`: nothing arrives any more, and nobody says so. */
  cut(how: 'breaks' | 'swallows' = 'breaks'): void {
    this.#how = how === 'breaks' ? 'refuses' : 'swallows';
    if (how === 'breaks') for (const socket of this.#open) socket.resetAndDestroy();
  }

  /** Passes on what a client sends with this text in it, and from then on `swallows`: it is done at the other end, and nobody hears of it. */
  cutAfter(text: string): void {
    this.#swallowAfter = text;
  }

  /** Ends what was cut, and passes on what is new. */
  mend(): void {
    for (const socket of this.#open) socket.resetAndDestroy();
    this.#how = 'passes';
  }

  async stop(): Promise<void> {
    this.#server.close();
    for (const socket of this.#open) socket.destroy();
    await once(this.#server, 'close');
  }

  #keep(socket: Socket): Socket {
    this.#open.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.#open.delete(socket));
    return socket;
  }
}
