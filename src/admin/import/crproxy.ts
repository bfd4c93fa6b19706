import { globSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { redactUrl } from '../../kit/http.ts';
import { isObject } from '../../kit/json.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { parseYaml } from '../../kit/yaml-text.ts';
import { canonicalRegistry } from '../../oci/known-registries.ts';
import { applyFlags, flagsIn } from './crproxy-flags.ts';
import { Findings, type MovedIn } from './moved-in.ts';
import { readNginx } from './nginx.ts';
import { readRegistryConfig } from './registry-config.ts';

/** Files of a deployment that are looked at, and no larger ones: those of a person, not of a program. */
const MAX_FILE = 1024 * 1024;
const MAX_FILES = 1_000;

/**
 * Reads a deployment of crproxy as its examples make it: a compose file or scripts with its flags, aliases as servers of an nginx beside it or as
 * calls of `setup-alias.sh`, and a `registry` before it that keeps the layers.
 * @throws {OperatorError} `IMPORT_NOTHING`, `FILE_UNREADABLE`, `YAML_INVALID`
 */
export async function readCrproxy(directory: string, env: NodeJS.ProcessEnv): Promise<MovedIn> {
  const folder = await stat(directory).catch(() => null);
  if (folder === null || !folder.isDirectory()) {
    throw new OperatorError('FILE_UNREADABLE', `${directory} is no folder that can be read`, {
      next: 'give the folder with its docker-compose.yml and scripts',
    });
  }
  const found = new Findings();
  const files = filesBelow(directory);
  const variables = await dotEnv(directory, env);
  let seen = 0;
  const volumes = new Map<string, string>();
  /** Names under which its own programs know each other. */
  const services = new Set(['crproxy', 'registry']);
  for (const file of files.filter((name) => /(^|[/.-])(docker-)?compose[^/]*\.ya?ml$/.test(name))) {
    seen += await readCompose(found, { directory, file, variables, volumes, services });
  }
  for (const file of files.filter((name) => /\.(sh|bash|service|env|txt)$|(^|\/)(Makefile|run|start)$/.test(name))) {
    seen += await readScript(found, directory, file, variables);
  }
  for (const file of files.filter((name) => /\.conf$/.test(name) && !name.includes('/certbot/'))) {
    seen += await readBeside(found, file, () => readNginx(join(directory, file), services));
  }
  for (const file of files.filter((name) => /(^|\/)registry\/[^/]*\.ya?ml$|(^|\/)config\.ya?ml$/.test(name))) {
    seen += await readBeside(found, file, async () => {
      const config = readRegistryConfig(await readText(directory, file), join(directory, file), {});
      return {
        ...config,
        storages: config.storages.map((one) => ({ ...one, root: volumes.get(one.root) ?? one.root })),
      };
    });
  }
  if (seen === 0) {
    throw new OperatorError(
      'IMPORT_NOTHING',
      `nothing of crproxy was found in ${directory}: neither its flags in a compose file or script, nor an alias of nginx`,
    );
  }
  return found.result();
}

function filesBelow(directory: string): string[] {
  return globSync('**/*', { cwd: directory, exclude: ['**/node_modules/**', '**/.git/**', '**/docker/registry/v2/**'] })
    .slice(0, MAX_FILES)
    .sort();
}

async function readText(directory: string, file: string): Promise<string> {
  const path = join(directory, file);
  const about = await stat(path);
  // A folder, a device or a pipe is no text, whatever its name.
  if (!about.isFile() || about.size > MAX_FILE) return '';
  return readFile(path, 'utf8');
}

/** A file of another program beside it: what it has counts, and that it has nothing is no mistake. */
async function readBeside(found: Findings, file: string, read: () => Promise<MovedIn>): Promise<number> {
  try {
    found.add(await read());
    return 1;
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    if (error.code !== 'IMPORT_NOTHING') found.leave(`${file}: ${error.message}`, error.next);
    return 0;
  }
}

/** Compose reads variables from `.env` beside it, and from the environment, which wins. */
async function dotEnv(directory: string, env: NodeJS.ProcessEnv): Promise<Map<string, string>> {
  const variables = new Map<string, string>();
  const text = await readFile(join(directory, '.env'), 'utf8').catch(() => '');
  for (const line of text.split('\n')) {
    const [, name, value] = /^\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined) variables.set(name, unquoted(value.trim()));
  }
  for (const [name, value] of Object.entries(env)) if (value !== undefined) variables.set(name, value);
  return variables;
}

