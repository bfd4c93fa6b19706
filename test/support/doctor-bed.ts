import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { UserInfo } from '../../src/access/users.ts';
import type { Check } from '../../src/admin/contract.ts';
import { examine } from '../../src/admin/doctor/doctor.ts';
import { type Surroundings, THIS_MACHINE } from '../../src/admin/doctor/surroundings.ts';
import type { LiveGateway, OperationsDeps } from '../../src/admin/operation.ts';
import type { AliasEntry, RegistryEntry } from '../../src/aliases/table.ts';
import type { CertificateInfo } from '../../src/certs/service.ts';
import { type DnsRecords, dnsServer } from './dns-server.ts';
import { makeTestCa } from './test-ca.ts';

export const DOMAIN = 'gw.example.com';
export const ALIAS = `hub.${DOMAIN}`;
const PSEUDONYM = 'registry-gateway-0123456789abcdef';
const DAY = 86_400_000;

/** What is planted; everything that is not said is as it should be. */
export interface Plant {
  readonly users?: readonly UserInfo[];
  readonly config?: Record<string, unknown>;
  readonly dns?: DnsRecords;
  /** The machine's DNS servers, of which one may be that with these records. */
  readonly servers?: (well: string) => readonly string[];
  readonly registries?: readonly (Partial<RegistryEntry> & { host: string; endpoints: readonly string[] })[];
  readonly certificates?: readonly (Partial<CertificateInfo> & { host: string })[];
  readonly issuers?: readonly { name: string; directory: string; detail: string }[];
  /** Files under /proc and the cgroup, by their paths there. */
  readonly machine?: Readonly<Record<string, string>>;
  readonly live?: Partial<LiveGateway> | null;
  /** Nothing listens on the port of HTTPS. */
  readonly closed?: boolean;
}

const ca = makeTestCa();

/** A gateway with ACME whose domain leads to 127.0.0.1, where it answers: a machine on which all is well, but for what is planted. */
export async function plant(faults: Plant): Promise<Check[]> {
  const folder = mkdtempSync(join(tmpdir(), 'doctor-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const machine = {
    'proc/meminfo': 'MemTotal:       8000000 kB\nMemAvailable:   4000000 kB\n',
    'proc/net/route': 'Iface\tDestination\tGateway\neth0\t00000000\t0100000A\n',
    [`proc/${process.pid}/limits`]: 'Max open files            65536                65536                files\n',
    'cgroup/memory.max': 'max\n',
    ...faults.machine,
  };
  for (const [file, text] of Object.entries(machine)) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), text);
  }
  const dataDir = join(folder, 'data');
  mkdirSync(dataDir, { mode: 0o700 });
  const ports = await gatewayAt('127.0.0.1', faults.closed === true);
  const records = { [DOMAIN]: { A: '127.0.0.1' }, [ALIAS]: { A: '127.0.0.1' }, ...faults.dns };
  const around: Surroundings = {
    ...THIS_MACHINE,
    servers: () => faults.servers?.(server) ?? [server],
    hostsFile: '/dev/null',
    proc: join(folder, 'proc'),
    cgroup: join(folder, 'cgroup'),
    ports,
  };
  const server = await dnsServer(records);
  const registries = faults.registries ?? [];
  const rows = registries.map((row): [string, RegistryEntry] => [
    row.host,
    { proxy: null, credentials: null, public: false, realms: [], named: [], ca: null, ...row },
  ]);
  const hosts = new Map<string, AliasEntry>([
    [ALIAS, { name: 'hub', host: ALIAS, registry: 'docker.io', certificate: true }],
  ]);
  const deps = {
    config: {
      domain: DOMAIN,
      publicDomain: true,
      publicUrl: null,
      dataDir,
      listen: {
        https: { host: undefined, port: ports.https },
        http: { host: undefined, port: ports.http },
        workers: 1,
      },
      metrics: { listen: null },
      tls: { mode: 'acme' },
      trustedProxies: [],
      acme: { resolvers: [], challenges: ['http-01'], issuers: [] },
      cache: { minFree: 0 },
      policy: { images: [], cooldown: null, cooldownImages: [] },
      access: { anonymous: null, allow: [], deny: [] },
      limits: { connections: 1024 },
      upstream: { proxy: null, caFile: null, stallTimeout: 2_000, connections: 1 },
      ...faults.config,
    },
    pseudonym: PSEUDONYM,
    table: { snapshot: () => ({ registries: new Map(rows), hosts }), conflicts: () => [] },
    certificates: certificatesOf(faults),
    users: {
      count: faults.users?.length ?? 0,
      everAdded: faults.users !== undefined,
      list: async () => faults.users ?? [],
    },
    shared: null,
    live: faults.live === null ? null : { ...liveAt(ports), ...faults.live },
  } as unknown as OperationsDeps;
  return await examine(deps, around, new AbortController().signal);
}

function certificatesOf({
  certificates = [],
  issuers = [],
}: Plant): Partial<NonNullable<OperationsDeps['certificates']>> {
  const rows = [DOMAIN, ALIAS].map(
    (host): CertificateInfo => ({
      host,
      state: 'valid',
      issuer: 'Test CA',
      serial: '01',
      notBefore: new Date(Date.now() - 10 * DAY).toISOString(),
      notAfter: new Date(Date.now() + 80 * DAY).toISOString(),
      lastError: null,
      nextAttempt: new Date(Date.now() + 50 * DAY).toISOString(),
      ...certificates.find((row) => row.host === host),
    }),
  );
  return {
    list: () => rows,
    info: (host) => rows.find((row) => row.host === host) ?? null,
    warnings: () => [],
    root: () => null,
    dnsProvider: () => null,
    issuers: () =>
      issuers.map(({ name, directory, detail }) => ({
        name,
        directory,
        clockSkew: () => null,
        check: async () => ({ type: 'network', detail, next: 'check the way out to the internet' }),
      })),
  };
}

function liveAt({ http: plain, https: secure }: { http: number; https: number }): Partial<LiveGateway> {
  return {
    pid: process.pid,
    addresses: { https: [`127.0.0.1:${secure}`], http: [`127.0.0.1:${plain}`], metrics: null },
    probe: async () => ({ status: 200, serial: '01' }),
    upstream: { budgets: () => [] } as unknown as LiveGateway['upstream'],
  };
}

/** Answers as the gateway does to a request that has passed it: 508. */
const own: http.RequestListener = (request, response) => {
  response.writeHead(request.headers.via?.includes(PSEUDONYM) ? 508 : 200).end('{}');
};

async function gatewayAt(address: string, closed: boolean): Promise<{ http: number; https: number }> {
  const secure = await listening(https.createServer(ca.issue([DOMAIN, ALIAS]), own), address);
  const plain = await listening(http.createServer(own), address);
  if (closed) await new Promise((done) => secure.server.close(done));
  return { http: plain.port, https: secure.port };
}

/** A port on which nothing listens. */
export async function closedPort(): Promise<number> {
  const { server, port } = await listening(createServer(), '127.0.0.1');
  await new Promise((done) => server.close(done));
  return port;
}

export async function listening(
  server: Server,
  address = '127.0.0.1',
  port = 0,
): Promise<{ server: Server; port: number }> {
  server.listen(port, address);
  await once(server, 'listening');
  onTestFinished(() => new Promise<void>((done) => (server.listening ? server.close(() => done()) : done())));
  return { server, port: (server.address() as AddressInfo).port };
}
