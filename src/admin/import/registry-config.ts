import { isObject } from '../../kit/json.ts';
import { parseYaml } from '../../kit/yaml-text.ts';
import { canonicalRegistry } from '../../oci/known-registries.ts';
import { Findings, type MovedIn } from './moved-in.ts';

/** Sections of a `registry`'s configuration that this gateway has its own way for, or needs none. */
const NEEDS_NOTHING: ReadonlySet<string> = new Set([
  'version',
  'log',
  'loglevel',
  'health',
  'redis',
  'validation',
  'compatibility',
  'policy',
  'catalog',
  'reporting',
]);
/** Storage drivers whose files are elsewhere. */
const REMOTE_DRIVERS: ReadonlySet<string> = new Set(['s3', 'gcs', 'azure', 'swift', 'oss', 'obs', 'cos', 'inmemory']);
/** Sections of `storage` that are no driver. */
const STORAGE_EXTRAS: ReadonlySet<string> = new Set(['cache', 'delete', 'maintenance', 'redirect', 'tag']);
/** Where a `registry` keeps its files if nobody says otherwise. */
const DEFAULT_ROOT = '/var/lib/registry';

/**
 * Reads the configuration of a `registry` (distribution 2 and 3, *Configuring a registry*), with the variables that override it as its own image is
 * mostly configured: `REGISTRY_PROXY_REMOTEURL` and so on.
 * @throws {OperatorError} usage, `YAML_INVALID`
 */
export function readRegistryConfig(text: string, file: string, env: NodeJS.ProcessEnv): MovedIn {
  const found = new Findings();
  const value = parseYaml(text, file).value;
  const config = isObject(value) ? value : {};
  const at = (path: readonly string[]): unknown => {
    const variable = env[`REGISTRY_${path.join('_').toUpperCase()}`];
    if (variable !== undefined && variable !== '') return variable;
    return path.reduce<unknown>((node, key) => (isObject(node) ? node[key] : undefined), config);
  };
  const textAt = (...path: string[]): string | null => {
    const found = at(path);
    return typeof found === 'string' && found !== '' ? found : typeof found === 'number' ? String(found) : null;
  };

  const remote = textAt('proxy', 'remoteurl');
  const username = textAt('proxy', 'username');
  const password = textAt('proxy', 'password');
  const hasAuth = at(['auth']) !== undefined;
  const hasCredentials = username !== null && password !== null;
  for (const key of ['remoteurl', 'username', 'password']) {
    if (at(['proxy', key]) !== undefined && textAt('proxy', key) === null)
      found.leave(`${file}: proxy.${key} is no text`, 'correct it, and import again');
  }
  if (remote !== null && !/^https?:$/.test(URL.parse(remote)?.protocol ?? '')) {
    found.leave(`${file}: proxy.remoteurl is no http or https URL: ${remote}`, 'correct it, and import again');
  } else if (remote !== null) {
    const { host, origin } = new URL(remote);
    // What the credentials opened there was for whoever could reach it; so it is here, unless that registry asked for logins itself.
    const credentials = hasCredentials ? { credentials: { username, password }, public: !hasAuth } : {};
    const registry = canonicalRegistry(host);
    if (isNameOfARegistry(registry)) found.registry(registry, { endpoints: [origin], ...credentials });
    else if (hasCredentials) {
      found.leave(
        `${file}: credentials for ${host}, which is no name that images can have`,
        'give them to the registry that it stands for: gateway registry set HOST --username U --password-stdin',
      );
    }
  }
  if ((username === null) !== (password === null)) {
    found.leave(
      `${file}: proxy has a user name or a password without the other`,
      'gateway registry set HOST --username U --password-stdin',
    );
  }
  if (textAt('proxy', 'ttl') !== null)
    found.note('proxy.ttl: here what was not used for longest goes first, once cache.maxSize is reached');

  readStorage(found, file, at, { remote, hasCredentials });
  if (hasAuth) {
    found.leave(
      `${file}: auth: who may pull; its passwords are hashed and cannot be taken over`,
      'add the users, who get new tokens: gateway user add NAME',
    );
  }
  readHttp(found, file, at);
  for (const key of ['notifications', 'middleware']) {
    if (at([key]) !== undefined)
      found.leave(`${file}: ${key} has no counterpart here`, 'see whether anything depends on it');
  }
  const known = new Set([...NEEDS_NOTHING, 'proxy', 'storage', 'auth', 'http', 'notifications', 'middleware']);
  for (const key of Object.keys(config)) {
    if (!known.has(key)) found.leave(`${file}: ${key} was not understood`, 'see whether anything depends on it');
  }
  return found.result();
}

function readStorage(
  found: Findings,
  file: string,
  at: (path: readonly string[]) => unknown,
  { remote, hasCredentials }: { remote: string | null; hasCredentials: boolean },
): void {
  const storage = at(['storage']);
  const drivers = isObject(storage) ? Object.keys(storage).filter((key) => !STORAGE_EXTRAS.has(key)) : [];
  const elsewhere = drivers.find((driver) => REMOTE_DRIVERS.has(driver));
  if (elsewhere !== undefined) {
    found.leave(
      `${file}: its layers are in ${elsewhere}, from where they are not taken over`,
      'they are fetched from their registry once more as they are asked for',
    );
    return;
  }
  const other = drivers.find((driver) => driver !== 'filesystem');
  if (other !== undefined)
    found.leave(`${file}: storage.${other} was not understood`, 'give the root of a file system with --root');
  const root = at(['storage', 'filesystem', 'rootdirectory']);
  found.storages.push({
    from: file,
    root: typeof root === 'string' && root !== '' ? root : DEFAULT_ROOT,
    remote,
    hasCredentials,
  });
}

function readHttp(found: Findings, file: string, at: (path: readonly string[]) => unknown): void {
  const certificate = at(['http', 'tls', 'certificate']);
  const key = at(['http', 'tls', 'key']);
  if (typeof certificate === 'string' && typeof key === 'string') {
    found.note(
      `the gateway gets certificates by itself; to go on with that one: gateway cert import ${certificate} ${key}`,
    );
  }
  if (at(['http', 'tls', 'letsencrypt']) !== undefined)
    found.note('http.tls.letsencrypt: the gateway gets certificates by itself (acme.email)');
  if (at(['http', 'tls', 'clientcas']) !== undefined) {
    found.leave(
      `${file}: http.tls.clientcas: certificates of clients are not asked for here`,
      'gateway user add NAME, or access.allow',
    );
  }
  const address = at(['http', 'addr']);
  if (typeof address === 'string') found.note(`it listened on ${address}; the gateway listens where listen.https says`);
}

/** Whether images can have names that begin with it: of a container's network it is a word without a dot. */
export function isNameOfARegistry(host: string): boolean {
  return host.includes('.') || /^localhost(:\d+)?$/.test(host);
}
