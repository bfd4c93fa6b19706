import type { Socket } from 'node:net';
import type { Config } from '../config/config.ts';
import type { ProxyCore } from '../proxy/reply.ts';
import type { Logger } from '../telemetry/log.ts';
import { addUp, type MetricValues } from '../telemetry/metrics.ts';
import { CoreHost } from './core-host.ts';
import type { MaterialMessage, StartMessage, StateMessage } from './wire.ts';
import { WorkerProcess } from './worker-process.ts';

/** How long a worker may take until it takes connections, ms. */
const START_PATIENCE = 20_000;
/** Waits before a worker that ended is replaced, ms: at once, then slower where they keep ending. */
const REPLACE_AFTER = [0, 500, 2_000, 10_000, 30_000];
/** A worker that has lived this long, ms, has not ended for the reason that it started. */
const SETTLED_AFTER = 60_000;
/** How long a worker may take to say that it knows the newest state, ms; one that hangs is replaced. */
const UPDATE_PATIENCE = 10_000;
/** How often a worker is asked what it has counted, ms, which also shows that it is alive. */
const LOOK_EVERY = 5_000;
/** A worker that is silent for so many looks gets no more connections, and for so many is replaced: a busy machine delays one, not four. */
const SUSPECT_AFTER = 2;
const HUNG_AFTER = 4;
/** How long a reading of the metrics waits for one worker, ms; then it shows what that worker said the last time. */
const METRICS_PATIENCE = 1_000;
/** Beyond the grace that running pulls have, ms, before a worker is made to end. */
const END_PATIENCE = 2_000;

/** What the owner does for its workers. */
export interface PoolOptions {
  /** Workers besides the owner itself. */
  readonly size: number;
  /** The program of a worker. */
  readonly program: URL;
  readonly config: Config;
  readonly version: string;
  readonly ticketKeys: Uint8Array;
  readonly core: ProxyCore;
  readonly state: () => StateMessage;
  readonly certificate: (host: string | null) => MaterialMessage | null;
  /** Users, rules and limits, decided here where they must hold for all processes together. */
  readonly access: {
    check(asker: never): unknown;
    countBytes(asker: never, grant: never, bytes: number): void;
  };
  /** Serves a connection that no worker could be given, or that a worker ended without. */
  readonly serve: (socket: Socket) => void;
  readonly log: Logger;
  /** For tests that must not wait for long. */
  readonly lookEvery?: number;
}

/** The other processes that serve clients: started, replaced when they end, told of every change, handed connections. */
export class Pool {
  readonly #options: PoolOptions;
  readonly #workers = new Set<WorkerProcess>();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #looking: NodeJS.Timeout;
  /** What workers that have ended had counted when they were last asked. */
  #past: Promise<MetricValues> = Promise.resolve([]);
  /** Grows with each change of the state. */
  #version = 0;
  #closing = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#looking = setInterval(() => this.#look(), options.lookEvery ?? LOOK_EVERY).unref();
  }

  /** Workers that take connections. */
  get ready(): number {
    return [...this.#workers].filter(({ ready }) => ready).length;
  }

  /** Resolves once every worker takes connections. @throws where one does not start; it is tried again all the same */
  async start(): Promise<void> {
    await Promise.all(Array.from({ length: this.#options.size }, () => this.#spawn(0)));
  }

  /** Hands the connection to the worker with the fewest, if that is fewer than the `own` of the caller; false where the caller is to serve it. */
  dispatch(socket: Socket, own: number): boolean {
    if (this.#closing) return false;
    let least: WorkerProcess | null = null;
    for (const worker of this.#workers) {
      if (!worker.ready || worker.silent >= SUSPECT_AFTER) continue;
      if (worker.connections < (least?.connections ?? own)) least = worker;
    }
    least?.give(socket);
    return least !== null;
  }

  /** Resolves once every worker that takes connections works with the state as it is now. */
  async update(): Promise<void> {
    this.#version++;
    const state = this.#options.state();
    const ready = [...this.#workers].filter((worker) => worker.ready);
    // One that ended meanwhile is replaced by one that starts with the newest state.
    await Promise.all(ready.map((worker) => worker.callOrEnd('state', state, UPDATE_PATIENCE).catch(() => {})));
  }

  /** What the workers have counted, those that have ended included. */
  async metrics(): Promise<MetricValues[]> {
    const values = [...this.#workers].map((worker) => worker.counted(METRICS_PATIENCE));
    return Promise.all([this.#past, ...values]);
  }

  /** Lets running pulls end within `graceMs`, then ends the processes. */
  async close({ graceMs }: { readonly graceMs: number }): Promise<void> {
    this.#closing = true;
    clearInterval(this.#looking);
    for (const timer of this.#timers) clearTimeout(timer);
    await Promise.all([...this.#workers].map((worker) => worker.drain(graceMs, END_PATIENCE)));
  }

  async #spawn(failures: number): Promise<void> {
    const { program, config, version, ticketKeys, state, serve, log } = this.#options;
    const startedAt = performance.now();
    const worker = new WorkerProcess(program, {
      unserved: serve,
      ended: (how) => {
        this.#workers.delete(worker);
        if (worker.lastCounted.length > 0) {
          this.#past = this.#past.then((past) => addUp([past, worker.lastCounted])).catch(() => []);
        }
        if (this.#closing) return;
        const again = performance.now() - startedAt > SETTLED_AFTER ? 0 : failures;
        const wait = REPLACE_AFTER[Math.min(again, REPLACE_AFTER.length - 1)] ?? 0;
        log.error(
          { worker: worker.pid, ...how, connections: worker.connections, wait },
          'a worker ended; its connections are lost, another takes its place',
        );
        this.#later(wait, () => this.#spawn(again + 1).catch(() => {}));
      },
    });
    this.#workers.add(worker);
    this.#serve(worker);
    const start: StartMessage = { config, version, ticketKeys, state: state() };
    let told = this.#version;
    await worker.callOrEnd('start', start, START_PATIENCE);
    // What changed while it started: it takes its first connection with the newest state.
    while (told !== this.#version) {
      told = this.#version;
      await worker.callOrEnd('state', state(), UPDATE_PATIENCE);
    }
    worker.ready = true;
    log.debug({ worker: worker.pid }, 'a worker takes connections');
  }

  #serve(worker: WorkerProcess): void {
    const { core, certificate, access } = this.#options;
    const { channel } = worker;
    new CoreHost(core, channel);
    channel.handle('certificate', ({ host }: { host: string | null }) => certificate(host));
    channel.handle('check', (asker: never) => access.check(asker));
    channel.on('sent', ({ asker, grant, bytes }: { asker: never; grant: never; bytes: number }) =>
      access.countBytes(asker, grant, bytes),
    );
  }

  #look(): void {
    for (const worker of this.#workers) {
      if (!worker.ready) continue;
      if (worker.silent >= HUNG_AFTER) {
        this.#options.log.error({ worker: worker.pid }, 'a worker does not answer any more; it is made to end');
        worker.kill();
      } else worker.look();
    }
  }

  #later(wait: number, task: () => Promise<void>): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      void task();
    }, wait);
    this.#timers.add(timer);
  }
}
