import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLIENT_CORE, runOver } from './process.ts';

/** How long a server must have done nothing to be through with what its client left, and how long that may take, ms. */
const QUIET = 6;
const TIMEOUT = 1_000;
/** The share of a core that counts as nothing: a timer, a collection of garbage. */
const NOTHING = 0.1;

/**
 * A program that loads one server for as long as it lives, held still (SIGSTOP) but for its turns. Several of them take turns of a
 * fraction of a second, so that every server meets the same machine.
 */
export class HeldClient {
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #printed = '';
  #held = false;

  /** Starts `args` on the client's core; it runs until it is first held. */
  constructor(...args: readonly string[]) {
    this.#child = spawn('taskset', ['-c', CLIENT_CORE, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      signal: runOver,
      // One that is held hears no other.
      killSignal: 'SIGKILL',
    });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#printed += text;
    });
    this.#ended = new Promise((resolve) => {
      for (const event of ['close', 'error'] as const) this.#child.once(event, () => resolve());
    });
  }

  /** Bytes that it has read so far, of sockets too. */
  get read(): number {
    return Number(/^rchar: (\d+)/m.exec(readFileSync(`/proc/${this.#child.pid}/io`, 'utf8'))?.[1]);
  }

  hold(): void {
    this.#signal('SIGSTOP');
    this.#held = true;
  }

  /** Lets it run for so many ms, then holds it again. Returns for how long it ran, s. */
  async turn(ms: number): Promise<number> {
    const started = performance.now();
    this.#signal('SIGCONT');
    this.#held = false;
    await sleep(ms);
    this.hold();
    return (performance.now() - started) / 1000;
  }

  /** Tells it to end (SIGINT) and returns what it printed. */
  async end(): Promise<string> {
    this.#child.kill('SIGINT');
    if (this.#held) this.#child.kill('SIGCONT');
    await this.#ended;
    return this.#printed;
  }

  #signal(signal: NodeJS.Signals): void {
    runOver.throwIfAborted();
    if (this.#child.exitCode !== null || !this.#child.kill(signal))
      throw new Error(`the client ended before its time:\n${this.#printed}`);
  }
}

/** One server under its client's load. */
export interface Loaded {
  readonly client: HeldClient;
  /** Units of work done so far, of any size. */
  readonly done: () => number;
  /** CPU seconds that the server has spent so far. */
  readonly cpu: () => number;
}

export interface Slice {
  readonly units: number;
  readonly seconds: number;
  readonly cpu: number;
}

/** One slice of so many ms: what was done in it, and what it cost the server. */
export async function slice({ client, done, cpu }: Loaded, ms: number): Promise<Slice> {
  const before = { units: done(), cpu: cpu() };
  const seconds = await client.turn(ms);
  await quiet(cpu);
  return { units: done() - before.units, seconds, cpu: cpu() - before.cpu };
}

/** Waits until a server has done what its client asked before it was held: it would take from the next one's turn. */
async function quiet(cpu: () => number): Promise<void> {
  const deadline = performance.now() + TIMEOUT;
  for (let still = false; !still && performance.now() < deadline; ) {
    const before = { cpu: cpu(), at: performance.now() };
    await sleep(QUIET);
    still = (cpu() - before.cpu) * 1000 < NOTHING * (performance.now() - before.at);
  }
}

/** Slices of `ms` in turn, `seconds` of load for each: a list for each, in the order of the turns. */
export async function inSlices(all: readonly Loaded[], seconds: number, ms: number): Promise<Slice[][]> {
  const slices = all.map((): Slice[] => []);
  for (let turn = 0; turn < (seconds * 1000) / ms; turn++)
    for (const [index, each] of all.entries()) slices[index]?.push(await slice(each, ms));
  return slices;
}
