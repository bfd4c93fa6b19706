import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { AdminLine, OperationContext } from '../admin/contract.ts';
import type { LoadedConfig } from '../config/load.ts';
import { GATEWAY_GONE, type ImageSource, SourceError } from '../images/image-source.ts';
import { readBounded } from '../kit/http.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Output } from './output.ts';
import { actOnGateway, askRunning, withImages } from './reach.ts';

/** More than any password or token, so that a wrong pipe is noticed. */
const MAX_SECRET = 64 * 1024;
/** A table of a hundred thousand aliases. */
const MAX_INPUT = 16 * 1024 * 1024;

type Step = Extract<AdminLine, { type: 'step' }>;

/** One run of the CLI: its configuration, its output, and the way to the operations. */
export interface Session {
  readonly output: Output;
  readonly signal: AbortSignal;
  readonly env: NodeJS.ProcessEnv;
  readonly stdin: NodeJS.ReadableStream;
  /** Reads the configuration once more, whatever was read before. @throws {OperatorError} */
  reread(): Promise<LoadedConfig>;
  /** `quiet`: its warnings go where the caller wants them, not to standard error. */
  config(options?: { quiet: boolean }): Promise<LoadedConfig>;
  /**
   * Runs an operation on the gateway that runs, else in this process on its data directory; says on standard error which, where that is not plain.
   * @throws {OperatorError}
   */
  act(
    operation: string,
    input: unknown,
    onStep?: (step: Step) => void,
    drained?: OperationContext['drained'],
    /** Ends the waiting too, beside the session's own. */
    within?: AbortSignal,
  ): Promise<unknown>;
  /**
   * Lets `use` have images as the gateway gives them, from what it keeps or through it; `activity` is the command, for whoever is refused the data
   * directory meanwhile. @throws {OperatorError} `IMAGE_UNAVAILABLE` for a `SourceError` that `use` has not dealt with
   */
  images<T>(activity: string, use: (images: ImageSource) => Promise<T>): Promise<T>;
  /** Runs an operation on the gateway that runs; null where none does. `quiet`: which one that is, is not said. @throws {OperatorError} */
  ask(operation: string, input: unknown, options?: { quiet: boolean }): Promise<unknown>;
}

/** Set by commands whose outcome is no error but is not good either (`doctor`). */
export interface Exit {
  code: number;
}

/** `config` is read once, when the first command asks for it. */
export function createSession(options: {
  readonly output: Output;
  readonly signal: AbortSignal;
  readonly env: NodeJS.ProcessEnv;
  readonly stdin: NodeJS.ReadableStream;
  readonly load: () => Promise<LoadedConfig>;
}): Session {
  const { output, signal } = options;
  let loading: Promise<LoadedConfig> | undefined;
  /** A command of several operations says once where it acts. */
  const told = new Set<string>();
  const note = (sentence: string): void => {
    if (!told.has(sentence)) output.note(sentence);
    told.add(sentence);
  };
  const config = ({ quiet } = { quiet: false }): Promise<LoadedConfig> => {
    loading ??= options.load().then((loaded) => {
      if (!quiet) for (const warning of loaded.warnings) output.note(warning);
      return loaded;
    });
    return loading;
  };

  return {
    output,
    signal,
    env: options.env,
    stdin: options.stdin,
    reread: options.load,
    config,
    async act(operation, input, onStep, drained = undefined, within = undefined) {
      const tell = onStep ?? ((step: Step) => output.step(step.step, step.message));
      const loaded = await config();
      const context = {
        signal: within === undefined ? signal : AbortSignal.any([signal, within]),
        step: (step: string, message: string, data?: unknown) => tell({ type: 'step', step, message, data }),
        ...(drained === undefined ? {} : { drained }),
      };
      return actOnGateway({ loaded, env: options.env, context, note }, operation, input);
    },
    async images(activity, use) {
      const reach = { loaded: await config(), env: options.env, context: { signal, step: () => {} }, note };
      try {
        return await withImages(reach, activity, use);
      } catch (error) {
        signal.throwIfAborted();
        throw error instanceof SourceError ? unavailable(error) : error;
      }
    },
    async ask(operation, input, { quiet } = { quiet: false }) {
      const reach = {
        loaded: await config({ quiet }),
        env: options.env,
        context: { signal, step: () => {} },
        note: (sentence: string) => (quiet ? undefined : output.note(sentence)),
      };
      return (await askRunning(reach, operation, input))?.result ?? null;
    },
  };
}

/** Why an image cannot be had, in the words that a client would be told. */
export function unavailable(error: SourceError): OperatorError {
  const { code, message } = error;
  return new OperatorError(code === GATEWAY_GONE ? 'GATEWAY_GONE' : 'IMAGE_UNAVAILABLE', message, { cause: error });
}

/** Collects an option that may be given several times. */
export function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value];
}

/** A file that a command was given. @throws {OperatorError} usage */
export async function readGiven(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new OperatorError('FILE_UNREADABLE', `${file} cannot be read: ${(error as Error).message}`, {
      next: 'check the path and its permissions',
      cause: error,
    });
  }
}

/** Everything from standard input. @throws {OperatorError} usage */
export async function readInput(session: Session, limit = MAX_INPUT): Promise<string> {
  try {
    return readText(await readBounded(session.stdin as AsyncIterable<Buffer>, limit));
  } catch (error) {
    throw new OperatorError('INPUT_UNREADABLE', `standard input cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** UTF-8 without the byte order mark that some editors and shells put first. @throws {Error} for any other encoding: nothing of a secret is replaced */
function readText(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new Error('it is no text in UTF-8', { cause });
  }
}

/**
 * Goes on where the person has said yes, by `--yes` or at the terminal; no answer (Ctrl-D) is none.
 * @throws {OperatorError} `DECLINED`; `ANSWER_NEEDED` (usage) where there is nobody to ask
 */
export async function consent(session: Session, question: string, yes: boolean): Promise<void> {
  if (yes) return;
  if ((session.stdin as Partial<NodeJS.ReadStream>).isTTY !== true) {
    throw new OperatorError('ANSWER_NEEDED', `nobody is at a terminal to answer: ${question}`);
  }
  if (!(await answersYes(session, question))) throw new OperatorError('DECLINED', 'nothing was changed');
}

async function answersYes({ stdin, output, signal }: Session, question: string): Promise<boolean> {
  const { createInterface } = await import('node:readline');
  output.errorText(`${question} [y/N] `);
  const lines = createInterface({ input: stdin, signal });
  try {
    const [answer = ''] = (await Promise.race([once(lines, 'line'), once(lines, 'close')])) as [string?];
    signal.throwIfAborted();
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}

/** A secret from standard input, without the line end that `echo` adds. @throws {OperatorError} usage */
export async function readSecret(session: Session): Promise<string> {
  const secret = (await readInput(session, MAX_SECRET)).replace(/\r?\n$/, '');
  if (secret === '') {
    throw new OperatorError('PASSWORD_EMPTY', 'nothing came on standard input', {
      next: 'pipe the password in: echo "$PASSWORD" | gateway … --password-stdin',
    });
  }
  return secret;
}
