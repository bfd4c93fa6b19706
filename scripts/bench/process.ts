import { type ChildProcess, execFile, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Servers run on the first core, whoever loads them on the second; on a machine of one core both share it. */
const SERVER_CORE = '0';
export const CLIENT_CORE = availableParallelism() > 1 ? '1' : '0';

/** Those that run. */
const running = new Set<Server>();
const over = new AbortController();

/** Aborted when this run is over: done, failed, or told to end. */
export const runOver = over.signal;

/** Ends every server and command of this run; none can be started any more. May be called more than once. */
export async function endEverything(): Promise<void> {
  over.abort(new Error('the run is over'));
  await Promise.all([...running].map((server) => server.stop()));
}

/** A server of this run, pinned, ended by its own id. */
export class Server {
  readonly child: ChildProcess;
  readonly #ended: Promise<void>;
  #log: number | null;

  private constructor(child: ChildProcess, log: number) {
    this.child = child;
    this.#log = log;
    running.add(this);
    this.#ended = new Promise((resolve) => {
      for (const event of ['exit', 'error'] as const) {
        child.once(event, () => {
          running.delete(this);
          resolve();
        });
      }
    });
  }

  /** Starts `command` on the cores of `cpus`, and waits until something listens on `port`. */
  static async start(options: {
    readonly cpus?: string;
    readonly command: string;
    readonly args: readonly string[];
    readonly port: number;
    /** Where it listens; loopback where left out. */
    readonly host?: string;
    readonly env?: NodeJS.ProcessEnv;
    readonly cwd?: string;
  }): Promise<Server> {
    runOver.throwIfAborted();
    const log = openLog();
    const child = spawn('taskset', ['-c', options.cpus ?? SERVER_CORE, options.command, ...options.args], {
      env: { ...process.env, ...options.env },
      stdio: ['ignore', log, log],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const server = new Server(child, log);
    const deadline = Date.now() + 30_000;
    while (!(await listens(options.port, options.host))) {
      if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
        const output = endOf(log);
        await server.stop();
        throw new Error(`${options.command} does not listen on port ${options.port}:\n${output}`);
      }
      await sleep(5);
    }
    return server;
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Processes of this server: it and all its descendants. */
  pids(): number[] {
    const found = [this.pid];
    for (const pid of found) {
      for (const task of [pid]) {
        const children = read(`/proc/${task}/task/${task}/children`).trim();
        if (children !== '') found.push(...children.split(' ').map(Number));
      }
    }
    return found;
  }

  /** CPU seconds spent so far, user and system, by all threads of all its processes; exact, not in ticks of 10 ms. */
  cpu(): number {
    return sum(this.pids(), (pid) =>
      sum(threads(pid), (thread) => Number(read(`/proc/${pid}/task/${thread}/schedstat`).split(' ', 1)[0] ?? 0) / 1e9),
    );
  }

  /** Seconds that the first threads of its processes, which serve, were ready to run and waited for their core: for others, or for their own helpers. */
  waited(): number {
    return sum(this.pids(), (pid) => Number(read(`/proc/${pid}/task/${pid}/schedstat`).split(' ')[1] ?? 0) / 1e9);
  }

  /** Resident memory now, MiB; pages that its processes share count once each, in part (PSS). */
  resident(): number {
    return this.#memory(/^Pss:\s+(\d+)/m);
  }

  /** Memory of its own now, MiB: what it allocated, without the program's file, whose share depends on who else runs it. */
  allocated(): number {
    return this.#memory(/^Anonymous:\s+(\d+)/m);
  }

  #memory(line: RegExp): number {
    return sum(this.pids(), (pid) => Number(line.exec(read(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0) / 1024);
  }

  async stop(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill('SIGTERM');
      const bound = setTimeout(() => this.child.kill('SIGKILL'), 5_000);
      await this.#ended;
      clearTimeout(bound);
    }
    if (this.#log !== null) closeSync(this.#log);
    this.#log = null;
  }
}

/**
 * Keeps the servers' core from resting, with a loop that runs only when nothing else wants to (SCHED_IDLE), until this run is over. The core
 * of a virtual machine that has rested for a second runs at about half its speed for the next: whoever is measured after a pause
 * would be measured slow.
 */
export function keepAwake(): void {
  const loop = ['--idle', '0', 'taskset', '-c', SERVER_CORE, 'sh', '-c', 'while :; do :; done'];
  // Without `chrt` the figures move more; nothing else is lost. That the run is over is an error to `spawn`.
  spawn('chrt', loop, { stdio: 'ignore', signal: runOver, killSignal: 'SIGKILL' }).on('error', () => {});
}

/** Begins to watch the clients' core; the function says which share of the time since then it was busy, for whomever. */
export function clientCoreBusy(): () => number {
  const before = coreTicks(CLIENT_CORE);
  return () => {
    const now = coreTicks(CLIENT_CORE);
    return (now.busy - before.busy) / (now.all - before.all);
  };
}

/** By `/proc/stat` (proc_stat(5)): user, nice, system, idle, iowait, …, in ticks of 10 ms. */
function coreTicks(core: string): { readonly busy: number; readonly all: number } {
  const line = read('/proc/stat')
    .split('\n')
    .find((line) => line.startsWith(`cpu${core} `));
  const ticks = (line ?? '').split(/\s+/).slice(1, 9).map(Number);
  const all = sum(ticks, (tick) => tick);
  return { busy: all - (ticks[3] ?? 0) - (ticks[4] ?? 0), all };
}

/** In memory, on Linux. */
const LOGS = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

/**
 * A file for what a server prints, gone with its last descriptor. Reading a pipe would be work for the core of the clients, writing a file back
 * to the disk for either.
 */
function openLog(): number {
  const directory = mkdtempSync(join(LOGS, 'bench-'));
  const log = openSync(join(directory, 'log'), 'a+');
  rmSync(directory, { recursive: true });
  return log;
}

/** The last 8 kB. */
function endOf(log: number): string {
  const buffer = Buffer.alloc(8_000);
  const count = readSync(log, buffer, 0, buffer.length, Math.max(0, fstatSync(log).size - buffer.length));
  return buffer.toString('utf8', 0, count);
}

function sum<T>(values: readonly T[], of: (value: T) => number): number {
  return values.reduce((total, value) => total + of(value), 0);
}

function threads(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function listens(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, host);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Runs a command of the client's side to its end and returns what it printed. */
export async function command(file: string, args: readonly string[], options: { cpus?: string } = {}): Promise<string> {
  const { stdout } = await run('taskset', ['-c', options.cpus ?? CLIENT_CORE, file, ...args], {
    maxBuffer: 64 * 1024 * 1024,
    signal: runOver,
  });
  return stdout;
}
