import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createNetServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer, TLSSocket } from 'node:tls';
import { onTestFinished } from 'vitest';
import { createIssuers } from '../../src/acme/issuer.ts';
import type { Challenges } from '../../src/certs/challenges.ts';
import { ACME_TLS, peekClientHello } from '../../src/certs/client-hello.ts';
import { type Certificates, createCertificates } from '../../src/certs/create.ts';
import type { DnsZones } from '../../src/certs/dns-01.ts';
import type { CoveredHost, Step } from '../../src/certs/service.ts';
import type { CertStore } from '../../src/certs/store.ts';
import type { ChallengeType, IssuerConfig } from '../../src/config/config.ts';
import type { Locks } from '../../src/kit/locks.ts';
import { SqliteCertStore } from '../../src/sqlite/cert-store.ts';
import { SqliteChallenges } from '../../src/sqlite/challenge-store.ts';
import { type Database, openDatabase } from '../../src/sqlite/database.ts';
import { SqliteLocks } from '../../src/sqlite/locks.ts';
import { gatewayMigrations } from '../../src/sqlite/migrations/gateway.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { TestClock } from './clock.ts';

export interface RigOptions {
  readonly issuers: readonly (Partial<IssuerConfig> & { directory: string })[];
  readonly challenges?: readonly ChallengeType[];
  readonly selfCheck?: boolean;
  readonly resolvers?: readonly string[];
  readonly clock?: TestClock;
  /** Where the self-check looks; the listeners of this rig without it. */
  readonly ports?: { readonly http: number; readonly https: number };
  /** Makes this rig a second node over the database of another. */
  readonly beside?: CertificateRig;
  /** Where dns-01 is answered. */
  readonly zones?: DnsZones;
  readonly wildcard?: boolean;
  /** In place of the database's. */
  readonly locks?: Locks;
  /** See `createCertificates`. */
  readonly published?: () => Promise<void>;
  /** In place of a database of this rig's own. */
  readonly stores?: { readonly certificates: CertStore; readonly challenges: Challenges; readonly locks: Locks };
}

/** What a provider is told; the rig is given zones in its place. */
const NO_DNS = {
  server: null,
  algorithm: 'hmac-sha256',
  keyId: null,
  secret: null,
  secretFile: null,
  program: null,
  endpoint: null,
  propagationTimeout: 120_000,
} as const;

/** Two small listeners that answer challenges as the edge does: enough for a CA to validate against. */
export async function openListeners() {
  let current: Certificates | null = null;
  const http = createServer((request, response) => {
    const content = current?.httpChallenge(request.url?.split('/').at(-1) ?? '') ?? null;
    response.writeHead(content === null ? 404 : 200).end(content ?? '');
  }).listen(0, '127.0.0.1');
  const ordinary = createTlsServer({
    SNICallback: (name, done) => done(null, current?.contexts().byHost.get(name.toLowerCase())),
  });
  ordinary.on('secureConnection', (socket) => socket.end());
  ordinary.on('tlsClientError', () => {});
  const sockets = new Set<Socket>();
  const tls = createNetServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => {});
    let seen = Buffer.alloc(0);
    const look = (chunk: Buffer): void => {
      seen = Buffer.concat([seen, chunk]);
      const peeked = peekClientHello(seen);
      if (peeked.state === 'more') return;
      socket.off('data', look).pause();
      socket.unshift(seen);
      const hello = peeked.state === 'hello' ? peeked.hello : null;
      const context = hello?.protocols.includes(ACME_TLS) ? current?.alpnChallenges.get(hello.serverName ?? '') : null;
      if (context) {
        const wrapped = new TLSSocket(socket, { isServer: true, secureContext: context, ALPNProtocols: [ACME_TLS] });
        wrapped.on('error', () => {}).on('secure', () => wrapped.end());
      } else ordinary.emit('connection', socket);
    };
    socket.on('data', look);
  }).listen(0, '127.0.0.1');
  await Promise.all([once(http, 'listening'), once(tls, 'listening')]);
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    http.closeAllConnections();
    await Promise.all([new Promise((done) => http.close(done)), new Promise((done) => tls.close(done))]);
  });
  const port = (server: { address(): unknown }) => (server.address() as AddressInfo).port;
  return {
    ports: { http: port(http), tls: port(tls) },
    serve(service: Certificates): void {
      current = service;
    },
  };
}

/** The certificate service in `acme` mode on a real database, with a clock of the test's own; ends with the test. */
export class CertificateRig {
  readonly clock: TestClock;
  readonly #options: RigOptions;
  #wildcard: boolean;
  readonly #listeners: Awaited<ReturnType<typeof openListeners>>;
  readonly #directory: string;
  #database: Database | undefined;
  #service: Certificates | undefined;
  #store: CertStore | undefined;
  #metrics = new Metrics();

