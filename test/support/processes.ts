import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';

/** Puts a command line into other surroundings: a namespace (namespace.ts), a wrapper. */
export interface Surroundings {
  wrap(command: string, args: readonly string[]): { command: string; args: string[] };
}

export interface ProgramOptions {
  readonly command: string;
  readonly args?: readonly string[];
  /** The whole environment; the test's own where it is left out. */
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly within?: Surroundings | undefined;
}

/** A program that runs beside the test. */
export interface Program {
  readonly pid: number;
  /** All it has printed, both streams, as it came. */
  output(): string;
  /** Resolves with the first match in its output; rejects where it ends or `ms` pass before. */
  waitFor(pattern: RegExp, ms?: number): Promise<RegExpMatchArray>;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  running(): boolean;
  signal(name: NodeJS.Signals): void;
  /** Ends it and what it started, and waits for it; harmless where it has ended. `ms` after SIGTERM comes SIGKILL. */
  end(ms?: number): Promise<void>;
  /** SIGKILL to it and what it started, and waits for it. */
  kill(): Promise<void>;
}

/** How long a program may take to say what a test waits for, ms: generous, since two cores may be busy with other tests. */
const PATIENCE = 60_000;

/** Output kept of one program, characters; more is dropped from the front. */
const KEPT_OUTPUT = 16 * 1024 * 1024;

const alive = new Set<ChildProcess>();
// Whatever becomes of the tests, nothing they started outlives them.
process.on('exit', () => {
  for (const child of alive) killGroup(child, 'SIGKILL');
});

/** Starts a program in a process group of its own. */
export function startProgram(options: ProgramOptions): Program {
  const { command, args } = placed(options);
  const child = spawn(command, args, {
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  alive.add(child);
  let output = '';
  const watchers = new Set<() => void>();
  const changed = () => {
    for (const watcher of [...watchers]) watcher();
  };
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      output = (output + chunk).slice(-KEPT_OUTPUT);
      changed();
    });
  }
  let failure: Error | undefined;
  child.once('error', (error) => {
    failure = error;
    alive.delete(child);
    changed();
  });
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once('error', () => resolve({ code: null, signal: null }));
    child.once('close', (code, signal) => {
      alive.delete(child);
      resolve({ code, signal });
      changed();
    });
  });
  const running = () => child.exitCode === null && child.signalCode === null && failure === undefined;

  const program: Program = {
    get pid() {
      if (child.pid === undefined) throw new Error(`${options.command} did not start`, { cause: failure });
      return child.pid;
    },
    output: () => output,
    exited,
    running,
    signal: (name) => {
      child.kill(name);
    },
    async waitFor(pattern, ms = PATIENCE) {
      return await new Promise((resolve, reject) => {
        const settle = (act: () => void) => {
          watchers.delete(look);
          clearTimeout(timer);
          act();
        };
        const tell = (what: string) =>
          settle(() => reject(new Error(`${options.command} ${what}; it printed:\n${output}`, { cause: failure })));
        const look = () => {
          const match = output.match(pattern);
          if (match !== null) settle(() => resolve(match));
          else if (!running()) tell(`ended before it printed ${pattern}`);
        };
        const timer = setTimeout(() => tell(`did not print ${pattern} in ${ms} ms`), ms);
        watchers.add(look);
        look();
      });
    },
    async end(ms = 10_000) {
      if (running()) child.kill('SIGTERM');
      const timer = setTimeout(() => killGroup(child, 'SIGKILL'), ms);
      await exited;
      clearTimeout(timer);
      killGroup(child, 'SIGKILL');
    },
    async kill() {
      killGroup(child, 'SIGKILL');
      await exited;
    },
  };
  return program;
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // Nothing of the group is left.
  }
}

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. `ms`: after that it is killed, and `code` is null. */
export async function runProgram(
  options: ProgramOptions & { readonly input?: string; readonly ms?: number },
): Promise<Ran> {
  const { command, args } = placed(options);
  const child = spawn(command, args, {
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  alive.add(child);
  const text = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text.stdout += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    text.stderr += chunk;
  });
  // A program that does not read its input closes it.
  child.stdin.on('error', () => {});
  child.stdin.end(options.input ?? '');
  const timer = setTimeout(() => killGroup(child, 'SIGKILL'), options.ms ?? 120_000);
  try {
    const [code] = (await once(child, 'close')) as [number | null];
    return { code, ...text };
  } finally {
    clearTimeout(timer);
    alive.delete(child);
  }
}

/** Runs a program that has to succeed. */
export async function runOk(options: Parameters<typeof runProgram>[0]): Promise<Ran> {
  const ran = await runProgram(options);
  if (ran.code !== 0) {
    const line = [options.command, ...(options.args ?? [])].join(' ');
    throw new Error(`${line} ended with ${ran.code}\n${ran.stdout}\n${ran.stderr}`);
  }
  return ran;
}

function placed({ command, args = [], within }: ProgramOptions): { command: string; args: string[] } {
  return within === undefined ? { command, args: [...args] } : within.wrap(command, args);
}

/** Below the ports that systems give to outgoing connections (Linux from 32768, others from 49152): those could take one meanwhile. */
const PORTS = { from: 10_000, to: 30_000 };
const taken = new Set<number>();

/**
 * Ports that were free a moment ago, for programs that cannot pick their own. Chosen at random among many, and never twice by one
 * process, as several files of tests run at the same time.
 */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = randomInt(PORTS.from, PORTS.to);
    if (taken.has(port) || !(await isFree(port))) continue;
    taken.add(port);
    ports.push(port);
  }
  return ports;
}

function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** A process and all below it. */
export function processTree(pid: number): number[] {
  const found = [pid];
  for (const parent of found) {
    try {
      for (const task of readdirSync(`/proc/${parent}/task`)) {
        const children = readFileSync(`/proc/${parent}/task/${task}/children`, 'utf8').trim();
        if (children !== '') found.push(...children.split(' ').map(Number));
      }
    } catch {
      // It has ended meanwhile.
    }
  }
  return found;
}

/**
 * Resident bytes of a process and all below it. What each allocated is added up; pages of files are counted once, as the most that one
 * of them maps: processes of one program map the same pages of its file, and the machine has those once, however many there are.
 */
export function residentBytes(pid: number): number {
  const members = processTree(pid);
  const own = members.map((member) => kibibytes(member, 'RssAnon') + kibibytes(member, 'RssShmem'));
  const files = members.map((member) => kibibytes(member, 'RssFile'));
  return (own.reduce((sum, size) => sum + size, 0) + Math.max(...files)) * 1024;
}

/** Open descriptors of a process and all below it. */
export function openDescriptors(pid: number): number {
  return processTree(pid).reduce((sum, member) => {
    try {
      return sum + readdirSync(`/proc/${member}/fd`).length;
    } catch {
      return sum;
    }
  }, 0);
}

function kibibytes(pid: number, field: string): number {
  try {
    return Number(
      readFileSync(`/proc/${pid}/status`, 'utf8').match(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm'))?.[1] ?? 0,
    );
  } catch {
    return 0;
  }
}
