import { isIP } from 'node:net';
import { OperatorError } from '../../kit/operator-error.ts';
import { canonicalRegistry } from '../../oci/known-registries.ts';
import { isRegistryHost } from '../../oci/names.ts';
import { Findings, type MovedIn } from './moved-in.ts';
import { type Directive, NginxFiles } from './nginx-syntax.ts';
import { isNameOfARegistry } from './registry-config.ts';

/** Where images are asked for (distribution-spec, *Endpoints*), and what covers that. */
const PULLS = /^\^?\/(v2(\/.*)?|\(?\.\*\)?)?\$?$/;
/** `/v2/<registry>/`, a location for one registry below the domain. */
const BY_PREFIX = /^\^?\/v2\/([a-z0-9.-]+\.[a-z]+(?::\d+)?)\//;

/** Directives that say nothing of who is served what: how nginx serves, and what this gateway does by itself. */
const NEEDS_NOTHING =
  /^(access_log|error_log|add_header|aio|alias|break|charset|chunked_transfer_encoding|client_\w+|default_type|deny_all|directio|error_page|etag|expires|gzip\w*|http2\w*|http3\w*|index|keepalive\w*|large_client_header_buffers|listen|log_\w+|merge_slashes|open_file_cache\w*|output_buffers|port_in_redirect|postpone_output|proxy_(buffer\w*|busy_buffers_size|cache\w*|connect_timeout|cookie\w*|force_ranges|headers_hash\w*|hide_header|http_version|ignore_\w+|intercept_errors|max_temp_file_size|method|next_upstream\w*|no_cache|pass_\w+|read_timeout|redirect|request_buffering|send_timeout|set_header|ssl_(name|server_name|session_reuse|protocols|ciphers|verify|verify_depth)|store\w*|temp_\w+)|reset_timedout_connection|resolver\w*|root|sendfile\w*|send_timeout|server_name\w*|server_tokens|slice|ssl_(protocols|ciphers|session\w*|prefer\w*|dhparam|ecdh_curve|stapling\w*|early_data|buffer_size|trusted_certificate)|ssl|sub_filter\w*|tcp_\w+|try_files|types\w*|underscores_in_headers|variables_hash\w*|zone)$/;
/** Directives by which somebody is kept out, or slowed: what a person has to do about each. */
const GUARDS: Readonly<Record<string, string>> = {
  auth_basic: 'add the users, who get new tokens: gateway user add NAME',
  auth_request: 'add the users, who get tokens: gateway user add NAME',
  allow: 'set access.allow in the configuration',
  deny: 'set access.deny, or access.allow, in the configuration',
  limit_req: 'set limits.requestsPerMinute in the configuration',
  limit_conn: 'set limits.connections in the configuration',
  limit_rate: 'set limits.bytesPerDay in the configuration: the gateway has no limit of speed',
  ssl_client_certificate: 'certificates of clients are not asked for here: gateway user add NAME, or access.allow',
  ssl_verify_client: 'certificates of clients are not asked for here: gateway user add NAME, or access.allow',
};

/** What a block has from those around it. */
interface Scope {
  /** `Host` and `Authorization` as they are sent on. */
  readonly headers: ReadonlyMap<string, string>;
  /** Variables that have one value. */
  readonly variables: ReadonlyMap<string, string>;
}

/**
 * Reads an nginx that passes image pulls on to registries: each `server` whose names are aliases, by `proxy_pass`, by a redirect, or by a `map` of
 * host names. Whatever else is in such a server is listed.
 * @param own hosts at which the program itself is reached that is moved: what passes on to them is its domain
 * @throws {OperatorError} `FILE_UNREADABLE`, `IMPORT_NOTHING`
 */
