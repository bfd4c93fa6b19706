import { type ChildProcess, fork } from 'node:child_process';
import type { Server } from 'node:net';
import { forkOptions } from '../kit/process.ts';
import type { MetricValues } from '../telemetry/metrics.ts';
import { Channel, type Port } from './channel.ts';

/** Turns of the event loop in which the last messages of a process that has ended are read; it takes a few. */
const MAX_TURNS = 10_000;

/** How a worker ended; `error` where there never was a process. */
export interface WorkerEnd {
  readonly code?: number | null;
  readonly signal?: NodeJS.Signals | null;
  readonly error?: string;
}

/** One worker, as the owner has it: a child process and the channel to it. */
export class WorkerProcess {
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  readonly channel: Channel;
  /** It is sent every change of the state. */
  informed = false;
  /** It accepts connections. */
  accepts = false;
  /** Probes since it last answered one. */
  unanswered = 0;
  /** What it had counted when it was last asked. */
  lastMetrics: MetricValues = [];

  /** The child's program loads while this returns. `onEnd` is called once, when it has ended or could not be started. */
  constructor(program: URL, onEnd: (how: WorkerEnd) => void) {
    const child = fork(program, {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      ...forkOptions(),
    });
    this.#child = child;
    this.channel = new Channel(portOf(child));
    this.channel.onClose(() => this.#stopUsing());
    this.#ended = new Promise((resolve) => {
      const end = (how: WorkerEnd): void => {
        this.#stopUsing();
        resolve();
        onEnd(how);
      };
      child.once('exit', (code, signal) => end({ code, signal }));
      // No process could be made: no exit follows. Any other error is about a message, and its sender gets it too.
      child.on('error', (error) => {
        if (child.pid === undefined) end({ error: error.message });
      });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** A call that must be answered within `timeout` ms, or the worker is made to end. @throws what `Channel.call` throws */
  async callOrEnd(method: string, params: unknown, timeout: number, server?: Server): Promise<void> {
    const timer = setTimeout(() => this.kill(), timeout);
    try {
      await this.channel.call(method, params, undefined, server);
    } catch (error) {
      this.kill();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** What it has counted; where it does not answer within `timeout` ms, what it said the last time. */
  async metrics(timeout: number): Promise<MetricValues> {
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, timeout);
    await Promise.race([this.#readMetrics(), late]);
    clearTimeout(timer);
    return this.lastMetrics;
  }

  /** Asks for a sign of life; `unanswered` counts those that did not come. */
  probe(): void {
    this.unanswered++;
    void this.#readMetrics();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Lets its pulls end within `graceMs`, then ends it; `timeout` ms later by force. */
  async drain(graceMs: number, timeout: number): Promise<void> {
    const timer = setTimeout(() => this.kill(), graceMs + timeout);
    await this.channel.call('drain', { graceMs }).catch(() => {});
    if (this.#child.connected) this.#child.disconnect();
    await this.#ended;
    clearTimeout(timer);
  }

  async #readMetrics(): Promise<void> {
    try {
      this.lastMetrics = await this.channel.call<MetricValues>('metrics', null);
      this.unanswered = 0;
    } catch {
      // It has ended, or has not loaded its program yet: what it said the last time is shown.
    }
  }

  #stopUsing(): void {
    this.informed = false;
    this.accepts = false;
  }
}

function portOf(child: ChildProcess): Port {
  return {
    send: (message, server) => child.connected && child.send(message as object, server, {}, () => {}),
    onMessage: (listener) => void child.on('message', (message) => listener(message)),
    onClose(listener) {
      child.once('disconnect', listener);
      // Node does not report the disconnection while a listening socket is on its way to a process that has ended.
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
