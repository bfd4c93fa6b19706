import { type ChildProcess, fork } from 'node:child_process';
import type { Socket } from 'node:net';
import { forkOptions } from '../kit/process-start.ts';
import type { MetricValues } from '../telemetry/metrics.ts';
import { Channel, type Port } from './channel.ts';

/** Turns of the event loop in which the last messages of a process that has ended are read; it takes a few. */
const MAX_TURNS = 10_000;

/** How a worker ended; `error` where there never was a process. */
export interface Ending {
  readonly code?: number | null;
  readonly signal?: NodeJS.Signals | null;
  readonly error?: string;
}

export interface WorkerHooks {
  /** Called once, when it has ended or could not be started. */
  readonly ended: (how: Ending) => void;
  /** A connection that it was given and never had. */
  readonly unserved: (socket: Socket) => void;
}

/** One worker, as the owner has it: a child process, the channel to it, the connections that it was given. */
export class WorkerProcess {
  readonly #hooks: WorkerHooks;
  readonly #child: ChildProcess;
  /** On their way: Node sends one connection at a time and waits until it has arrived. This process keeps each until the worker says that it has it. */
  readonly #given = new Map<number, Socket>();
  #nextGiven = 1;
  readonly #gone: Promise<void>;
  readonly channel: Channel;
  /** Connections that it was given and that still live. */
  connections = 0;
  /** It works with the newest state and may be given connections. */
  ready = false;
  /** Looks since it last answered one. */
  silent = 0;
  /** What it had counted when it was last asked. */
  lastCounted: MetricValues = [];

  /** The child's program loads while this returns. */
  constructor(program: URL, hooks: WorkerHooks) {
    this.#hooks = hooks;
    this.#child = fork(program, {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      ...forkOptions(),
    });
    const child = this.#child;
    this.channel = new Channel(portOf(child));
    this.channel.on('gone', () => {
      this.connections--;
    });
    this.#gone = new Promise((resolve) => {
      const end = (how: Ending): void => {
        this.ready = false;
        resolve();
        hooks.ended(how);
      };
      child.once('exit', (code, signal) => end({ code, signal }));
      // No process could be made: no exit follows. Otherwise it is about a message, whose sender hears of it, too.
      child.on('error', (error) => {
        if (child.pid === undefined) end({ error: error.message });
      });
    });
    // Its own copy is open by then, so the connection lives on.
    this.channel.on('took', (id: number) => this.#take(id)?.destroy());
    this.channel.onClose(() => {
      this.ready = false;
      for (const id of [...this.#given.keys()]) this.#takeBack(id);
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Hands an accepted, paused connection over. */
  give(socket: Socket): void {
    const id = this.#nextGiven++;
    this.connections++;
    this.#given.set(id, socket);
    // A client may leave while its connection waits; nobody else listens for that yet.
    socket.on('error', () => {});
    this.#child.send({ t: 'socket', id }, socket, { keepOpen: true }, (error) => {
      if (error !== null) this.#takeBack(id);
    });
  }

  /** A call that must be answered within `patience` ms, or the worker is made to end. @throws what `Channel.call` throws */
  async callOrEnd(method: string, params: unknown, patience: number): Promise<void> {
    const bound = setTimeout(() => this.kill(), patience);
    try {
      await this.channel.call(method, params);
    } catch (error) {
      this.kill();
      throw error;
    } finally {
      clearTimeout(bound);
    }
  }

  /** What it has counted; after `patience` ms, what it said the last time. */
  async counted(patience: number): Promise<MetricValues> {
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const bound = setTimeout(resolve, patience);
    await Promise.race([this.#count(), late]);
    clearTimeout(bound);
    return this.lastCounted;
  }

  /** Asks for a sign of life; `silent` counts those that did not come. */
  look(): void {
    this.silent++;
    void this.#count();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Lets its pulls end within `graceMs`, then ends it; `patience` ms later by force. */
  async drain(graceMs: number, patience: number): Promise<void> {
    const bound = setTimeout(() => this.kill(), graceMs + patience);
    await this.channel.call('drain', { graceMs }).catch(() => {});
    if (this.#child.connected) this.#child.disconnect();
    await this.#gone;
    clearTimeout(bound);
  }

  async #count(): Promise<void> {
    try {
      this.lastCounted = await this.channel.call<MetricValues>('metrics', null);
      this.silent = 0;
    } catch {
      // It has ended, or has not loaded its program yet: what it said the last time stands.
    }
  }

  #take(id: number): Socket | undefined {
    const socket = this.#given.get(id);
    this.#given.delete(id);
    return socket;
  }

  /** The worker never had it, and nothing of it was read: it can still be served. */
  #takeBack(id: number): void {
    const socket = this.#take(id);
    if (socket === undefined) return;
    this.connections--;
    if (!socket.destroyed) this.#hooks.unserved(socket);
  }
}

function portOf(child: ChildProcess): Port {
  return {
    send: (message) => child.connected && child.send(message as object, () => {}),
    onMessage: (listener) => void child.on('message', listener),
    onClose(listener) {
      child.once('disconnect', listener);
      // Node does not tell of the disconnection while a connection is on its way to a process that has ended.
      child.once('exit', () => afterLastMessage(child, listener));
      child.once('error', () => child.pid === undefined && listener());
    },
  };
}

/** What the process still sent is read first: then the channel is at its end. */
function afterLastMessage(child: ChildProcess, listener: () => void, turn = 0): void {
  if (!child.connected || turn === MAX_TURNS) listener();
  else setImmediate(afterLastMessage, child, listener, turn + 1);
}
