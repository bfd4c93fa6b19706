import { existsSync } from 'node:fs';
import type { OperationContext } from '../admin/contract.ts';
import type { GatewayIdentity } from '../admin/socket.ts';
import type { LoadedConfig } from '../config/load.ts';
import type { ImageSource } from '../images/image-source.ts';
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

/** What is done with a gateway that was found, and on the directory of one that does not run. */
interface Act<T> {
  /** @param reached the gateway has answered, and is this one. @throws {NotRunningError} where none runs in this directory */
  readonly running: (directory: string, reached: (gateway: GatewayIdentity | null) => void) => Promise<T>;
  readonly offline: (opened: () => void) => Promise<T>;
}

/**
 * Acts where it belongs: on the gateway that runs on the data directory of `--data-dir`, the environment or the configuration, else on the one at a
 * well-known socket, else in this process on that data directory, where there is one. `--data-dir` means that directory and no other; one that
 * the environment or the configuration names is passed over for another gateway only where it does not exist; `./data`, which nobody has named,
 * also where nothing runs on it. No data directory is made.
 * @throws {OperatorError} `NO_GATEWAY` where there is nothing to act on; else what the act throws
 */
async function act<T>(reach: Reach, { running, offline }: Act<T>): Promise<T> {
  const { dataDir } = reach.loaded.config;
  const deadline = performance.now() + HELD_TIMEOUT;
  for (;;) {
    const passedOver: string[] = [];
    const answered = await actOnRunning(reach, running, passedOver);
    if (answered !== null) return answered.result;
    if (!isDataDirectory(dataDir)) throw await nowhere(reach, passedOver);
    try {
      return await offline(() =>
        reach.note(
          `nothing runs on ${dataDir}: this acts on what is stored there, which a gateway takes up when it starts`,
        ),
      );
    } catch (error) {
      // Somebody holds the directory and does not answer yet: a gateway that starts, or another command.
      const held = error instanceof OperatorError && error.code === 'DATA_DIR_IN_USE';
      if (!held || performance.now() > deadline) throw error;
    }
    await sleep(RETRY_EVERY, reach.context.signal);
  }
}

/** Runs an operation where it belongs: see {@link act}. @throws {OperatorError} `NO_GATEWAY`; else what the operation throws */
export async function actOnGateway(reach: Reach, operation: string, input: unknown): Promise<unknown> {
  const { config } = reach.loaded;
  return await act(reach, {
    running: runningOperation(reach, operation, input),
    async offline(opened) {
      if (LIVE_ONLY.has(operation)) throw new OperatorError('NOT_RUNNING', `nothing runs on ${config.dataDir}`);
      // Loaded only where it is needed: a command to a running gateway opens no database.
      const { runOffline } = await import('../server/offline.ts');
      return await runOffline(config, operation, input, { ...reach.context, opened });
    },
  });
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
  return await actOnRunning(reach, runningOperation(reach, operation, input), passedOver);
}

/** Lets `use` have images as the gateway gives them, where it belongs: see {@link act}. */
export async function withImages<T>(
  reach: Reach,
  activity: string,
  use: (images: ImageSource) => Promise<T>,
): Promise<T> {
  return await act(reach, {
    async running(directory, reached) {
      const { SocketSource } = await import('../admin/socket-source.ts');
      const source = new SocketSource(directory);
      try {
        reached(await source.reach(reach.context.signal));
        return await use(source);
      } finally {
        source.close();
      }
    },
    async offline(opened) {
      const { withImagesOffline } = await import('../server/offline.ts');
      return await withImagesOffline(reach.loaded.config, activity, opened, use);
    },
  });
}

function runningOperation(reach: Reach, operation: string, input: unknown): Act<unknown>['running'] {
  return async (directory, reached) => {
    // Loaded only where it is needed: `serve` calls nobody.
    const { callAdmin } = await import('../admin/socket.ts');
    return await callAdmin(directory, operation, input, { ...reach.context, reached });
  };
}

async function actOnRunning<T>(
  reach: Reach,
  running: Act<T>['running'],
  passedOver: string[],
): Promise<{ readonly result: T } | null> {
  const { config, originOf } = reach.loaded;
  const { dataDir } = config;
  const there = await unlessNotRunning(() => running(dataDir, () => {}));
  if (there !== null) return there;
  const named = originOf('dataDir').kind;
  if (named === 'flag' || (named !== 'default' && isDataDirectory(dataDir)) || (await isHeld(dataDir))) return null;
  return await actOnWellKnown(reach, running, passedOver);
}

async function actOnWellKnown<T>(
  reach: Reach,
  running: Act<T>['running'],
  passedOver: string[],
): Promise<{ readonly result: T } | null> {
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
    const there = await unlessNotRunning(() => running(directory, reached));
    if (there !== null) return there;
  }
  return null;
}

/** Null where nothing runs there. */
async function unlessNotRunning<T>(attempt: () => Promise<T>): Promise<{ readonly result: T } | null> {
  try {
    return { result: await attempt() };
  } catch (error) {
    const { NotRunningError } = await import('../admin/socket.ts');
    if (error instanceof NotRunningError) return null;
    throw error;
  }
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