function unquoted(text: string): string {
  return /^(["'])(.*)\1$/s.exec(text)?.[2] ?? text.replace(/\s+#.*$/, '');
}

/** `$NAME`, `${NAME}` and `${NAME:-otherwise}` with their values; others stay. */
function expanded(text: string, variables: ReadonlyMap<string, string>): string {
  return text.replace(/\$(?:\{(\w+)(?::?-([^}]*))?\}|(\w+))/g, (whole, braced, otherwise, plain) => {
    return variables.get(braced ?? plain) ?? otherwise ?? whole;
  });
}

interface ComposeFile {
  readonly directory: string;
  readonly file: string;
  readonly variables: ReadonlyMap<string, string>;
  /** Learns where folders of containers lie: by the path within, that on this machine. */
  readonly volumes: Map<string, string>;
  /** Learns the names of services. */
  readonly services: Set<string>;
}

/** The number of services that are crproxy, or a `registry` before it. */
async function readCompose(
  found: Findings,
  { directory, file, variables, volumes, services: known }: ComposeFile,
): Promise<number> {
  const path = join(directory, file);
  const value = parseYaml(expanded(await readText(directory, file), variables), path).value;
  const services = isObject(value) && isObject(value.services) ? value.services : {};
  let seen = 0;
  for (const [name, service] of Object.entries(services)) {
    if (!isObject(service)) continue;
    known.add(name);
    const image = typeof service.image === 'string' ? service.image : '';
    for (const volume of Array.isArray(service.volumes) ? service.volumes : [])
      noteVolume(volumes, resolve(directory, file, '..'), volume);
    if (isRegistryImage(image)) seen += registryService(found, path, service);
    if (!/crproxy/.test(image) && !/crproxy/.test(name)) continue;
    seen++;
    const where = `${path} (${name})`;
    applyFlags(found, where, flagsIn([service.entrypoint, service.command].flatMap(words)));
    proxyOf(found, where, service.environment);
  }
  return seen;
}

function isRegistryImage(image: string): boolean {
  return /(^|\/)(library\/)?(registry|distribution)(:|@|$)/.test(image);
}

/** A `registry` that is configured by variables alone, as its image mostly is. */
function registryService(found: Findings, path: string, service: Readonly<Record<string, unknown>>): number {
  const env = Object.fromEntries(environmentOf(service.environment));
  if (env.REGISTRY_PROXY_REMOTEURL === undefined) return 0;
  found.add(readRegistryConfig('', path, env));
  return 1;
}

function noteVolume(volumes: Map<string, string>, base: string, volume: unknown): void {
  const [source, target] =
    typeof volume === 'string'
      ? volume.split(':')
      : isObject(volume) && typeof volume.source === 'string' && typeof volume.target === 'string'
        ? [volume.source, volume.target]
        : [];
  // A name without a slash is a volume of Docker's own.
  if (source !== undefined && target !== undefined && /^[./~]/.test(source)) volumes.set(target, resolve(base, source));
}

function words(value: unknown): string[] {
  if (Array.isArray(value)) return value.map(String);
  return typeof value === 'string' ? [value] : [];
}

function environmentOf(value: unknown): [string, string][] {
  if (isObject(value)) return Object.entries(value).map(([name, set]) => [name, String(set ?? '')]);
  if (!Array.isArray(value)) return [];
  return value.map((line) => {
    const [name = '', ...rest] = String(line).split('=');
    return [name, rest.join('=')];
  });
}

/** The proxy through which it reaches registries. */
function proxyOf(found: Findings, where: string, environment: unknown): void {
  const proxy = environmentOf(environment).find(([name]) => /^https_proxy$/i.test(name))?.[1];
  if (proxy !== undefined && proxy !== '') {
    found.leave(
      `${where}: it reaches registries through a proxy`,
      `set upstream.proxy in the configuration, or GATEWAY_UPSTREAM_PROXY=${redactUrl(proxy)}`,
    );
  }
}

/** The number of calls of crproxy, and of its `setup-alias.sh`, in a script. */
async function readScript(
  found: Findings,
  directory: string,
  file: string,
  env: ReadonlyMap<string, string>,
): Promise<number> {
  // The scripts that crproxy brings along only define what those are that call them.
  if (/^(setup-(alias|gateway)|update-tls|reload)\.sh$/.test(basename(file))) return 0;
  const path = join(directory, file);
  const variables = new Map(env);
  let seen = 0;
  const text = (await readText(directory, file)).replace(/\\\r?\n/g, ' ');
  for (const raw of text.split('\n')) {
    const line = raw.replace(/(^|\s)#.*$/, '').trim();
    const [, name, value] = /^(?:export\s+)?([A-Za-z_]\w*)=(\S*|"[^"]*"|'[^']*')$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined) variables.set(name, expanded(unquoted(value), variables));
    for (const [, key = '', origin = ''] of line.matchAll(/\[["']?([\w.-]+)["']?\]=["']?([\w.:-]+)/g))
      seen += alias(found, path, key, origin);
    const whole = expanded(line, variables);
    const call = /setup-alias\.sh\s+(\S+)\s+(\S+)/.exec(whole);
    if (call !== null) seen += alias(found, path, unquoted(call[1] ?? ''), unquoted(call[2] ?? ''));
    // The last of them: `docker run --name crproxy …/crproxy:v1 --flag`.
    const flags = /^(?:.*[\s/])?crproxy(?::\S+)?\s+(-.*)$/.exec(whole)?.[1];
    if (flags !== undefined) {
      seen++;
      applyFlags(found, path, flagsIn([flags]));
    }
  }
  return seen;
}

function alias(found: Findings, path: string, name: string, origin: string): number {
  // The loop of its start.sh, over the mapping that was read above it.
  if (/^\$\{?key\}?$/.test(name)) return 0;
  if (name.includes('$') || origin.includes('$')) {
    found.leave(
      `${path}: the alias ${name} for ${origin} has a variable whose value is not known`,
      'gateway alias add NAME REGISTRY',
    );
    return 1;
  }
  const registry = canonicalRegistry(origin.toLowerCase());
  found.registry(registry, {}, name.toLowerCase());
  return 1;
}