export async function readNginx(file: string, own: ReadonlySet<string> = new Set()): Promise<MovedIn> {
  const files = new NginxFiles(file);
  let directives: Directive[];
  try {
    directives = files.read(file);
  } catch (cause) {
    throw new OperatorError('FILE_UNREADABLE', `${file} cannot be read: ${(cause as Error).message}`, { cause });
  }
  const found = new Findings();
  for (const problem of files.problems) found.leave(`${problem}`, 'correct it, and import again');
  const reader = new NginxReader(found, own);
  reader.gather(directives);
  reader.servers(directives);
  const result = found.result();
  if (reader.passesOn === 0 && result.leftOut.length === 0) {
    throw new OperatorError(
      'IMPORT_NOTHING',
      `nothing was found in ${file}: no server in it passes /v2/ on to a registry`,
      {
        next: 'give the file in which the servers of the registries are, or the nginx.conf that includes it',
      },
    );
  }
  return result;
}

class NginxReader {
  /** Servers that pass pulls on. */
  passesOn = 0;
  readonly #found: Findings;
  readonly #own: ReadonlySet<string>;
  readonly #upstreams = new Map<string, string[]>();
  /** Of `map $host $variable`: by variable, the hosts and what each stands for. */
  readonly #maps = new Map<string, ReadonlyMap<string, string>>();

  constructor(found: Findings, own: ReadonlySet<string>) {
    this.#found = found;
    this.#own = own;
  }

