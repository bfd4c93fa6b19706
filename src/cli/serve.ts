import { Command } from 'commander';
import type { Session } from './session.ts';

export function serveCommand(session: Session): Command {
  return new Command('serve').description('run the gateway in the foreground').action(async () => {
    const { output, signal } = session;
    const { config, warnings } = await session.config();
    const [{ startGateway }, { createLog }] = await Promise.all([
      import('../gateway.ts'),
      import('../telemetry/log.ts'),
    ]);
    const log = createLog(config.log);
    const gateway = await startGateway({ config, log, warnings });
    const { https = [], http = [], metrics } = gateway.addresses;
    for (const address of https) output.line(`https ${address}`);
    for (const address of http) output.line(`http ${address}`);
    if (metrics !== undefined) output.line(`metrics ${metrics}`);
    output.line('ready');

    // The process's first SIGINT or SIGTERM; its handlers end the process at the second.
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    await gateway.close('asked to end by a signal');
  });
}
