import { flushCompileCache } from 'node:module';
import { Command } from 'commander';
import type { Config } from '../config/config.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { collectAfterStart } from '../kit/process.ts';
import type { RunningGateway } from '../server/gateway.ts';
import type { Session } from './session.ts';

export function serveCommand(session: Session): Command {
  return new Command('serve').description('run the gateway in the foreground').action(() => serve(session));
}

/**
 * Serves until the session's signal is aborted, then lets running pulls end.
 * @throws {OperatorError} what `startGateway` throws
 */
async function serve(session: Session): Promise<void> {
  const { signal } = session;
  const hangups = new Hangups();
  const loaded = await session.config({ quiet: true });
  const { config } = loaded;
  if (signal.aborted) return;
  // Loaded here and not above: no other command needs the gateway's code.
  const [{ startGateway }, { createLog }, { wellKnownDirectories }] = await Promise.all([
    import('../server/gateway.ts'),
    import('../telemetry/log.ts'),
    import('../admin/well-known.ts'),
  ]);
  const processLog = createLog(config.log);
  const { log } = processLog;
  const gateway = await startGateway({
    loaded,
    read: session.reread,
    processLog,
    wellKnown: wellKnownDirectories(session.env),
  });

  const { https, http, metrics } = gateway.addresses;
  const urls = [
    ...https.map((address) => `https://${address}`),
    ...http.map((address) => `http://${address}`),
    ...(metrics === null ? [] : [`http://${metrics}/metrics`]),
  ];
  // A program that parses a JSON log must be able to parse every line of standard output.
  if (inLog(config.log)) log.info({ urls }, `listening on ${urls.join(', ')}`);
  else {
    for (const url of urls) processLog.print(`listening on ${url}`);
    if (config.log.format === 'pretty') for (const line of helpOf(gateway.hints)) processLog.print(line);
  }

  // Node writes its compile cache when a process exits. A process that is killed would never write it, and every start would compile anew.
  flushCompileCache();
  collectAfterStart();

  hangups.act(async () => {
    await gateway.reload().catch((error: unknown) => {
      // A sentence for each problem, as the command line has it.
      if (error instanceof OperatorError)
        log.error(`the configuration was not read again: ${error.message}; ${error.next}`);
      else log.error({ err: error }, 'the configuration could not be read again');
    });
  });
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  hangups.act(async () => log.info('SIGHUP: nothing is read again, the gateway is ending'));
  await gateway.close('a signal asked for it');
}

/**
 * SIGHUP, by which service managers and scripts have a configuration read again; by default it would end the process, and every pull with it.
 * What comes during the start is acted on after it, and however many come while one is acted on are one.
 */
class Hangups {
  #act: (() => Promise<void>) | null = null;
  #asked = false;
  #acting = false;

  constructor() {
    process.on('SIGHUP', () => {
      this.#asked = true;
      void this.#run();
    });
  }

  /** What to do at each from now on. */
  act(act: () => Promise<void>): void {
    this.#act = act;
    void this.#run();
  }

  async #run(): Promise<void> {
    if (this.#acting || this.#act === null) return;
    this.#acting = true;
    while (this.#asked) {
      this.#asked = false;
      await this.#act();
    }
    this.#acting = false;
  }
}

/** The last lines of the start, for the person who looks on. */
function helpOf({ page, ca, next }: RunningGateway['hints']): string[] {
  return [
    `the page for people who pull: ${page}`,
    ...(ca === null ? [] : [`the certificate that clients have to trust: ${ca}`]),
    `next: ${next}${next.startsWith('gateway client') ? ' (how Docker pulls through this gateway)' : ''}`,
  ];
}

function inLog({ format, level }: Config['log']): boolean {
  return format === 'json' && ['trace', 'debug', 'info'].includes(level);
}
