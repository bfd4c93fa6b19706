import { readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { OperatorError } from '../kit/operator-error.ts';
import type { Target } from './url.ts';

/** Others may not read or write a file that passwords are believed from, as libpq has it. */
const OTHERS = 0o077;
/** What libpq asks the passfile for where the server is behind a Unix socket. */
const SOCKET_HOST = 'localhost';

/**
 * The password for a target, read anew for each connection, so that one that was changed needs no restart. In this order: the file that the
 * configuration names, the URL, `PGPASSWORD`, the passfile (`PGPASSFILE`, else `~/.pgpass`). Undefined where there is none: the server may trust this
 * machine, or ask for a certificate.
 * @throws {OperatorError} `DATABASE_REFUSED` where a file that was named cannot be read
 */
export async function passwordFor(target: Target, file: string | null): Promise<string | undefined> {
  if (file !== null) {
    try {
      return (await readFile(file, 'utf8')).replace(/\r?\n$/, '');
    } catch (cause) {
      throw new OperatorError(
        'DATABASE_REFUSED',
        `the file with the database's password cannot be read: ${reason(cause)}`,
        {
          next: 'check GATEWAY_DATABASE_PASSWORD_FILE, and that this user may read the file',
          cause,
        },
      );
    }
  }
  if (target.password !== null) return target.password;
  const { PGPASSWORD, PGPASSFILE } = process.env;
  if (PGPASSWORD !== undefined && PGPASSWORD !== '') return PGPASSWORD;
  return fromPassfile(PGPASSFILE ?? join(homedir(), '.pgpass'), target, PGPASSFILE !== undefined);
}

/** https://www.postgresql.org/docs/current/libpq-pgpass.html */
async function fromPassfile(path: string, target: Target, named: boolean): Promise<string | undefined> {
  let text: string;
  try {
    const { mode } = await stat(path);
    if ((mode & OTHERS) !== 0) {
      throw new OperatorError('DATABASE_REFUSED', `${path} has the database's password and others may read it`, {
        next: `let its owner alone read it: chmod 600 ${path}`,
      });
    }
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if (cause instanceof OperatorError) throw cause;
    if (!named) return undefined;
    throw new OperatorError('DATABASE_REFUSED', `the passfile cannot be read: ${reason(cause)}`, {
      next: 'check PGPASSFILE, and that this user may read the file',
      cause,
    });
  }
  return findPassword(text, target);
}

/** The password of the first line of a passfile (`host:port:database:user:password`) that is for this target. */
function findPassword(text: string, { host, port, database, user }: Target): string | undefined {
  const wanted = [host.startsWith('/') ? SOCKET_HOST : host, String(port), database, user];
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith('#')) continue;
    // A colon or backslash within a field is written behind a backslash.
    const fields = [...line.matchAll(/((?:\\.|[^:\\])*)(?::|$)/g)].map(([, field = '']) =>
      field.replace(/\\(.)/g, '$1'),
    );
    const password = fields[4];
    if (password !== undefined && wanted.every((value, at) => fields[at] === '*' || fields[at] === value))
      return password;
  }
  return undefined;
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
