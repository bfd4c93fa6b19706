import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isObject, parseJsonObject } from '../../kit/json.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { canonicalRegistry, DOCKER_HUB } from '../../oci/known-registries.ts';
import type { RepositoryKey } from '../../oci/names.ts';
import { askHelper, type KeptLogin } from './credential-helper.ts';

export type { KeptLogin };

/** Under which Docker keeps the credentials of Docker Hub. */
const HUB_KEY = 'https://index.docker.io/v1/';
/** Dozens of registries take some KiB. */
const MAX_BYTES = 4 * 1024 * 1024;

export interface LoginSurroundings {
  readonly env: NodeJS.ProcessEnv;
  readonly home: string;
  /** Of this process; undefined where there are none. */
  readonly uid: number | undefined;
  readonly signal: AbortSignal;
}

/** The files where clients keep logins, in the order in which they are asked: Docker's, then those of podman, skopeo and buildah (containers-auth.json(5)). */
export function loginFiles({ env, home, uid }: Pick<LoginSurroundings, 'env' | 'home' | 'uid'>): string[] {
  const { DOCKER_CONFIG, REGISTRY_AUTH_FILE, XDG_RUNTIME_DIR, XDG_CONFIG_HOME } = env;
  const set = (value: string | undefined) => (value === undefined || value === '' ? null : value);
  const runtime = set(XDG_RUNTIME_DIR);
  return [
    join(set(DOCKER_CONFIG) ?? join(home, '.docker'), 'config.json'),
    set(REGISTRY_AUTH_FILE),
    runtime === null ? null : join(runtime, 'containers', 'auth.json'),
    uid === undefined ? null : join('/run/containers', String(uid), 'auth.json'),
    join(set(XDG_CONFIG_HOME) ?? join(home, '.config'), 'containers', 'auth.json'),
  ].filter((path) => path !== null);
}

/**
 * The login that this machine's clients have for a repository: of the first file that has one; null where none has.
 * @throws {OperatorError} LOGIN_UNREADABLE, where a file or a helper that might have it does not give it
 */
export async function keptLogin(repository: RepositoryKey, surroundings: LoginSurroundings): Promise<KeptLogin | null> {
  const failures: OperatorError[] = [];
  for (const path of loginFiles(surroundings)) {
    try {
      const file = await readLoginFile(path);
      const login = file === null ? null : await loginIn(file, path, repository, surroundings);
      if (login !== null) return login;
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      failures.push(error);
    }
  }
  // Another file may have what one could not give; where none has, silence would look like a registry that refuses.
  if (failures[0] !== undefined) throw failures[0];
  return null;
}

type LoginFile = Readonly<Record<string, unknown>>;

async function readLoginFile(path: string): Promise<LoginFile | null> {
  let bytes: Buffer;
  try {
    const found = await stat(path);
    if (!found.isFile() || found.size > MAX_BYTES) throw new Error('it is no file of a fit size');
    bytes = await readFile(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw new OperatorError('LOGIN_UNREADABLE', `${path} cannot be read: ${message}`, { cause: error });
  }
  const file = bytes.length === 0 ? {} : parseJsonObject(bytes);
  // Never a word of it: it has passwords.
  if (file === null) throw new OperatorError('LOGIN_UNREADABLE', `${path} is not written in JSON`);
  return file;
}

async function loginIn(
  file: LoginFile,
  path: string,
  repository: RepositoryKey,
  surroundings: LoginSurroundings,
): Promise<KeptLogin | null> {
  const helper = helperFor(file, repository.registry);
  if (helper !== null) {
    const server = repository.registry === DOCKER_HUB ? HUB_KEY : repository.registry;
    const login = await askHelper(helper, server, path, surroundings);
    if (login !== null) return login;
  }
  const { auths } = file;
  if (!isObject(auths)) return null;
  const byName = new Map(Object.entries(auths).map(([key, value]) => [nameIn(key), value]));
  for (const name of namesOf(repository)) {
    const login = loginOf(byName.get(name), path, name);
    if (login !== null) return login;
  }
  return null;
}

/** The helper that a file names for a registry, else the one for all. */
function helperFor({ credHelpers, credsStore }: LoginFile, registry: string): string | null {
  const own = isObject(credHelpers)
    ? Object.entries(credHelpers).find(([key]) => nameIn(key) === registry)?.[1]
    : undefined;
  const helper = own ?? credsStore;
  return typeof helper === 'string' && helper !== '' ? helper : null;
}

/** Docker writes hosts, and URLs for registries of old; podman also the names of repositories and what they begin with. */
function nameIn(key: string): string {
  const plain = key.replace(/^https?:\/\//i, '').replace(/\/(?:v[12]\/?)?$/, '');
  const [host = '', ...path] = plain.split('/');
  return [canonicalRegistry(host.toLowerCase()), ...path].join('/');
}

/** The most specific first. */
function namesOf({ registry, repository }: RepositoryKey): string[] {
  const parts = repository.split('/');
  return [...parts.map((_, index) => [registry, ...parts.slice(0, parts.length - index)].join('/')), registry];
}

function loginOf(entry: unknown, path: string, name: string): KeptLogin | null {
  if (!isObject(entry)) return null;
  const { auth, identitytoken } = entry;
  const text = (value: unknown) => (typeof value === 'string' ? value : '');
  let [username, password] = [text(entry.username), text(entry.password)];
  if (text(auth) !== '') {
    const decoded = Buffer.from(text(auth), 'base64').toString('utf8');
    const colon = decoded.indexOf(':');
    if (colon < 0) throw new OperatorError('LOGIN_UNREADABLE', `what ${path} has for ${name} is no login`);
    // Docker has ended them with zeros.
    [username, password] = [decoded.slice(0, colon), decoded.slice(colon + 1).replace(/\0+$/, '')];
  }
  if (text(identitytoken) !== '') return { username, password: '', identityToken: text(identitytoken) };
  return username === '' && password === '' ? null : { username, password };
}
