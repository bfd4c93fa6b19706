import { constants } from 'node:os';
import { OperatorError } from '../kit/operator-error.ts';

/** What asks a program to end. */
export interface Signals {
  /** Aborted when the person presses Ctrl-C, or a service manager sends SIGTERM. */
  readonly signal: AbortSignal;
  /** From here on a signal ends the process at once. */
  drop(): void;
}

/** Runs `program` as this process, which ends with the exit code that it resolves to. */
export async function asProcess(program: (signals: Signals) => Promise<number>): Promise<void> {
  const controller = new AbortController();
  // The first Ctrl-C lets the program end its work; the second one does not ask.
  const stop = (signal: 'SIGINT' | 'SIGTERM') => {
    if (controller.signal.aborted) process.exit(128 + constants.signals[signal]);
    controller.abort(new OperatorError('STOPPED', 'stopped', {}));
  };
  const drop = () => {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  process.exitCode = await program({ signal: controller.signal, drop });
  drop();
}
