import { existsSync, readFileSync } from 'node:fs';
import { getCompileCacheDir } from 'node:module';
import { dirname } from 'node:path';

/** The program's version, from its package.json: one directory above `src/`, two above `dist/src/`. */
export function version(): string {
  for (const place of ['../../package.json', '../../../package.json']) {
    const file = new URL(place, import.meta.url);
    if (existsSync(file)) return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
  }
  return 'unknown';
}

/**
 * Flags of a serving process, which cannot be changed once it runs; `scripts/gateway` and `deploy/Dockerfile` give the same to the
 * first process. A young generation of 2 MiB, since what a pull allocates dies at once, and the 64 KiB buffers that hang on it as well;
 * collected on the main thread alone, since waking four threads for so little costs more than they save. `gc` for `collectAfterStart`.
 * And no debugger by a signal: whoever reaches its port runs code in this process.
 */
const NODE_FLAGS = ['--max-semi-space-size=2', '--no-parallel-scavenge', '--expose-gc', '--disable-sigusr1'];

/**
 * glibc's variables, with the same reason and in the same places: two arenas, blocks of 64 KiB and more straight from the system, freed
 * memory given back to it at once. By default the arena of each thread would keep what it once needed.
 */
const MALLOC = { MALLOC_ARENA_MAX: '2', MALLOC_MMAP_THRESHOLD_: '65536', MALLOC_TRIM_THRESHOLD_: '131072' };

/** Where the flag for it was left out: Node opens its debugger at this signal, unless somebody listens for it. Without either it would end the process. */
export function ignoreDebuggerSignal(): void {
  process.on('SIGUSR1', () => {});
}

/** After this, ms, nothing of the start is running any more; and how long a process has had next to nothing to do before it is collected. */
const QUIET_FOR = 5_000;
/** Of that time, the share in which it was at work at most: putting an index of a few thousand blobs in order takes less. */
const QUIET = 0.05;

/** How another process of the gateway is forked; what the operator has set for this one wins. */
export function forkOptions(): { readonly execArgv: string[]; readonly env: NodeJS.ProcessEnv } {
  // A directory of this version of Node, in the one that was asked for. Without the variable the child would compile everything anew.
  const directory = getCompileCacheDir();
  const compileCache = directory === undefined ? {} : { NODE_COMPILE_CACHE: dirname(directory) };
  return {
    execArgv: [...NODE_FLAGS.filter((flag) => !process.execArgv.includes(flag)), ...process.execArgv],
    env: { ...MALLOC, ...process.env, ...compileCache },
  };
}

/**
 * Collects once, in the first quiet moment after the start, together with the code that only the start needed: V8 collects for want of room only,
 * and an idle process would keep it for good. Measured: 6 to 9 MiB of an owner and 6 MiB of each worker, for one pause of up to 120 ms, which
 * nobody is to wait for. Nothing without `--expose-gc`.
 */
export function collectAfterStart(): void {
  const { gc } = globalThis;
  if (gc === undefined) return;
  let before = performance.eventLoopUtilization();
  const looks = setInterval(() => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, before);
    before = now;
    if (utilization > QUIET) return;
    clearInterval(looks);
    void gc({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  }, QUIET_FOR).unref();
}

/** How many descriptors this process may have open (the soft limit, which Node has raised to the hard one); null where the system does not say. */
export function descriptorLimit(): number | null {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    return soft === undefined ? null : Number(soft);
  } catch {
    return null;
  }
}

/** What was started, ended in the opposite order. One end that fails does not keep the others from ending. */
export class Lifecycle {
  readonly #ends: { readonly what: string; readonly end: () => unknown }[] = [];

  /** Remembers how to end what was just started. */
  defer(what: string, end: () => unknown): void {
    this.#ends.push({ what, end });
  }

  /** Ends everything that is left, newest first; `failed` hears of what went wrong. */
  async end(failed: (what: string, error: unknown) => void): Promise<void> {
    for (let next = this.#ends.pop(); next !== undefined; next = this.#ends.pop()) {
      try {
        await next.end();
      } catch (error) {
        failed(next.what, error);
      }
    }
  }
}
