import { DatabaseError } from 'pg';
import { OperatorError } from '../kit/operator-error.ts';

/**
 * SQLSTATEs (https://www.postgresql.org/docs/current/errcodes-appendix.html) and their classes, by two characters, of a database that is away for
 * now: it starts, ends, is full of connections, a standby that becomes the primary, or PgBouncer says so for it.
 */
const AWAY: ReadonlySet<string> = new Set(['08', '53', '57P01', '57P02', '57P03', '57P05', '25006', '57014', '55P03']);
/** Refused for good, until somebody changes something: passwords, rights, a database or schema that is not there. */
const REFUSED: ReadonlySet<string> = new Set(['28', '3D', '3F', '42501', '0A']);
/** Two transactions met, and one of them was rolled back: the same once more may succeed. */
const RETRIED: ReadonlySet<string> = new Set(['40001', '40P01']);

/** `too_many_connections`, and what to do about it. */
const TOO_MANY = '53300';
const MORE =
  'raise max_connections of the server, or put PgBouncer (pool_mode = transaction) before it: each gateway holds up to five connections';

/** What Node says of a connection that could not be made or broke. */
const NETWORK: ReadonlySet<string> = new Set([
  ...['ECONNREFUSED', 'ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'ENOENT', 'ENETDOWN', 'ENETUNREACH'],
  ...['EHOSTDOWN', 'EHOSTUNREACH', 'ENOTFOUND', 'EAI_AGAIN', 'EADDRNOTAVAIL', 'ENETRESET', 'EMFILE'],
]);
/** What pg says of the same, which has no code. */
const BROKEN =
  /^(Connection terminated|timeout exceeded when trying to connect|Query read timeout|Client has encountered a connection error|Client was closed)/;
export const NO_TLS = 'The server does not support SSL connections';

/** Whether this is a database that cannot be reached now, and will be again without anybody's change. */
export function isAway(error: unknown): boolean {
  return error instanceof OperatorError && error.code === 'DATABASE_UNREACHABLE';
}

/** Whether it says nothing against the connection: the server has answered, or the failure is our own. */
export function isAnswer(error: Error): boolean {
  const { code } = error as { code?: unknown };
  return (
    error instanceof DatabaseError || !(BROKEN.test(error.message) || (typeof code === 'string' && NETWORK.has(code)))
  );
}

/** Whether the transaction was rolled back for another's sake. */
export function mayRetry(error: unknown): boolean {
  return error instanceof DatabaseError && RETRIED.has(error.code ?? '');
}

/**
 * What pg threw, for whoever called: `DATABASE_UNREACHABLE` where it is worth trying again, `DATABASE_REFUSED` where something has to be changed
 * first. Anything else is a violated constraint or a mistake of ours, and comes back as it is, without the values that it was about.
 * @param where the database, in words
 */
export function explainFailure(error: unknown, where: string): unknown {
  if (error instanceof OperatorError || !(error instanceof Error)) return error;
  const { message } = error;
  if (error instanceof DatabaseError) {
    const code = error.code ?? '';
    if (code === TOO_MANY) return away(where, `it has as many connections as it takes (${message})`, error, MORE);
    if (has(AWAY, code)) return away(where, message, error);
    if (has(REFUSED, code)) return refused(where, message, adviceFor(code), error);
    // `detail` and `where` quote whole rows.
    return Object.assign(new Error(`the database refused a statement: ${message}`), { code });
  }
  const code = (error as { code?: unknown }).code;
  // Several addresses were tried.
  if (error instanceof AggregateError) return explainFailure(error.errors[0], where);
  if ((typeof code === 'string' && NETWORK.has(code)) || BROKEN.test(message)) return away(where, message, error);
  if (message === NO_TLS) {
    return refused(where, 'it does not speak TLS', 'let the server speak TLS, or say sslmode=prefer', error);
  }
  // OpenSSL's reasons against a certificate, and Node's own.
  if (typeof code === 'string' && /CERT|^ERR_(TLS|SSL)|^UNABLE_TO_|SIGNATURE/.test(code)) {
    const next = 'check sslmode and sslrootcert of the URL against the certificate of the server';
    return refused(where, `its certificate is not accepted: ${message}`, next, error);
  }
  if (message.startsWith('SASL')) {
    const next = 'set GATEWAY_DATABASE_PASSWORD_FILE, PGPASSWORD or a passfile';
    return refused(where, `the password is missing or wrong (${message})`, next, error);
  }
  return error;
}

function has(codes: ReadonlySet<string>, code: string): boolean {
  return codes.has(code) || codes.has(code.slice(0, 2));
}

function adviceFor(code: string): string {
  if (code.startsWith('28')) return 'check user and password, and pg_hba.conf of the server';
  if (code.startsWith('3D')) return 'make it: CREATE DATABASE … OWNER …';
  if (code === '42501') return 'let the user of the gateway own the database: ALTER DATABASE … OWNER TO …';
  return 'check the URL of the database, and the rights of its user';
}

function away(where: string, reason: string, cause: unknown, next?: string): OperatorError {
  return new OperatorError('DATABASE_UNREACHABLE', `the database ${where} cannot be reached: ${reason}`, {
    next,
    cause: quiet(cause),
  });
}

function refused(where: string, reason: string, next: string, cause: unknown): OperatorError {
  return new OperatorError('DATABASE_REFUSED', `the database ${where} refuses this gateway: ${reason}`, {
    next,
    cause: quiet(cause),
  });
}

/** The error alone: pg hangs its client on some, whose settings are nobody's business. */
function quiet(error: unknown): Error {
  const { message, code } = error as { message: string; code?: unknown };
  return Object.assign(new Error(message), code === undefined ? {} : { code });
}
