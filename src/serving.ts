import { sayFailure } from './cli/failure.ts';
import { takeHandover } from './cli/handover.ts';
import { Output } from './cli/output.ts';
import { asProcess } from './cli/process.ts';
import { serve } from './cli/serving.ts';

/**
 * The program that `gateway serve` becomes once its configuration is read. It loads nothing that only a command line or a
 * configuration needs: that would stay in memory for as long as the gateway runs.
 */
await asProcess(async ({ signal }) => {
  const output = new Output(process);
  try {
    await serve(takeHandover(process.env), { output, signal });
    return 0;
  } catch (error) {
    return sayFailure(error, { output, env: process.env, signal });
  }
});