  static async open(
    listeners: Awaited<ReturnType<typeof openListeners>>,
    options: RigOptions,
  ): Promise<CertificateRig> {
    const rig = new CertificateRig(listeners, options);
    await rig.#open();
    return rig;
  }

  private constructor(listeners: Awaited<ReturnType<typeof openListeners>>, options: RigOptions) {
    this.clock = options.clock ?? new TestClock();
    this.#options = options;
    this.#wildcard = options.wildcard ?? false;
    this.#listeners = listeners;
    this.#directory =
      options.beside === undefined ? mkdtempSync(join(tmpdir(), 'certificates-')) : options.beside.#directory;
    onTestFinished(async () => {
      await this.stop();
      if (options.beside === undefined) rmSync(this.#directory, { recursive: true, force: true });
    });
  }

  get service(): Certificates {
    if (this.#service === undefined) throw new Error('the rig is stopped');
    return this.#service;
  }

  get store(): CertStore {
    if (this.#store === undefined) throw new Error('the rig is stopped');
    return this.#store;
  }

  metrics(): Promise<string> {
    return this.#metrics.text();
  }

  /** Covers the hosts, and lets the background begin. */
  async start(...hosts: (string | CoveredHost)[]): Promise<void> {
    await this.service.start(hosts.map((host) => (typeof host === 'string' ? { host, order: true } : host)));
    this.clock.advance(1_000);
  }

  /** One attempt for a person; the steps they saw, and the error. */
  async obtain(host: string, force = false): Promise<{ steps: Step[]; error: (Error & { next?: string }) | null }> {
    const steps: Step[] = [];
    try {
      await this.service.obtain(host, { onStep: (step) => steps.push(step), force });
      return { steps, error: null };
    } catch (error) {
      return { steps, error: error as Error };
    }
  }

  /** As after a kill: nothing of the old process is left but the database. */
  async restart(...hosts: (string | CoveredHost)[]): Promise<void> {
    await this.stop();
    await this.#open();
    await this.start(...hosts);
  }

  async stop(): Promise<void> {
    await this.#service?.close();
    if (this.#options.beside === undefined) this.#database?.close();
    this.#service = this.#database = this.#store = undefined;
  }

  /** As after a reload with another `acme.wildcard`. */
  useWildcard(wildcard: boolean): void {
    this.#wildcard = wildcard;
    const address = { host: '127.0.0.1', port: 0 };
    const listen = { http: address, https: address, workers: 1 };
    this.service.reconfigure({ listen, acme: this.#acme() }, this.#options.zones ?? null);
  }

  #acme() {
    const { issuers, challenges, selfCheck, resolvers, zones } = this.#options;
    return {
      email: null,
      issuers: issuers.map(({ directory, caFile = null, eab = null, profile = null }) => ({
        directory,
        caFile,
        eab,
        profile,
      })),
      challenges: challenges ?? ['http-01', 'tls-alpn-01'],
      selfCheck: selfCheck ?? false,
      resolvers: resolvers ?? [],
      dns: { ...NO_DNS, provider: zones === undefined ? null : ('exec' as const) },
      wildcard: this.#wildcard,
    };
  }

  async #open(): Promise<void> {
    const { beside, ports } = this.#options;
    const shared = beside === undefined ? undefined : beside.#database;
    const database =
      shared ?? openDatabase(join(this.#directory, 'gateway.db'), gatewayMigrations, { durability: 'normal' });
    const { stores } = this.#options;
    const store = stores?.certificates ?? new SqliteCertStore(database);
    const locks = this.#options.locks ?? stores?.locks ?? new SqliteLocks(database);
    this.#database = database;
    this.#store = store;
    this.#metrics = new Metrics();
    const acme = this.#acme();
    const address = { host: '127.0.0.1', port: 0 };
    const service = await createCertificates({
      config: {
        domain: 'gw.test',
        dataDir: this.#directory,
        listen: { http: address, https: address, workers: 1 },
        tls: { mode: 'acme' },
        acme,
      },
      store,
      challenges: stores?.challenges ?? new SqliteChallenges(database),
      zones: this.#options.zones ?? null,
      locks,
      log: silentLog(),
      metrics: this.#metrics,
      issuers: createIssuers(acme, store, locks),
      ...(this.#options.published === undefined ? {} : { published: this.#options.published }),
      clock: this.clock,
      ports: ports ?? { http: this.#listeners.ports.http, https: this.#listeners.ports.tls },
    });
    if (service === null) throw new Error('no service');
    this.#service = service;
    this.#listeners.serve(service);
  }
}
