import { execFile } from 'node:child_process';
import { parseJsonObject } from '../../kit/json.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { printable } from '../../kit/text.ts';

/** What `docker login` or `podman login` has kept for a registry. */
export interface KeptLogin {
  readonly username: string;
  /** Empty beside an identity token. */
  readonly password: string;
  /** A refresh token, which some registries give in place of the password. */
  readonly identityToken?: string;
}

/** A helper may ask its cloud for a token, ms. */
const PATIENCE = 30_000;
/** Bytes of its answer; tokens of clouds have some KiB. */
const MAX_ANSWER = 256 * 1024;
/** The name is a part of a program's name: nothing else is to run. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** As whom helpers give an identity token (docker-credential-helpers, *Development*). */
const TOKEN_USER = '<token>';
/** What helpers say of a registry that they know nothing of. */
const NOT_FOUND = /credentials not found|no credentials server URL|no basic auth credentials/i;

/**
 * Asks `docker-credential-<helper> get` for the login of a registry (docker-credential-helpers); null where it has none.
 * @param file that names the helper
 * @throws {OperatorError} LOGIN_UNREADABLE
 */
export async function askHelper(
  helper: string,
  server: string,
  file: string,
  { env, signal }: { readonly env: NodeJS.ProcessEnv; readonly signal: AbortSignal },
): Promise<KeptLogin | null> {
  const unreadable = (why: string, cause?: unknown) =>
    new OperatorError('LOGIN_UNREADABLE', `${file} names a credential helper that ${why}`, { cause });
  if (!NAME.test(helper)) throw unreadable(`is no name of one: "${printable(helper, 80)}"`);
  const program = `docker-credential-${helper}`;
  const { error, stdout, stderr } = await run(program, server, env, signal);
  signal.throwIfAborted();
  if (error !== null) {
    // It says so on standard output, by the protocol.
    if (NOT_FOUND.test(stdout) || NOT_FOUND.test(stderr)) return null;
    if (error.code === 'ENOENT') throw unreadable(`is not there: ${program}`, error);
    if (error.killed === true || error.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER')
      throw unreadable(`gave no fit answer in time: ${program}`, error);
    throw unreadable(`failed: ${program}: ${printable(stderr.trim() || `it ended with ${error.code}`, 200)}`, error);
  }
  const { Username: username, Secret: secret } = parseJsonObject(Buffer.from(stdout)) ?? {};
  if (typeof username !== 'string' || typeof secret !== 'string') throw unreadable(`gave no login: ${program}`);
  if (username === '' && secret === '') return null;
  return username === TOKEN_USER
    ? { username: '', password: '', identityToken: secret }
    : { username, password: secret };
}

interface Ran {
  readonly error: (Error & { readonly code?: unknown; readonly killed?: boolean }) | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(program: string, input: string, env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<Ran> {
  return new Promise((resolve) => {
    const options = { env, signal, timeout: PATIENCE, maxBuffer: MAX_ANSWER, killSignal: 'SIGKILL' } as const;
    const child = execFile(program, ['get'], options, (error, stdout, stderr) => resolve({ error, stdout, stderr }));
    // One that reads nothing, or is not there.
    child.stdin?.on('error', () => {}).end(input);
  });
}
