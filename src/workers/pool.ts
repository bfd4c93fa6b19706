import { type ChildProcess, fork } from 'node:child_process';
import type { Socket } from 'node:net';
import type { Config } from '../config/config.ts';
import type { RegistryCore } from '../registry/reply.ts';
import type { Logger } from '../telemetry/log.ts';
import type { MetricValues } from '../telemetry/metrics.ts';
import { Channel, type Port } from './channel.ts';
import { CoreHost } from './core-host.ts';
import type { MaterialMessage, StartMessage, StateMessage } from './wire.ts';

/** How long a worker may take until it takes connections, ms. */
const START_PATIENCE = 20_000;
/** Waits before a worker that ended is replaced, ms: at once, then slower where they keep ending. */
const REPLACE_AFTER = [0, 500, 2_000, 10_000, 30_000];
/** A worker that has lived this long, ms, has not ended for the reason that it started. */
const SETTLED_AFTER = 60_000;
/** How long a worker may take to say that it knows the newest state, ms; one that hangs is replaced. */
const UPDATE_PATIENCE = 5_000;

/** What the owner does for its workers. */
export interface PoolOptions {
  /** Workers besides the owner itself. */
  readonly size: number;
  /** The program of a worker. */
  readonly program: URL;
  readonly config: Config;
  readonly version: string;
  readonly ticketKeys: Uint8Array;
  readonly core: RegistryCore;
  readonly state: () => StateMessage;
  readonly certificate: (host: string | null) => MaterialMessage | null;
  /** Users, rules and limits, decided here where they must hold for all processes together. */
  readonly access: {
    check(asker: never): unknown;
    countBytes(asker: never, grant: never, bytes: number): void;
  };
  readonly log: Logger;
}

interface Worker {
  readonly child: ChildProcess;
  readonly channel: Channel;
  /** Connections that it was handed and that still live. */
  connections: number;
  ready: boolean;
}

/** The other processes that serve clients: started, replaced when they end, told of every change, handed connections. */
export class Pool {
  readonly #options: PoolOptions;
  readonly #workers = new Set<Worker>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #closing = false;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  get running(): number {
    return this.#workers.size;
  }

  /** Resolves once every worker takes connections. @throws where one does not start */
  async start(): Promise<void> {
    await Promise.all(Array.from({ length: this.#options.size }, () => this.#spawn(0)));
  }

  /** Hands the connection to the worker with the fewest, if that is fewer than the `own` of the caller; false where the caller is to serve it. */
  dispatch(socket: Socket, own: number): boolean {
    let least: Worker | null = null;
    for (const worker of this.#workers) {
      if (worker.ready && worker.connections < (least?.connections ?? own)) least = worker;
    }
    if (least === null) return false;
    const chosen = least;
    chosen.connections++;
    chosen.child.send({ t: 'socket' }, socket, { keepOpen: false }, (error) => {
      if (error === null) return;
      chosen.connections--;
      socket.destroy();
    });
    return true;
  }

  /** Resolves once every worker works with the state as it is now. */
  async update(): Promise<void> {
    const state = this.#options.state();
    await Promise.all(
      [...this.#workers].map(async (worker) => {
        const bound = setTimeout(() => worker.child.kill('SIGKILL'), UPDATE_PATIENCE);
        // One that ended meanwhile is replaced by one that starts with the newest state.
        await worker.channel.call('state', state).catch(() => {});
        clearTimeout(bound);
      }),
    );
  }

  /** What the workers have counted. */
  async metrics(): Promise<MetricValues[]> {
    const values = [...this.#workers].map(({ channel }) => channel.call<MetricValues>('metrics', null).catch(() => []));
    return Promise.all(values);
  }

  /** Lets running pulls end within `graceMs`, then ends the processes. */
  async close({ graceMs }: { readonly graceMs: number }): Promise<void> {
    this.#closing = true;
    for (const timer of this.#timers) clearTimeout(timer);
    await Promise.all(
      [...this.#workers].map(async ({ child, channel }) => {
        const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
        const bound = setTimeout(() => child.kill('SIGKILL'), graceMs + 2_000);
        await channel.call('drain', { graceMs }).catch(() => {});
        if (child.connected) child.disconnect();
        await ended;
        clearTimeout(bound);
      }),
    );
  }

  async #spawn(failures: number): Promise<void> {
    const { program, config, version, ticketKeys, state, log } = this.#options;
    const startedAt = Date.now();
    const child = fork(program, { serialization: 'advanced', stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const worker: Worker = { child, channel: new Channel(portOf(child)), connections: 0, ready: false };
    this.#workers.add(worker);
    this.#serve(worker);
    child.once('exit', (code, signal) => {
      this.#workers.delete(worker);
      if (this.#closing) return;
      const again = Date.now() - startedAt > SETTLED_AFTER ? 0 : failures;
      const wait = REPLACE_AFTER[Math.min(again, REPLACE_AFTER.length - 1)] ?? 0;
      log.error(
        { pid: child.pid, code, signal, wait },
        'a worker ended; its connections are lost, another takes its place',
      );
      this.#later(wait, () => this.#spawn(again + 1).catch(() => {}));
    });
    const bound = setTimeout(() => child.kill('SIGKILL'), START_PATIENCE);
    try {
      const start: StartMessage = { config, version, ticketKeys, state: state() };
      await worker.channel.call('start', start);
      // What changed while it started.
      await worker.channel.call('state', state());
      worker.ready = true;
      log.debug({ pid: child.pid }, 'a worker takes connections');
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    } finally {
      clearTimeout(bound);
    }
  }

  #serve(worker: Worker): void {
    const { core, certificate, access } = this.#options;
    const { channel } = worker;
    new CoreHost(core, channel);
    channel.handle('certificate', ({ host }: { host: string | null }) => certificate(host));
    channel.handle('check', (asker: never) => access.check(asker));
    channel.on('sent', ({ asker, grant, bytes }: { asker: never; grant: never; bytes: number }) =>
      access.countBytes(asker, grant, bytes),
    );
    channel.on('gone', () => {
      worker.connections--;
    });
  }

  #later(wait: number, task: () => Promise<void>): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      void task();
    }, wait);
    this.#timers.add(timer);
  }
}

function portOf(child: ChildProcess): Port {
  return {
    send: (message) => child.connected && child.send(message as object, () => {}),
    onMessage: (listener) => void child.on('message', listener),
    onClose: (listener) => void child.once('disconnect', listener),
  };
}
