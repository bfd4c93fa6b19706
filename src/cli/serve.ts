import { flushCompileCache } from 'node:module';
import { Command } from 'commander';
import type { Config } from '../config/config.ts';
import type { Session } from './session.ts';

export function serveCommand(session: Session): Command {
  return new Command('serve').description('run the gateway in the foreground').action(async () => {
    const { output, signal } = session;
    const { config, warnings } = await session.config({ quiet: true });
    const [{ startGateway }, { createLog }] = await Promise.all([
      import('../gateway.ts'),
      import('../telemetry/log.ts'),
    ]);
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

    // The process's first SIGINT or SIGTERM; the second one ends it at once (run.ts).
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    await gateway.close('a signal asked for it');
  });
}

function inLog({ format, level }: Config['log']): boolean {
  return format === 'json' && ['trace', 'debug', 'info'].includes(level);
}
