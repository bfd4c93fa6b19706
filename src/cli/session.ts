import type { AdminLine } from '../admin/contract.ts';
import type { LoadedConfig } from '../config/load.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { sleep } from '../kit/time.ts';
import type { Output } from './output.ts';

/** How long a command waits for a gateway (or another command) that is just starting or ending, ms. */
const PATIENCE = 10_000;
/** Between two tries, ms. */
const PAUSE = 100;

type Step = Extract<AdminLine, { type: 'step' }>;

/** One run of the CLI: its configuration, its output, and the way to the operations. */
export interface Session {
  readonly output: Output;
  readonly signal: AbortSignal;
  readonly env: NodeJS.ProcessEnv;
  readonly stdin: NodeJS.ReadableStream;
  /** `quiet`: its warnings go where the caller wants them, not to standard error. */
  config(options?: { quiet: boolean }): Promise<LoadedConfig>;
  /**
   * Runs an operation where the gateway runs, else in this process on its data directory.
   * @throws {OperatorError}
   */
  act(operation: string, input: unknown, onStep?: (step: Step) => void): Promise<unknown>;
}

/** Set by commands whose outcome is no error but is not good either (`doctor`). */
export interface Exit {
  code: number;
}

/** `config` is read once, when the first command asks for it. */
export function createSession(options: {
  readonly output: Output;
  readonly signal: AbortSignal;
  readonly env: NodeJS.ProcessEnv;
  readonly stdin: NodeJS.ReadableStream;
  readonly load: () => Promise<LoadedConfig>;
}): Session {
  const { output, signal } = options;
  let loading: Promise<LoadedConfig> | undefined;
  const config = ({ quiet } = { quiet: false }): Promise<LoadedConfig> => {
    loading ??= options.load().then((loaded) => {
      if (!quiet) for (const warning of loaded.warnings) output.note(warning);
      return loaded;
    });
    return loading;
  };

  return {
    output,
    signal,
    env: options.env,
    stdin: options.stdin,
    config,
    async act(operation, input, onStep = (step) => output.step(step.step, step.message)) {
      const { config: settings } = await config();
      // Loaded only where it is needed: `serve` calls nobody.
      const { callAdmin, NotRunningError } = await import('../admin/socket.ts');
      const context = {
        signal,
        step: (step: string, message: string, data?: unknown) => onStep({ type: 'step', step, message, data }),
      };
      const deadline = Date.now() + PATIENCE;
      for (;;) {
        try {
          return await callAdmin(settings.dataDir, operation, input, context);
        } catch (error) {
          if (!(error instanceof NotRunningError)) throw error;
        }
        try {
          // Loaded only where it is needed: a command to a running gateway opens no database.
          const { runOffline } = await import('../server/offline.ts');
          return await runOffline(settings, operation, input, context);
        } catch (error) {
          // Somebody holds the directory and does not answer yet: a gateway that starts, or another command.
          const held = error instanceof OperatorError && error.code === 'DATA_DIR_IN_USE';
          if (!held || Date.now() > deadline) throw error;
        }
        await sleep(PAUSE, signal);
      }
    },
  };
}
