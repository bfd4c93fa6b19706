import { flushCompileCache } from 'node:module';
import type { Config } from '../config/config.ts';
import { collectWhenQuiet } from '../kit/quiet-collector.ts';
import { startGateway } from '../server/gateway.ts';
import { createLog } from '../telemetry/log.ts';
import type { Handover } from './handover.ts';
import type { Output } from './output.ts';

/**
 * Serves until `signal` is aborted, then lets running pulls end.
 * @throws {OperatorError} what `startGateway` throws
 */
export async function serve(
  { config, warnings }: Handover,
  { output, signal }: { readonly output: Output; readonly signal: AbortSignal },
): Promise<void> {
  const log = createLog(config.log);
  const gateway = await startGateway({ config, log, warnings });

  const { https, http, metrics } = gateway.addresses;
  const urls = [
    ...https.map((address) => `https://${address}`),
    ...http.map((address) => `http://${address}`),
    ...(metrics === null ? [] : [`http://${metrics}/metrics`]),
  ];
  // Whatever reads a JSON log must be able to read every line of it.
  if (inLog(config.log)) log.info({ urls }, `listening on ${urls.join(', ')}`);
  else for (const url of urls) output.line(`listening on ${url}`);

  // Otherwise it is written at the end, which a kill would prevent: the next start is the faster for it.
  flushCompileCache();
  collectWhenQuiet();

  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  await gateway.close('a signal asked for it');
}

function inLog({ format, level }: Config['log']): boolean {
  return format === 'json' && ['trace', 'debug', 'info'].includes(level);
}
