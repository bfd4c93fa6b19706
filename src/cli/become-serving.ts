import { flushCompileCache } from 'node:module';
import { extname } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { compileCacheEnv } from '../kit/compile-cache.ts';
import { type Handover, handoverEnv } from './handover.ts';
import type { Signals } from './process.ts';

/**
 * What holds the memory of a serving process small, for it and its workers; neither can be changed once a process runs. A young
 * generation of 2 MiB: what a pull allocates dies at once, and buffers of 64 KiB that hang on it as well; to collect so little, waking four
 * threads costs more than they save. `gc` for QuietCollector.
 * glibc: few arenas, freed memory goes back to the system, whole buffers at once.
 */
const FLAGS = ['--max-semi-space-size=2', '--no-parallel-scavenge', '--expose-gc'];
const MALLOC = { MALLOC_ARENA_MAX: '2', MALLOC_MMAP_THRESHOLD_: '65536', MALLOC_TRIM_THRESHOLD_: '131072' };

/**
 * Replaces this program by the serving one, in the same process (execve), so that nothing stays in memory that only reads a command
 * line and a configuration. Returns where that cannot be: on Windows, on an older Node, with a configuration that is too long.
 */
export async function becomeServing(handover: Handover, signals: Signals): Promise<void> {
  const { argv, env, execArgv, execPath, execve } = process;
  const handed = handoverEnv(handover);
  if (execve === undefined || process.platform === 'win32' || handed === null) return;
  flushCompileCache();
  // A signal that has come is heard now; one that comes later ends the process, as it does until the other program has begun.
  await nextTurn();
  if (signals.signal.aborted) return;
  signals.drop();
  for (const stream of [process.stdin, process.stdout, process.stderr]) block(stream);
  const program = fileURLToPath(new URL(`../serving${extname(import.meta.filename)}`, import.meta.url));
  // The arguments are for whoever looks at the list of processes.
  execve.call(process, execPath, [execPath, ...FLAGS, ...execArgv, program, ...argv.slice(2)], {
    ...MALLOC,
    ...env,
    ...compileCacheEnv(),
    ...handed,
  });
}

/**
 * Node does not wait for a pipe, and the pipe itself is told so. The next program would take that for how it was, and leave it so to
 * whoever else writes to it (`{ gateway serve; echo; } | …`). Node has no public way to take it back.
 */
function block(stream: unknown): void {
  const { _handle: handle } = stream as { readonly _handle?: { setBlocking?: (on: boolean) => void } | null };
  handle?.setBlocking?.(true);
}
