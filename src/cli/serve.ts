import { flushCompileCache } from 'node:module';
import { Command } from 'commander';
import type { Config } from '../config/config.ts';
import { collectAfterStart } from '../kit/process.ts';
import type { Session } from './session.ts';

export function serveCommand(session: Session): Command {
  return new Command('serve').description('run the gateway in the foreground').action(() => serve(session));
}

/**
 * Serves until the session's signal is aborted, then lets running pulls end.
 * @throws {OperatorError} what `startGateway` throws
 */
async function serve(session: Session): Promise<void> {
  const { output, signal } = session;
  const { config, warnings } = await session.config({ quiet: true });
  if (signal.aborted) return;
  // Loaded here and not above: no other command needs the gateway's code.
  const [{ startGateway }, { createLog }] = await Promise.all([
    import('../server/gateway.ts'),
    import('../telemetry/log.ts'),
  ]);
  const { log, lines } = createLog(config.log);
  // Service managers and scripts send it to have a configuration read again; by default it would end the process, and every pull with it.
  process.on('SIGHUP', () => {
    log.warn(
      'SIGHUP is ignored: the configuration is read at the start alone; restart the gateway to have it read again',
    );
  });
  const gateway = await startGateway({ config, log, logLines: lines, warnings });

  const { https, http, metrics } = gateway.addresses;
  const urls = [
    ...https.map((address) => `https://${address}`),
    ...http.map((address) => `http://${address}`),
    ...(metrics === null ? [] : [`http://${metrics}/metrics`]),
  ];
  // A program that parses a JSON log must be able to parse every line of standard output.
  if (inLog(config.log)) log.info({ urls }, `listening on ${urls.join(', ')}`);
  else for (const url of urls) output.line(`listening on ${url}`);

  // Node writes its compile cache when a process exits. A process that is killed would never write it, and every start would compile anew.
  flushCompileCache();
  collectAfterStart();

  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  await gateway.close('a signal asked for it');
}

function inLog({ format, level }: Config['log']): boolean {
  return format === 'json' && ['trace', 'debug', 'info'].includes(level);
}