  /** What servers refer to, wherever it stands. */
  gather(directives: readonly Directive[]): void {
    for (const { name, args, block } of directives) {
      if (block === null) continue;
      const [first = '', second = ''] = args;
      if (name === 'upstream') {
        const servers = block.filter(
          (one) => one.name === 'server' && !one.args.includes('backup') && !one.args.includes('down'),
        );
        this.#upstreams.set(
          first,
          servers.map((one) => one.args[0] ?? ''),
        );
      } else if (
        name === 'map' &&
        /^\$(host|http_host|server_name|ssl_server_name|ssl_preread_server_name)$/.test(first)
      ) {
        const rows = block.filter((one) => !/^(default|hostnames|volatile|include)$/.test(one.name));
        this.#maps.set(second.slice(1), new Map(rows.map((one) => [one.name, one.args[0] ?? ''])));
      }
      this.gather(block);
    }
  }

  servers(directives: readonly Directive[], scope: Scope = { headers: new Map(), variables: new Map() }): void {
    const here = withSettings(scope, directives);
    for (const one of directives) {
      if (one.name === 'server' && one.block !== null) this.#server(one, one.block, here);
      else if (one.block !== null && /^(http|stream)$/.test(one.name)) this.servers(one.block, here);
    }
  }

  #server(server: Directive, block: readonly Directive[], around: Scope): void {
    const names = block.filter(({ name }) => name === 'server_name').flatMap(({ args }) => args);
    const scope = withSettings(around, block);
    const ways = this.#waysOf(block, scope);
    if (ways.length === 0) {
      if (!isPlainRedirect(block)) {
        this.#found.note(
          `${place(server)}: the server ${names.join(' ') || 'without a name'} passes no pulls on, and was passed over`,
        );
      }
      return;
    }
    this.passesOn++;
    this.#certificate(block);
    for (const way of ways) this.#way(names, way);
    this.#rest(block, names);
  }

  /** Directives that say where pulls go, with what is in force around them. */
  #waysOf(block: readonly Directive[], scope: Scope): { directive: Directive; scope: Scope; location: string }[] {
    const ways: { directive: Directive; scope: Scope; location: string }[] = [];
    const look = (directives: readonly Directive[], around: Scope, location: string): void => {
      for (const directive of directives) {
        const { name, args, block: inner } = directive;
        if (name === 'location' && inner !== null) {
          const path = args.at(-1) ?? '';
          // The ping alone: the gateway answers it.
          if (args[0] === '=') continue;
          if (PULLS.test(path) || BY_PREFIX.test(path)) look(inner, withSettings(around, inner), path);
        } else if (name === 'if' && inner !== null) look(inner, around, location);
        else if (
          name === 'proxy_pass' ||
          ((name === 'return' || name === 'rewrite') && /\/v2\//.test(args.join(' ')))
        ) {
          ways.push({ directive, scope: around, location });
        }
      }
    };
    look(block, scope, '/');
    return ways;
  }

  #way(
    names: readonly string[],
    { directive, scope, location }: { directive: Directive; scope: Scope; location: string },
  ): void {
    const target = directive.args.find((arg) => /^https?:\/\/|^\$/.test(arg)) ?? '';
    const variable = /^(?:https?:\/\/)?\$(\w+)/.exec(target)?.[1];
    const map = variable === undefined ? undefined : this.#maps.get(variable);
    if (map !== undefined) {
      for (const [host, value] of map)
        this.#alias(host, replaceStart(target, `$${variable}`, value), { directive, scope, location });
      return;
    }
    const value = variable === undefined ? undefined : scope.variables.get(variable);
    const whole = value === undefined ? target : replaceStart(target, `$${variable}`, value);
    if (names.length === 0) this.#alias('', whole, { directive, scope, location });
    for (const name of names) this.#alias(name, whole, { directive, scope, location });
  }

  #alias(
    name: string,
    target: string,
    { directive, scope, location }: { directive: Directive; scope: Scope; location: string },
  ): void {
    const where = `${place(directive)}: ${name === '' ? 'a server without a name' : name}`;
    const address = this.#addressOf(target, scope);
    if (address === null) {
      this.#found.leave(
        `${where} passes on to ${target || directive.args.join(' ')}, which was not understood`,
        'gateway alias add NAME REGISTRY',
      );
      return;
    }
    const { registry, endpoints } = address;
    if (this.#own.has(registry.replace(/:\d+$/, ''))) {
      this.#found.note(
        `${name} served every registry by its name: that is what domain is here (GATEWAY_DOMAIN=${name})`,
      );
      return;
    }
    if (!isNameOfARegistry(registry)) {
      this.#found.leave(
        `${where} passes on to ${endpoints.join(', ')}, which is no name that images can have`,
        `where a registry is behind it: gateway alias add ${name || 'NAME'} REGISTRY --endpoint ${endpoints[0] ?? 'URL'}`,
      );
      return;
    }
    const settings = { endpoints, ...this.#credentials(scope, where) };
    // Below the domain the gateway serves every registry of its table by its name.
    if (BY_PREFIX.test(location)) this.#found.registry(registry, settings);
    else if (isAliasName(name)) this.#found.registry(registry, settings, name.toLowerCase());
    else {
      this.#found.registry(registry, settings);
      this.#found.leave(`${where} is no name that an alias can have`, `name each: gateway alias add NAME ${registry}`);
    }
  }

  /** The registry that a URL leads to, and where it is fetched from; null for what is no URL. */
  #addressOf(target: string, { headers }: Scope): { registry: string; endpoints: string[] } | null {
    const match = /^(https?):\/\/([^/$]+)(\/[^$]*)?(\$.*)?$/.exec(target);
    if (match === null) return null;
    const [, scheme = 'https', authority = '', path = ''] = match;
    // `https://domain/v2/<registry>/…`: an alias of crproxy, which leads to its domain.
    const origin = /^\/v2\/([^/]+)\//.exec(path)?.[1];
    if (origin !== undefined && isRegistryHost(origin))
      return { registry: canonicalRegistry(origin), endpoints: ownEndpoint(origin) };
    const servers = this.#upstreams.get(authority) ?? [authority];
    const project = path.replace(/^\/v2\/?$|^\/$/, '').replace(/\/+$/, '');
    const endpoints = servers.map((server) => `${scheme}://${withoutDefaultPort(scheme, server)}${project}`);
    const host = headers.get('host');
    const named = host !== undefined && !host.includes('$') ? host : withoutDefaultPort(scheme, servers[0] ?? '');
    return endpoints.length === 0 ? null : { registry: canonicalRegistry(named.toLowerCase()), endpoints };
  }

  /** Credentials that nginx shows to the registry in everybody's name. */
  #credentials({ headers }: Scope, where: string) {
    const header = headers.get('authorization');
    if (header === undefined || header === '' || header.startsWith('$')) return {};
    const [, encoded = ''] = /^Basic\s+([A-Za-z0-9+/=]+)$/i.exec(header) ?? [];
    const [username = '', ...rest] = Buffer.from(encoded, 'base64').toString('utf8').split(':');
    const password = rest.join(':');
    if (username !== '' && password !== '') return { credentials: { username, password }, public: true };
    this.#found.leave(
      `${where} shows an Authorization that is no user name with a password`,
      'gateway registry set HOST --username U --password-stdin',
    );
    return {};
  }

  #certificate(block: readonly Directive[]): void {
    const of = (name: string) => block.find((one) => one.name === name)?.args[0];
    const [certificate, key] = [of('ssl_certificate'), of('ssl_certificate_key')];
    if (certificate === undefined || key === undefined) return;
    this.#found.note(
      `the gateway gets certificates by itself; to go on with that one: gateway cert import ${certificate} ${key}`,
    );
  }

  /** What else is in a server that passes pulls on. */
  #rest(block: readonly Directive[], names: readonly string[]): void {
    for (const one of block) {
      const { name, args, block: inner } = one;
      const guard = GUARDS[name];
      const what = `${place(one)}: ${name} ${args.join(' ')}`.trimEnd();
      if (guard !== undefined) this.#found.leave(`${what} (${names.join(' ')}) was not taken over`, guard);
      else if (name === 'location' || name === 'if') this.#rest(inner ?? [], names);
      else if (/^(proxy_pass|return|rewrite|set|ssl_certificate|ssl_certificate_key)$/.test(name)) continue;
      else if (name === 'proxy_ssl_trusted_certificate') {
        this.#found.leave(`${what} was not taken over`, `gateway registry set HOST --ca ${args[0] ?? 'FILE'}`);
      } else if (!NEEDS_NOTHING.test(name))
        this.#found.leave(`${what} was not understood`, 'see whether anything depends on it');
    }
  }
}

