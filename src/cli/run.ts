import { availableParallelism } from 'node:os';
import { CommanderError } from 'commander';
import { becomeServing } from './become-serving.ts';
import { sayFailure } from './failure.ts';
import type { Handover } from './handover.ts';
import { Output, type Stream } from './output.ts';
import { asProcess } from './process.ts';
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
  /** Goes on as the program that serves, where that can be; left out, `serve` goes on in this one. */
  readonly becomeServing?: (handover: Handover) => Promise<void>;
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
    becomeServing: options.becomeServing,
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
    if (error instanceof CommanderError) {
      output.progressEnd();
      return error.exitCode === 0 ? 0 : 2;
    }
    return sayFailure(error, { output, env: options.env, signal: options.signal });
  }
}

/** The command line of this process. */
export function main(): Promise<void> {
  return asProcess((signals) =>
    run({
      argv: process.argv.slice(2),
      stdout: process.stdout,
      stderr: process.stderr,
      stdin: process.stdin,
      env: process.env,
      cwd: process.cwd(),
      signal: signals.signal,
      becomeServing: (handover) => becomeServing(handover, signals),
    }),
  );
}
