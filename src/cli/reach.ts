import { existsSync } from 'node:fs';
import type { OperationContext } from '../admin/contract.ts';
import type { CallContext, GatewayIdentity } from '../admin/socket.ts';
import type { LoadedConfig } from '../config/load.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { sleep } from '../kit/time.ts';
import { isDataDirectory } from '../server/data-directory.ts';

/** How long a command waits for a gateway (or another command) that is just starting or ending, ms. */
const HELD_TIMEOUT = 10_000;
/** Between two tries, ms. */
const RETRY_EVERY = 100;

/** Operations of a running gateway alone: for them nobody opens a data directory, which a gateway that starts may want. */
const LIVE_ONLY: ReadonlySet<string> = new Set(['dashboard']);

/** How a command gets to the gateway. */
export interface Reach {
  readonly loaded: LoadedConfig;
  readonly env: NodeJS.ProcessEnv;
  readonly context: OperationContext;
  /** Says where it acts, where that is not what the person named. */
  readonly note: (sentence: string) => void;
}

/**
 * Runs an operation where it belongs: on the gateway that runs on the data directory of `--data-dir`, the environment or the configuration,
 * else on the one at a well-known socket, else in this process on that data directory, where there is one. `--data-dir` means that directory
 * and no other; one that the environment or the configuration names is passed over for another gateway only where it does not exist; `./data`,
 * which nobody has named, also where nothing runs on it. No data directory is made.
 * @throws {OperatorError} `NO_GATEWAY` where there is nothing to act on; else what the operation throws
 */
export async function actOnGateway(reach: Reach, operation: string, input: unknown): Promise<unknown> {
  const { config } = reach.loaded;
  const { dataDir } = config;
  const deadline = performance.now() + HELD_TIMEOUT;
  for (;;) {
    const passedOver: string[] = [];
    const answered = await askRunning(reach, operation, input, passedOver);
    if (answered !== null) return answered.result;
    if (!isDataDirectory(dataDir)) throw await nowhere(reach, passedOver);
    if (LIVE_ONLY.has(operation)) throw new OperatorError('NOT_RUNNING', `nothing runs on ${dataDir}`);
    try {
      // Loaded only where it is needed: a command to a running gateway opens no database.
      const { runOffline } = await import('../server/offline.ts');
      const opened = () =>
        reach.note(
          `nothing runs on ${dataDir}: this acts on what is stored there, which a gateway takes up when it starts`,
        );
      return await runOffline(config, operation, input, { ...reach.context, opened });
    } catch (error) {
      // Somebody holds the directory and does not answer yet: a gateway that starts, or another command.
      const held = error instanceof OperatorError && error.code === 'DATA_DIR_IN_USE';
      if (!held || performance.now() > deadline) throw error;
    }
    await sleep(RETRY_EVERY, reach.context.signal);
  }
}

/**
 * The same on a gateway that runs, and nowhere else; null where none does. `passedOver` takes a sentence for each place where there was
 * something that is not trusted.
 */
export async function askRunning(
  reach: Reach,
  operation: string,
  input: unknown,
  passedOver: string[] = [],
): Promise<{ readonly result: unknown } | null> {
  const { config, originOf } = reach.loaded;
  const { dataDir } = config;
  const there = await call(dataDir, operation, input, reach.context);
  if (there !== null) return there;
  const named = originOf('dataDir').kind;
  if (named === 'flag' || (named !== 'default' && isDataDirectory(dataDir)) || (await isHeld(dataDir))) return null;
  return callWellKnown(reach, operation, input, passedOver);
}

/** Null where nothing runs there. */
async function call(
  directory: string,
  operation: string,
  input: unknown,
  context: CallContext,
): Promise<{ readonly result: unknown } | null> {
  // Loaded only where it is needed: `serve` calls nobody.
  const { callAdmin, NotRunningError } = await import('../admin/socket.ts');
  try {
    return { result: await callAdmin(directory, operation, input, context) };
  } catch (error) {
    if (error instanceof NotRunningError) return null;
    throw error;
  }
}

async function callWellKnown(
  reach: Reach,
  operation: string,
  input: unknown,
  passedOver: string[],
): Promise<{ readonly result: unknown } | null> {
  const { dataDir } = reach.loaded.config;
  const { lookForGateway, wellKnownDirectories, wellKnownSocket } = await import('../admin/well-known.ts');
  for (const directory of wellKnownDirectories(reach.env)) {
    const found = await lookForGateway(directory);
    if (typeof found === 'object') passedOver.push(`${directory} ${found.problem}`);
    if (found !== 'socket') continue;
    const reached = (gateway: GatewayIdentity | null) => {
      const which = gateway === null ? '' : ` on ${gateway.dataDir} (process ${gateway.pid})`;
      const why = `${isDataDirectory(dataDir) ? 'nothing runs on' : 'there is no'} ${dataDir}`;
      reach.note(`this acts on the gateway${which}, found at ${wellKnownSocket(directory)}; ${why}`);
    };
    const there = await call(directory, operation, input, { ...reach.context, reached });
    if (there !== null) return there;
  }
  return null;
}

async function isHeld(dataDir: string): Promise<boolean> {
  return isDataDirectory(dataDir) && (await import('../server/offline.ts')).isHeld(dataDir);
}

async function nowhere(reach: Reach, passedOver: readonly string[]): Promise<OperatorError> {
  const { config, originOf } = reach.loaded;
  const { dataDir } = config;
  const { wellKnownDirectories, wellKnownSocket } = await import('../admin/well-known.ts');
  const elsewhere = originOf('dataDir').kind === 'flag' ? [] : wellKnownDirectories(reach.env).map(wellKnownSocket);
  const what = existsSync(dataDir)
    ? `no gateway has ever run on ${dataDir} (there is no gateway.db in it)`
    : `there is no data directory ${dataDir}`;
  const looked = elsewhere.length === 0 ? '' : `, and no gateway was found at ${elsewhere.join(' or ')}`;
  const message = [`${what}${looked}`, ...passedOver.map((sentence) => `  ${sentence}`)].join('\n');
  return new OperatorError('NO_GATEWAY', message, {
    next: 'name the directory of the gateway that is meant: --data-dir DIR or GATEWAY_DATA_DIR; a new gateway is made by: gateway serve',
  });
}