/** Headers that are sent on, and variables, as they are within a block. Headers that a block sets replace all those around it. */
function withSettings({ headers, variables }: Scope, block: readonly Directive[]): Scope {
  const set = block
    .filter(({ name }) => name === 'proxy_set_header')
    .map(({ args }) => [(args[0] ?? '').toLowerCase(), args[1] ?? ''] as const);
  const assigned = block
    .filter(({ name }) => name === 'set')
    .map(({ args }) => [(args[0] ?? '').slice(1), args[1] ?? ''] as const);
  return {
    headers: set.length === 0 ? headers : new Map(set),
    variables: assigned.length === 0 ? variables : new Map([...variables, ...assigned]),
  };
}

function isPlainRedirect(block: readonly Directive[]): boolean {
  const does = block.filter(({ name }) => !/^(listen|server_name|server_tokens|access_log|error_log)$/.test(name));
  return (
    does.length > 0 &&
    does.every(({ name, args }) => name === 'return' && /^https?:\/\/\$(host|server_name)/.test(args.at(-1) ?? ''))
  );
}

function replaceStart(text: string, variable: string, value: string): string {
  const whole = text.replace(variable, () => value);
  return /^https?:\/\//.test(whole) ? whole : `https://${whole}`;
}

function ownEndpoint(registry: string): string[] {
  // Docker Hub's is not at its name; the table knows.
  return [`https://${registry === 'docker.io' ? 'registry-1.docker.io' : registry}`];
}

function withoutDefaultPort(scheme: string, host: string): string {
  return host.replace(scheme === 'https' ? /:443$/ : /:80$/, '');
}

/** Neither `_`, an address, a wildcard nor a regular expression. */
function isAliasName(name: string): boolean {
  return /^[a-z0-9-]+(\.[a-z0-9-]+)+$/i.test(name) && isIP(name) === 0;
}

function place({ file, line }: Directive): string {
  return `${file}:${line}`;
}
