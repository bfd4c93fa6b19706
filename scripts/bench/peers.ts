import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeDataDirectory } from '../../test/support/data-directory.ts';
import { freePort, Server } from './process.ts';

/** A server that answers pulls over TLS on loopback, and how its content is asked for. */
export interface Peer {
  readonly name: string;
  readonly port: number;
  readonly servers: readonly Server[];
  /** `/v2/<repository>/…` as this peer is asked for it. */
  readonly prefix: string;
  stop(): Promise<void>;
}

export interface Bench {
  /** Scratch directory of this run; removed at its end. */
  readonly dir: string;
  /** Certificate and key of the peers' listeners: P-256, as the gateway's own. */
  readonly cert: string;
  readonly key: string;
}

export function prepare(dir: string): Bench {
  const cert = join(dir, 'tls.crt');
  const key = join(dir, 'tls.key');
  const args = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost';
  execFileSync(
    'openssl',
    [...args.split(' '), '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', cert],
    { stdio: 'ignore' },
  );
  return { dir, cert, key };
}

/** Workers keep the user of whoever runs the benchmark: the scratch directory is that user's alone. */
const USER = process.getuid?.() === 0 ? 'user root;' : '';

const NGINX_COMMON = (dir: string) => `
${USER} daemon off; worker_processes 1; pid ${dir}/nginx.pid; error_log stderr warn;
events { worker_connections 4096; }`;

const NGINX_HTTP = (dir: string) => `
  sendfile on; tcp_nopush on; keepalive_requests 10000000; keepalive_timeout 300s;
  client_body_temp_path ${dir}/body; proxy_temp_path ${dir}/proxy; fastcgi_temp_path ${dir}/fastcgi;
  uwsgi_temp_path ${dir}/uwsgi; scgi_temp_path ${dir}/scgi; proxy_max_temp_file_size 0;`;

/** All servers choose the same cipher, so that they alone are compared: by default nginx lets the client's order decide, AES-256 first. */
const NGINX_TLS = `ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:tls:10m; ssl_prefer_server_ciphers on;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384;`;

/** The registry API as plain files: enough for pulls by every peer and by the gateway. */
const STATIC_REGISTRY = (root: string) => `
    root ${root};
    add_header Docker-Distribution-Api-Version registry/2.0 always;
    location = /v2/ { default_type application/json; return 200 '{}'; }
    location ~ ^/v2/.+/manifests/ {
      default_type application/vnd.oci.image.manifest.v1+json;
      if ($uri ~ "(sha256:[0-9a-f]+)$") { add_header Docker-Content-Digest $1; }
    }
    location ~ ^/v2/.+/blobs/ { default_type application/octet-stream; }`;

function nginx(bench: Bench, name: string, http: string, port: number, cpus?: string): Promise<Server> {
  const dir = join(bench.dir, name);
  mkdirSync(dir, { recursive: true });
  const file = join(dir, 'nginx.conf');
  writeFileSync(file, `${NGINX_COMMON(dir)}\nhttp {${NGINX_HTTP(dir)}${http}\n}\n`);
  return Server.start({
    command: 'nginx',
    args: ['-e', 'stderr', '-p', dir, '-c', file],
    port,
    ...(cpus === undefined ? {} : { cpus }),
  });
}

/** The upstream of every cold scenario: files, every answered byte counted in its log. */
export class Origin {
  readonly port: number;
  /** The same over TLS, with the certificate of this run. */
  readonly tlsPort: number;
  /** The same on a Unix socket, which other network namespaces reach too. */
  readonly socket: string;
  readonly server: Server;
  readonly #log: string;

  private constructor(port: number, tlsPort: number, socket: string, server: Server, log: string) {
    this.port = port;
    this.tlsPort = tlsPort;
    this.socket = socket;
    this.server = server;
    this.#log = log;
  }

  /**
   * On `port`, or a free one. Without `tcp_nopush`: what is less than a window would wait for the other end's delayed acknowledgement, some 40 ms,
   * as the registries that it stands for do not.
   */
  static async start(bench: Bench, root: string, cpus: string, given?: number): Promise<Origin> {
    const port = given ?? (await freePort());
    const tlsPort = await freePort();
    const log = join(bench.dir, `origin-${port}.log`);
    const socket = join(bench.dir, `origin-${port}.sock`);
    const http = `
  log_format bytes '$request_method $uri $body_bytes_sent'; access_log ${log} bytes;
  server { tcp_nopush off; listen 127.0.0.1:${port}; listen unix:${socket};
    listen 127.0.0.1:${tlsPort} ssl; ssl_certificate ${bench.cert};
    ssl_certificate_key ${bench.key}; ${NGINX_TLS} ${STATIC_REGISTRY(root)}
  }`;
    return new Origin(port, tlsPort, socket, await nginx(bench, `origin-${port}`, http, port, cpus), log);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Body bytes that were sent of paths that contain `part`, since the start. */
  bytes(part: string): number {
    return readFileSync(this.#log, 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('GET') && line.includes(part))
      .reduce((total, line) => total + Number(line.split(' ')[2]), 0);
  }
}

function registryConfig(dir: string, port: number, remote: string, tls?: Bench): string {
  return JSON.stringify({
    version: '0.1',
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(dir, 'data') }, delete: { enabled: true } },
    http: {
      addr: `127.0.0.1:${port}`,
      ...(tls === undefined ? {} : { tls: { certificate: tls.cert, key: tls.key } }),
    },
    proxy: { remoteurl: remote },
  });
}

