import { readFile } from 'node:fs/promises';
import { readBounded } from '../kit/http.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Session } from './session.ts';

/** More than any password or token, so that a wrong pipe is noticed. */
const MAX_SECRET = 64 * 1024;
/** A table of a hundred thousand aliases. */
const MAX_INPUT = 16 * 1024 * 1024;

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
    return (await readBounded(session.stdin as AsyncIterable<Buffer>, limit)).toString('utf8');
  } catch (error) {
    throw new OperatorError('INPUT_UNREADABLE', `standard input cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
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
