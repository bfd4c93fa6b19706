import { constants } from 'node:os';
import { endEverything } from './process.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** Servers are killed after 5 s; what does not come back even then is left behind, ms. */
const TIMEOUT = 15_000;

/**
 * Runs `work`. When it is done, when it fails, and when this process is told to end (Ctrl-C, SIGTERM), every server and command
 * that it started ends too; then `cleanUp` runs. Ended by a signal, this process says so and exits as a shell expects.
 */
export async function attended(work: () => Promise<void>, cleanUp: () => void): Promise<void> {
  let endedBy: (typeof SIGNALS)[number] | null = null;
  const end = (signal: (typeof SIGNALS)[number]): void => {
    endedBy ??= signal;
    process.exitCode = 128 + constants.signals[endedBy];
    setTimeout(() => {
      cleanUp();
      process.exit();
    }, TIMEOUT).unref();
    // What waits for a server or a command fails now, and so `work` does.
    void endEverything();
  };
  for (const signal of SIGNALS) process.on(signal, end);
  try {
    await work();
  } catch (error) {
    if (endedBy === null) throw error;
    console.error(`ended by ${endedBy}`);
  } finally {
    await endEverything();
    cleanUp();
    for (const signal of SIGNALS) process.off(signal, end);
  }
}
