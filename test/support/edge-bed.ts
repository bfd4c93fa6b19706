import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SecureContext } from 'node:tls';
import { isUnlisted } from '../../src/aliases/discretion.ts';
import type { AliasEntry, RegistryEntry, TableSnapshot } from '../../src/aliases/table.ts';
import { contextOf } from '../../src/certs/contexts.ts';
import { InternalCa, openInternalRoot } from '../../src/certs/internal-ca.ts';
import type { CertificateService } from '../../src/certs/service.ts';
import { Edge, type EdgeOptions } from '../../src/edge/edge.ts';
import type { EdgeAddresses } from '../../src/edge/listeners.ts';
import type { AccessPort } from '../../src/edge/request-context.ts';
import type { ByteSource } from '../../src/kit/byte-source.ts';
import type { ProxyCore, Pull, Reply } from '../../src/proxy/reply.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';

const LOOPBACK = { host: '127.0.0.1', port: 0 };

export function snapshotOf(
  domain: string,
  registries: readonly string[],
  aliases: Record<string, string>,
): TableSnapshot {
  const entries = Object.entries(aliases).map(
    ([name, registry]): AliasEntry => ({
      name,
      host: name.includes('.') ? name : `${name}.${domain}`,
      registry,
      certificate: true,
    }),
  );
  return {
    domain,
    registries: new Map(registries.map((host): [string, RegistryEntry] => [host, registryEntry(host)])),
    aliases: new Map(entries.map((entry) => [entry.name, entry])),
    hosts: new Map(entries.map((entry) => [entry.host, entry])),
  };
}

function registryEntry(host: string): RegistryEntry {
  return {
    host,
    endpoints: [`https://${host}`],
    proxy: null,
    credentials: null,
    public: false,
    realms: [],
    named: [],
    ca: null,
  };
}

/** Certificates of a local CA, with everything that the edge reads in a test's hands. */
export class TestCertificates {
  readonly #ca: InternalCa;
  byHost = new Map<string, SecureContext>();
  fallback: SecureContext | null = null;
  readonly challenges = new Map<string, SecureContext>();
  readonly tokens = new Map<string, string>();

  constructor(dataDir: string) {
    this.#ca = new InternalCa(openInternalRoot(dataDir), Date.now);
  }

  get root(): string {
    return this.#ca.root.pem;
  }

  context(...names: [string, ...string[]]): SecureContext {
    return contextOf(this.#ca.renew(names));
  }

  /** New certificates for these hosts, in a new map: a swap. */
  cover(hosts: readonly string[]): void {
    this.byHost = new Map(hosts.map((host) => [host, this.context(host)]));
  }

  service(): CertificateService {
    const challenges = () => this.challenges;
    const part: Pick<CertificateService, 'contexts' | 'httpChallenge' | 'alpnChallenges'> = {
      contexts: () => ({ byHost: this.byHost, fallback: this.fallback }),
      httpChallenge: (token) => this.tokens.get(token) ?? null,
      get alpnChallenges() {
        return challenges();
      },
    };
    return part as CertificateService;
  }
}

function emptyManifest(): Reply {
  return {
    status: 200,
    headers: { 'content-type': 'application/json', 'content-length': '2' },
    body: Buffer.from('{}'),
    from: 'cache',
  };
}

/** Answers what a test says, and remembers what was asked. */
export class TestRegistry implements ProxyCore {
  readonly pulls: Pull[] = [];
  answer: (pull: Pull) => Reply | Promise<Reply> = emptyManifest;

  reset(): void {
    this.pulls.splice(0);
    this.answer = emptyManifest;
  }

  async serve(pull: Pull): Promise<Reply> {
    this.pulls.push(pull);
    const reply = await this.answer(pull);
    return pull.method === 'HEAD' ? { ...reply, body: null } : reply;
  }
}

/** A body of `length` bytes where byte i is i mod 251, of which `cutAt` come before `error` is thrown. */
export class PatternSource implements ByteSource {
  readonly length: number | undefined;
  readonly #size: number;
  readonly #cutAt: number;
  readonly #error: Error | undefined;
  at = 0;
  closed = false;
  /** Awaited before each piece. */
  gate: (() => Promise<void>) | null = null;

