import { canonicalRegistry, DOCKER_HUB } from '../../oci/known-registries.ts';
import type { Findings } from './moved-in.ts';

/** A flag as it was given: its long name, and its value. */
export interface Flag {
  readonly name: string;
  readonly value: string;
}

const SHORT: Readonly<Record<string, string>> = { u: 'user', a: 'address' };
/** Flags without a value, unless it is given with `=`. */
const SWITCHES: ReadonlySet<string> = new Set([
  'behind',
  'limit-delay',
  'privileged-no-auth',
  'disable-tags-list',
  'enable-pprof',
  'simple-auth',
  'simple-auth-allow-anonymous',
  'token-auth-force-tls',
  'redirect-origin-blob-links',
  'enable-internal-api',
  'allow-head-method',
]);

/** The flags of a command line, which may be cut into words already, be one text of several lines, and have comments. */
export function flagsIn(parts: readonly string[]): Flag[] {
  const words = parts.flatMap((part) =>
    part
      .split('\n')
      .map((line) => line.replace(/(^|\s)#.*$/, ''))
      .flatMap((line) => line.match(/"[^"]*"|'[^']*'|\S+/g) ?? [])
      .map((word) => word.replace(/^(--?[\w-]+=)?(["'])(.*)\2$/, '$1$3')),
  );
  const flags: Flag[] = [];
  for (let at = 0; at < words.length; at++) {
    const [, dashes = '', short = '', inline] = /^(--?)([\w-]+)(?:=(.*))?$/s.exec(words[at] ?? '') ?? [];
    if (dashes === '') continue;
    const name = dashes === '-' ? (SHORT[short] ?? short) : short;
    if (inline !== undefined) flags.push({ name, value: inline });
    else if (SWITCHES.has(name)) flags.push({ name, value: 'true' });
    else flags.push({ name, value: words[++at] ?? '' });
  }
  return flags;
}

/** What crproxy does by itself here, or what needs nothing: how it listens, tries again and redirects. */
const NEEDS_NOTHING: ReadonlySet<string> = new Set([
  'address',
  'acme-cache-dir',
  'retry',
  'retry-interval',
  'limit-delay',
  'disable-keep-alives',
  'link-expires',
  'redirect-links',
  'redirect-origin-blob-links',
  'enable-pprof',
  'enable-internal-api',
  'allow-head-method',
  'token-url',
  'token-auth-force-tls',
  'storage-parameters',
  'block-message',
  'readme-url',
]);

/** Flags that are something else here: what a person has to do. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  behind:
    'set trustedProxies to the addresses of what stands before the gateway, and tls.mode: off if that has the certificates',
  'blobs-speed-limit': 'set limits.bytesPerDay in the configuration: the gateway has no limit of speed',
  'ips-speed-limit': 'set limits.bytesPerDay in the configuration: the gateway has no limit of speed',
  'total-blobs-speed-limit': 'set limits.bytesPerMonth in the configuration: the gateway has no limit of speed',
  'allow-image-list-from-file':
    'every image of a registry in the table may be pulled here; remove the registries that must not be: gateway registry rm HOST',
  'allow-image-list':
    'every image of a registry in the table may be pulled here; remove the registries that must not be: gateway registry rm HOST',
  'block-image-list':
    'every image of a registry in the table may be pulled here; remove the registries that must not be: gateway registry rm HOST',
  'privileged-ip-list': 'limits are the same for all clients here; networks that need no login: access.anonymous',
  'privileged-image-list-from-file': 'limits are the same for all images here',
  'privileged-no-auth': 'networks that need no login: access.anonymous',
  'disable-tags-list': 'lists of tags are served here',
  'manifest-cache-duration': 'set cache.tagTtl in the configuration',
  'storage-driver': 'what it kept there is not taken over; it is fetched once more as it is asked for',
  'cert-file': 'take that certificate into use: gateway cert import CERT KEY, or let the gateway get its own',
  'private-key-file': 'take that certificate into use: gateway cert import CERT KEY, or let the gateway get its own',
  'simple-auth-allow-anonymous': 'set access.anonymous: true in the configuration',
};

/** Notes what a crproxy with these flags serves. */
export function applyFlags(found: Findings, where: string, flags: readonly Flag[]): void {
  const hasLogins = flags.some(({ name, value }) => name === 'simple-auth' && value !== 'false');
  for (const { name, value } of flags) {
    const shown = `${where}: --${name}`;
    // Values may be passwords, and are not repeated.
    if (name === 'user') for (const one of listed(value)) user(found, shown, one, hasLogins);
    else if (name === 'default-registry') defaultRegistry(found, shown, value);
    else if (name === 'override-default-registry') for (const one of listed(value)) override(found, shown, one);
    else if (name === 'domain-alias') for (const one of listed(value)) domainAlias(found, shown, one);
    else if (name === 'allow-host-list') {
      for (const host of listed(value)) found.registry(canonicalRegistry(host.toLowerCase()));
      found.note(
        `${shown}: those are in the table, with others that come with the gateway: gateway registry ls, gateway registry rm HOST`,
      );
    } else if (name === 'acme-hosts')
      found.note(
        `${shown} ${value}: the gateway gets a certificate for each of its names by itself (domain, acme.email)`,
      );
    else if (name === 'simple-auth') found.note(`${shown}: from the first user on, clients log in here as well`);
    else if (name === 'simple-auth-user') {
      for (const one of listed(value)) {
        const login = one.split('=')[0] ?? '';
        found.leave(
          `${shown} ${login}: a password cannot be taken over`,
          `that user gets a new token: gateway user add ${login}`,
        );
      }
    } else if (ELSEWHERE[name] !== undefined) found.leave(`${shown} was not taken over`, ELSEWHERE[name]);
    else if (!NEEDS_NOTHING.has(name)) found.leave(`${shown} was not understood`, 'see whether anything depends on it');
  }
}

function listed(value: string): string[] {
  return value
    .split(',')
    .map((one) => one.trim())
    .filter((one) => one !== '');
}

/** `user:password@host`: shown to that registry in everybody's name. */
function user(found: Findings, shown: string, value: string, hasLogins: boolean): void {
  const at = value.lastIndexOf('@');
  const host = value.slice(at + 1);
  const [username = '', ...rest] = value.slice(0, Math.max(0, at)).split(':');
  const password = rest.join(':');
  if (at < 1 || host === '' || username === '' || password === '') {
    found.leave(`${shown} is not user:password@host`, 'gateway registry set HOST --username U --password-stdin');
    return;
  }
  // What they open was for everybody there, unless clients had to log in.
  found.registry(canonicalRegistry(host.toLowerCase()), { credentials: { username, password }, public: !hasLogins });
}

function defaultRegistry(found: Findings, shown: string, value: string): void {
  const registry = canonicalRegistry(value.toLowerCase());
  found.registry(registry);
  if (registry === DOCKER_HUB) found.note(`${shown} ${value}: a name without a registry is docker.io's here as well`);
  else
    found.leave(
      `${shown} ${value}: here a name without a registry is docker.io's`,
      `pull those by an alias: gateway alias add NAME ${registry}`,
    );
}

/** `host=registry`: names without a registry that are asked of this host. */
function override(found: Findings, shown: string, value: string): void {
  const [host = '', registry = ''] = value.split('=');
  if (host === '' || registry === '')
    found.leave(`${shown} ${value} is not host=registry`, 'gateway alias add HOST REGISTRY');
  else found.registry(canonicalRegistry(registry.toLowerCase()), {}, host.toLowerCase());
}

/** `name=host`: where a registry is fetched from. */
function domainAlias(found: Findings, shown: string, value: string): void {
  const [name = '', host = ''] = value.split('=');
  if (name === '' || host === '')
    found.leave(`${shown} ${value} is not name=host`, 'gateway registry set HOST --endpoint URL');
  else found.registry(canonicalRegistry(name.toLowerCase()), { endpoints: [`https://${host}`] });
}
