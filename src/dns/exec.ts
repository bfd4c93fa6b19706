import { spawn } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import type { DnsRecord } from '../certs/dns-01.ts';
import { IssuerError } from '../certs/issuer.ts';
import { printable } from '../kit/text.ts';
import type { DnsProvider } from './provider.ts';

/** What a hook says is read so far, bytes: enough for the error of any API. */
const SAID_MAX = 64 * 1024;
/** Of that, what a message quotes, characters: the end, where programs say why they failed. */
const QUOTED = 500;
/** For one call, ms; an abort from outside ends it before. */
const TIMEOUT = 50_000;
/** How long what it said may still be on its way once it has ended, ms. */
const PIPES_AFTER_EXIT = 1_000;

/**
 * An operator's program, called as lego calls its hooks: `present` or `cleanup`, the name with a dot at the end, the value. No shell reads any
 * of it. The program has this gateway's environment but for its own variables, in which there are secrets.
 */
export class Exec implements DnsProvider {
  readonly kind = 'exec';
  readonly name: string;
  readonly #program: string;
  readonly #timeout: number;

  constructor(program: string, timeout = TIMEOUT) {
    this.name = `exec (${program})`;
    this.#program = program;
    this.#timeout = timeout;
  }

  async add({ name, value }: DnsRecord, signal: AbortSignal): Promise<void> {
    await this.#run(['present', `${name}.`, value], signal);
  }

  async remove({ name, value }: DnsRecord, signal: AbortSignal): Promise<void> {
    await this.#run(['cleanup', `${name}.`, value], signal);
  }

  /** That it is there and may be run is all that can be seen without a record. */
  async check(): Promise<void> {
    try {
      await access(this.#program, constants.X_OK);
    } catch (cause) {
      throw this.#failed(`it cannot be run: ${(cause as Error).message}`, cause);
    }
  }

  async #run(args: readonly string[], stop: AbortSignal): Promise<void> {
    const timeout = AbortSignal.timeout(this.#timeout);
    const { code, signal, said } = await this.#spawned(args, AbortSignal.any([stop, timeout]));
    stop.throwIfAborted();
    const what = `${args[0]} ${args[1]}`;
    const quoted = printable(said.slice(-QUOTED), QUOTED);
    const words = quoted === '' ? '' : `: ${said.length > QUOTED ? '…' : ''}${quoted}`;
    if (timeout.aborted)
      throw this.#failed(`${what} was not done within ${this.#timeout / 1000} s and was killed${words}`);
    if (code === 0) return;
    throw this.#failed(`${what} ended with ${code === null ? signal : `exit status ${code}`}${words}`);
  }

  /** `said`: what it wrote to its standard error, and, where it wrote nothing there, to its standard output. */
  #spawned(
    args: readonly string[],
    stop: AbortSignal,
  ): Promise<{ code: number | null; signal: string | null; said: string }> {
    return new Promise((resolve, reject) => {
      // A group of its own: what it started goes with it.
      const child = spawn(this.#program, args, {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: environment(),
        detached: true,
      });
      const end = () => killGroup(child.pid);
      const [told, failed] = [new Tail(SAID_MAX), new Tail(SAID_MAX)];
      child.stdout.on('data', (chunk: Buffer) => told.add(chunk));
      child.stderr.on('data', (chunk: Buffer) => failed.add(chunk));
      child.on('error', (cause) => reject(this.#failed(`it cannot be run: ${cause.message}`, cause)));
      child.on('exit', () => {
        // What it left running may hold its pipes open.
        const late = setTimeout(() => {
          child.stdout.destroy();
          child.stderr.destroy();
        }, PIPES_AFTER_EXIT);
        child.on('close', () => clearTimeout(late));
      });
      child.on('close', (code, signal) => {
        stop.removeEventListener('abort', end);
        resolve({ code, signal, said: failed.text === '' ? told.text : failed.text });
      });
      stop.addEventListener('abort', end, { once: true });
      if (stop.aborted) end();
    });
  }

  #failed(detail: string, cause?: unknown): IssuerError {
    return new IssuerError('dnsProvider', `the program ${this.#program}: ${detail}`, { cause });
  }
}

/** The last bytes of what is written. */
class Tail {
  readonly #most: number;
  #bytes = Buffer.alloc(0);

  constructor(most: number) {
    this.#most = most;
  }

  add(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]).subarray(-this.#most);
  }

  get text(): string {
    return this.#bytes.toString().trim();
  }
}

function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('GATEWAY_')));
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has just ended.
  }
}
