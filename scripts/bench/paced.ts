import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { CLIENT_CORE, runOver } from './process.ts';

/** What came of one time. A request's time begins when its turn is, even if the client is late or still waits for its last answer. */
export interface Paced {
  readonly requests: number;
  /** Answers other than 200, and requests whose connection ended. */
  readonly failed: number;
  /** ms */
  readonly p50: number;
  readonly p99: number;
  readonly most: number;
  /** The longest that this program itself came late to a turn, ms: below it nothing is measured. */
  readonly late: number;
  /** Share of a core that this program used. */
  readonly busy: number;
}

const PROGRAM = join(import.meta.dirname, 'paced-client.ts');

/** Many clients that ask for one path at an even pace, in a process of their own on the clients' core. */
export class PacedClients {
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  private constructor(child: ChildProcess, lines: Interface) {
    this.#child = child;
    this.#lines = lines;
  }

  /** Resolves when all are connected. @throws where one could not */
  static async connect(options: {
    readonly port: number;
    readonly clients: number;
    /** Requests a second of all of them. */
    readonly rate: number;
    readonly path: string;
    /** Names that they ask the server for, in turn. */
    readonly hosts: readonly string[];
  }): Promise<PacedClients> {
    const { port, clients, rate, path, hosts } = options;
    const args = [PROGRAM, String(port), String(clients), String(rate), path, ...hosts];
    const child = spawn('taskset', ['-c', CLIENT_CORE, process.execPath, ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
      signal: runOver,
      killSignal: 'SIGKILL',
    });
    const lines = createInterface({ input: child.stdout });
    const paced = new PacedClients(child, lines);
    await paced.#line();
    return paced;
  }

  async measure(seconds: number): Promise<Paced> {
    const line = this.#line();
    this.#child.stdin?.write(`${seconds}\n`);
    return JSON.parse(await line) as Paced;
  }

  async end(): Promise<void> {
    const ended = once(this.#child, 'close');
    this.#child.stdin?.end();
    await ended;
  }

  /** The next line that it prints. */
  #line(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#lines.once('line', resolve);
      this.#lines.once('close', () => reject(new Error('the clients have ended')));
    });
  }
}
