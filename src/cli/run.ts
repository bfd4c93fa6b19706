import { availableParallelism, constants } from 'node:os';
import { CommanderError } from 'commander';
import { OperatorError } from '../kit/operator-error.ts';
import { Output, type Stream } from './output.ts';
import { buildProgram, type GlobalOptions } from './program.ts';
import { createSession } from './session.ts';

export interface RunOptions {
  /** Without `node` and the script. */
  readonly argv: readonly string[];
  readonly stdout: Stream;
  readonly stderr: Stream;
  readonly stdin: NodeJS.ReadableStream;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  /** Aborted when the person presses Ctrl-C. */
  readonly signal: AbortSignal;
}

/** Runs one command. Resolves to its exit code: 0 done, 1 failed, 2 bad usage. Never throws. */
export async function run(options: RunOptions): Promise<number> {
  const output = new Output(options);
  let globals: GlobalOptions = {};
  const session = createSession({
    output,
    signal: options.signal,
    env: options.env,
    stdin: options.stdin,
    load: async () => {
      const { loadConfig } = await import('../config/load.ts');
      return loadConfig({
        env: options.env,
        cwd: options.cwd,
        cores: availableParallelism(),
        terminal: options.stdout.isTTY === true,
        file: globals.config,
        dataDir: globals.dataDir,
      });
    },
  });
  const exit = { code: 0 };
  const program = buildProgram(session, exit);
  program.hook('preAction', () => {
    globals = program.opts<GlobalOptions>();
  });
  try {
    await program.parseAsync(options.argv, { from: 'user' });
    return exit.code;
  } catch (error) {
    output.progressEnd();
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (options.signal.aborted) {
      output.error(new OperatorError('STOPPED', 'stopped before it was done'));
      return 1;
    }
    output.error(error instanceof OperatorError ? error : unexpected(error, options.env));
    return error instanceof OperatorError && error.usage ? 2 : 1;
  }
}

/** A fault of this program: one line, and the stack only for whoever asks. */
function unexpected(error: unknown, env: NodeJS.ProcessEnv): OperatorError {
  const detail =
    error instanceof Error ? (env.GATEWAY_LOG_LEVEL === 'debug' ? error.stack : error.message) : String(error);
  return new OperatorError('INTERNAL', `unexpected failure: ${detail}`, {
    next: 'GATEWAY_LOG_LEVEL=debug shows where; please report it',
    cause: error,
  });
}

/** The program as a process: its streams, its signals, its exit code. */
export async function main(): Promise<void> {
  const controller = new AbortController();
  // The first Ctrl-C lets the command end its work; the second one does not ask. `serve` brings handlers of its own.
  const stop = (signal: 'SIGINT' | 'SIGTERM') => {
    if (controller.signal.aborted) process.exit(128 + constants.signals[signal]);
    controller.abort(new OperatorError('STOPPED', 'stopped', {}));
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  process.exitCode = await run({
    argv: process.argv.slice(2),
    stdout: process.stdout,
    stderr: process.stderr,
    stdin: process.stdin,
    env: process.env,
    cwd: process.cwd(),
    signal: controller.signal,
  });
  process.off('SIGINT', stop);
  process.off('SIGTERM', stop);
}