  constructor(size: number, options: { lengthKnown?: boolean; cutAt?: number; error?: Error } = {}) {
    this.#size = size;
    this.length = options.lengthKnown === false ? undefined : size;
    this.#cutAt = options.cutAt ?? size;
    this.#error = options.error;
  }

  async pull(into: Uint8Array): Promise<number> {
    await this.gate?.();
    if (this.closed) return 0;
    const count = Math.min(into.length, this.#cutAt - this.at);
    if (count === 0 && this.#error !== undefined) throw this.#error;
    for (let index = 0; index < count; index++) into[index] = (this.at + index) % 251;
    this.at += count;
    return count;
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  get size(): number {
    return this.#size;
  }
}

export const openAccess: AccessPort = {
  check: () => ({ user: null, authenticated: false, known: false, client: '192.0.2.1' }),
  quota: null,
};

export interface EdgeBed {
  readonly edge: Edge;
  readonly addresses: EdgeAddresses;
  readonly certificates: TestCertificates;
  readonly registry: TestRegistry;
  readonly metrics: Metrics;
  /** Replaced whole, as the gateway does. */
  table: TableSnapshot;
  readonly httpsPort: number;
  readonly httpPort: number;
  readonly metricsPort: number;
  stop(): Promise<void>;
}

/** An edge on free ports of 127.0.0.1, before a proxy core in the test's hands. */
export async function startEdgeBed(
  options: Partial<Omit<EdgeOptions, 'config'>> & { config?: Partial<EdgeOptions['config']> } = {},
): Promise<EdgeBed> {
  const dataDir = mkdtempSync(join(tmpdir(), 'edge-bed-'));
  const certificates = new TestCertificates(dataDir);
  certificates.cover(['localhost', 'hub.localhost', 'k8s-gcr.localhost', 'cr.example.com']);
  certificates.fallback = certificates.context('127.0.0.1');
  const registry = new TestRegistry();
  const metrics = new Metrics();
  const config: EdgeOptions['config'] = {
    dataDir,
    publicDomain: false,
    publicUrl: null,
    listen: { https: LOOPBACK, http: LOOPBACK, workers: 1 },
    tls: { mode: 'internal' },
    trustedProxies: [],
    metrics: { listen: LOOPBACK },
    limits: { connections: 1024, minRate: 1024 },
    ...options.config,
  } satisfies EdgeOptions['config'];
  const bed = {
    table: snapshotOf('localhost', ['docker.io', 'k8s.gcr.io', 'quay.io', 'localhost:5000'], {
      hub: 'docker.io',
      'k8s-gcr': 'k8s.gcr.io',
    }),
  };
  const edge = new Edge({
    table: () => bed.table,
    certificates: config.tls.mode === 'off' ? null : certificates.service(),
    proxy: registry,
    access: openAccess,
    outlines: () =>
      [...bed.table.registries.values()].map((entry) => ({
        host: entry.host,
        wellbeing: 'unknown',
        unlisted: isUnlisted(entry),
      })),
    ready: () => true,
    log: silentLog(),
    metrics,
    version: '0.0.0-test',
    pseudonym: 'registry-gateway-fedcba9876543210',
    ...options,
    config,
  });
  const addresses = await edge.listen();
  return Object.assign(bed, {
    edge,
    addresses,
    certificates,
    registry,
    metrics,
    httpsPort: addresses.https?.port ?? 0,
    httpPort: addresses.http?.port ?? 0,
    metricsPort: addresses.metrics?.port ?? 0,
    async stop() {
      await edge.close({ graceMs: 0 });
      rmSync(dataDir, { recursive: true, force: true });
    },
  });
}