/** For programs written in Go: like the other servers, one core's worth of threads. */
export const ONE_THREAD = { GOMAXPROCS: '1' };

async function distribution(
  bench: Bench,
  name: string,
  remote: string,
  { command, tls }: { command: string; tls: boolean },
): Promise<[Server, number]> {
  const dir = join(bench.dir, name);
  mkdirSync(dir, { recursive: true });
  const port = await freePort();
  const file = join(dir, 'config.yml');
  writeFileSync(file, registryConfig(dir, port, remote, tls ? bench : undefined));
  const server = await Server.start({
    command,
    args: ['serve', file],
    port,
    env: ONE_THREAD,
  });
  return [server, port];
}

export function peer(name: string, port: number, servers: Server[], prefix = '/v2/'): Peer {
  return {
    name,
    port,
    servers,
    prefix,
    stop: async () => {
      for (const server of servers) await server.stop();
    },
  };
}

/** (a) nginx terminating TLS in front of docker-registry as a pull-through proxy. */
export async function nginxAndRegistry(bench: Bench, name: string, origin: string): Promise<Peer> {
  const [registry, inner] = await distribution(bench, `${name}-registry`, origin, {
    command: 'docker-registry',
    tls: false,
  });
  const port = await freePort();
  const http = `
  access_log off;
  upstream registry { server 127.0.0.1:${inner}; keepalive 64; }
  server { listen 127.0.0.1:${port} ssl http2; ssl_certificate ${bench.cert}; ssl_certificate_key ${bench.key};
    ${NGINX_TLS} client_max_body_size 0;
    location /v2/ { proxy_pass http://registry; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto https; proxy_read_timeout 900; }
  }`;
  const front = await nginx(bench, `${name}-nginx`, http, port);
  return peer('(a) nginx + registry', port, [front, registry]);
}

/** (b) docker-registry, or another version of it, as a pull-through proxy, terminating TLS itself. */
export async function registryAlone(
  bench: Bench,
  name: string,
  origin: string,
  command = 'docker-registry',
): Promise<Peer> {
  const [registry, port] = await distribution(bench, name, origin, { command, tls: true });
  return peer('(b) registry', port, [registry]);
}

/** (c) nginx serving the very files over TLS: the practical limit of this machine. */
export async function nginxStatic(bench: Bench, name: string, root: string): Promise<Peer> {
  const port = await freePort();
  const http = `
  access_log off;
  server { listen 127.0.0.1:${port} ssl http2; ssl_certificate ${bench.cert}; ssl_certificate_key ${bench.key};
    ${NGINX_TLS} ${STATIC_REGISTRY(root)}
  }`;
  return peer('(c) nginx static', port, [await nginx(bench, name, http, port)]);
}

export interface GatewayOptions {
  readonly workers?: number;
  readonly cpus?: string;
  /** A data directory that is filled already. */
  readonly dataDir?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Endpoints of other registries, by host. */
  readonly registries?: Readonly<Record<string, string>>;
}

/** The host that the gateway knows the origin by. */
export const ORIGIN_HOST = 'origin.test';

/** The program as people run it from a checkout. */
export const GATEWAY = gatewayOf(join(import.meta.dirname, '../..'));

/** That of another checkout. */
export function gatewayOf(checkout: string): string {
  return join(checkout, 'scripts/gateway');
}

/** Where the gateway keeps its data and listens, and how it runs in every scenario: in one process, on no other ports, with its access log. */
export function gatewaySettings(
  dataDir: string,
  { https, http }: { readonly https: number; readonly http: number },
): Record<string, string> {
  return {
    GATEWAY_DATA_DIR: dataDir,
    // No command is to find it in place of the machine's own.
    RUNTIME_DIRECTORY: `${dataDir}-run`,
    GATEWAY_LISTEN_HTTPS: `127.0.0.1:${https}`,
    GATEWAY_LISTEN_HTTP: `127.0.0.1:${http}`,
    GATEWAY_LISTEN_WORKERS: '1',
    GATEWAY_METRICS_LISTEN: 'off',
    GATEWAY_LOG_LEVEL: 'info',
  };
}

/** CPU seconds that a peer has spent so far. */
export function cpuOf(peer: Peer): number {
  return peer.servers.reduce((total, server) => total + server.cpu(), 0);
}

/** The gateway from this checkout, its own TLS under the internal CA. */
export async function gateway(bench: Bench, name: string, origin: string, options: GatewayOptions = {}): Promise<Peer> {
  const dataDir = options.dataDir ?? join(bench.dir, name);
  const [port, http] = [await freePort(), await freePort()];
  const env = {
    ...process.env,
    ...gatewaySettings(dataDir, { https: port, http }),
    ...(options.workers === undefined ? {} : { GATEWAY_LISTEN_WORKERS: String(options.workers) }),
    ...options.env,
  };
  const registries = Object.entries({ [ORIGIN_HOST]: origin, ...options.registries });
  await makeDataDirectory(
    env,
    registries.map(([host, endpoint]) => ['registry.set', { host, endpoints: [endpoint], check: false }]),
  );
  const server = await Server.start({
    command: GATEWAY,
    args: ['serve'],
    port,
    env,
    cwd: bench.dir,
    ...(options.cpus === undefined ? {} : { cpus: options.cpus }),
  });
  return peer('gateway', port, [server], `/v2/${ORIGIN_HOST}/`);
}
