import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FakeCa } from './fake-ca/index.ts';
import { FakeRegistry } from './fake-registry/index.ts';
import { type FleetNetwork, type Machine, openFleetNetwork } from './fleet-network.ts';
import { prepareGateway, type TestGateway } from './gateway.ts';
import { PostgresServer } from './postgres.ts';
import { freePorts, type Program, processTree, startProgram } from './processes.ts';
import { programPath } from './programs.ts';

/** Domain of the fleet. */
export const FLEET_DOMAIN = 'gw.test';
const HTTPS = 8443;
const HTTP = 8080;
const CLUSTER = 7443;
/** Where Debian's faketime has its library. */
const FAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1';

export interface FleetOptions {
  readonly nodes?: number;
  /** With a store that all share. */
  readonly s3?: boolean;
  /** With certificates of a CA, of this lifetime, ms; else each node has its own local CA. */
  readonly lifetime?: number;
  /** Of each node's configuration file. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** How much the clock of each node is ahead, seconds; 0 for those left out. */
  readonly ahead?: readonly number[];
}

export interface FleetNode {
  readonly name: string;
  readonly address: string;
  readonly machine: Machine;
  readonly gateway: TestGateway;
  /** Stopped by `pause` or `kill`, or not started: nothing is expected of it. */
  state: 'running' | 'paused' | 'dead';
  /** SIGSTOP to all its processes. */
  pause(): void;
  resume(): void;
  kill(): Promise<void>;
  start(): Promise<void>;
}

export interface ObjectStore {
  readonly endpoint: string;
  readonly address: string;
  readonly port: number;
  readonly bucket: string;
  readonly accessKey: string;
  readonly secretKey: string;
  pause(): void;
  resume(): void;
}

/** Several gateways, the real program, each on a machine of its own, with one PostgreSQL and one S3 server; the registry and the CA are the test's. */
export class RealFleet {
  readonly network: FleetNetwork;
  readonly postgres: PostgresServer;
  readonly upstream: FakeRegistry;
  readonly ca: FakeCa | null;
  readonly s3: ObjectStore | null;
  readonly nodes: readonly FleetNode[];
  readonly #ends: (() => Promise<void> | void)[];

  private constructor(parts: Omit<RealFleet, 'close' | 'running'>, ends: (() => Promise<void> | void)[]) {
    this.network = parts.network;
    this.postgres = parts.postgres;
    this.upstream = parts.upstream;
    this.ca = parts.ca;
    this.s3 = parts.s3;
    this.nodes = parts.nodes;
    this.#ends = ends;
  }

  /** Everything runs but the gateways: their first start is the test's. */
  static async prepare(options: FleetOptions = {}): Promise<RealFleet> {
    const ends: (() => Promise<void> | void)[] = [];
    try {
      const count = options.nodes ?? 3;
      const network = await openFleetNetwork(count + 1);
      ends.push(() => network.close());
      const [shared, ...machines] = network.machines;
      if (shared === undefined) throw new Error('the network has no machine for what all share');
      const postgres = await PostgresServer.start({ host: shared.address, within: shared.within });
      ends.push(() => postgres.stop());
      const upstream = await FakeRegistry.start({ host: network.here });
      ends.push(() => upstream.close());
      const s3 = options.s3 === true ? await startObjectStore(shared, ends) : null;
      const ca = options.lifetime === undefined ? null : await startCa(network.here, options.lifetime, machines, ends);
      const folder = mkdtempSync(join(tmpdir(), 'fleet-'));
      ends.push(() => rmSync(folder, { recursive: true, force: true }));
      const secretFile = join(folder, 'secret');
      writeFileSync(secretFile, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
      const database = await postgres.createDatabase();
      const nodes: FleetNode[] = [];
      for (const [index, machine] of machines.entries()) {
        const node = await prepareNode(index, machine, {
          ...options,
          database,
          secretFile,
          s3,
          ca,
          password: postgres.password,
        });
        ends.push(() => node.gateway.close());
        nodes.push(node);
      }
      return new RealFleet({ network, postgres, upstream, ca, s3, nodes }, ends);
    } catch (error) {
      await endAll(ends);
      throw error;
    }
  }

  static async start(options: FleetOptions = {}): Promise<RealFleet> {
    const bed = await RealFleet.prepare(options);
    try {
      for (const node of bed.nodes) await node.start();
      return bed;
    } catch (error) {
      await bed.close();
      throw error;
    }
  }

  running(): FleetNode[] {
    return this.nodes.filter(({ state }) => state === 'running');
  }

  async close(): Promise<void> {
    for (const node of this.nodes) {
      if (node.state === 'paused') node.resume();
      await this.network.heal(node.machine).catch(() => {});
    }
    this.s3?.resume();
    await endAll(this.#ends);
  }
}

async function endAll(ends: (() => Promise<void> | void)[]): Promise<void> {
  for (const end of ends.splice(0).reverse()) await end();
}

interface NodeParts extends FleetOptions {
  readonly database: string;
  readonly password: string;
  readonly secretFile: string;
  readonly s3Store?: ObjectStore;
  readonly ca: FakeCa | null;
}

async function prepareNode(
  index: number,
  machine: Machine,
  parts: Omit<NodeParts, 's3'> & { readonly s3: ObjectStore | null },
): Promise<FleetNode> {
  const { address } = machine;
  const { s3, ca } = parts;
  const ahead = parts.ahead?.[index] ?? 0;
  const { listen, cache, ...more } = (parts.config ?? {}) as Record<string, object>;
  const gateway = await prepareGateway({
    within: machine.within,
    config: {
      domain: FLEET_DOMAIN,
      listen: { https: `${address}:${HTTPS}`, http: `${address}:${HTTP}`, workers: 1, ...listen },
      metrics: { listen: `${address}:9464` },
      database: parts.database,
      secretFile: parts.secretFile,
      cluster: { listen: `${address}:${CLUSTER}`, address: `${address}:${CLUSTER}` },
      cache: { ...cache, ...(s3 === null ? {} : { s3: s3Config(s3) }) },
      ...(ca === null
        ? {}
        : { tls: { mode: 'acme' }, acme: { issuers: [{ directory: ca.directory }], selfCheck: false } }),
      ...more,
    },
    env: {
      ...(s3 === null ? {} : { AWS_ACCESS_KEY_ID: s3.accessKey, AWS_SECRET_ACCESS_KEY: s3.secretKey }),
      ...(ahead === 0
        ? {}
        : { LD_PRELOAD: FAKETIME, FAKETIME: `${ahead > 0 ? '+' : ''}${ahead}s`, FAKETIME_DONT_FAKE_MONOTONIC: '1' }),
    },
  });
  const signal = (name: NodeJS.Signals): void => {
    for (const pid of processTree(gateway.pid())) {
      try {
        process.kill(pid, name);
      } catch {
        // It has ended meanwhile.
      }
    }
  };
  const node: FleetNode = {
    name: `node ${index + 1}`,
    address,
    machine,
    gateway,
    state: 'dead',
    pause() {
      node.state = 'paused';
      signal('SIGSTOP');
    },
    resume() {
      signal('SIGCONT');
      node.state = 'running';
    },
    async kill() {
      node.state = 'dead';
      await gateway.kill();
    },
    async start() {
      await gateway.start();
      node.state = 'running';
    },
  };
  return node;
}

function s3Config({ bucket, endpoint }: ObjectStore): Record<string, unknown> {
  return { bucket, endpoint, region: 'us-east-1', pathStyle: true };
}

/** A real S3 server over a directory. */
async function startObjectStore(machine: Machine, ends: (() => Promise<void> | void)[]): Promise<ObjectStore> {
  const folder = mkdtempSync(join(tmpdir(), 'object-store-'));
  ends.push(() => rmSync(folder, { recursive: true, force: true }));
  const bucket = 'images';
  mkdirSync(join(folder, 'data', bucket), { recursive: true });
  const [port = 0] = await freePorts(1);
  const [accessKey, secretKey] = ['fleet', randomBytes(12).toString('hex')];
  const program: Program = startProgram({
    command: programPath('versitygw'),
    args: [
      '--port',
      `${machine.address}:${port}`,
      '--access',
      accessKey,
      '--secret',
      secretKey,
      'posix',
      join(folder, 'data'),
    ],
    within: machine.within,
  });
  ends.push(() => program.end());
  await program.waitFor(new RegExp(`${machine.address}:${port}`));
  return {
    ...{ endpoint: `http://${machine.address}:${port}`, address: machine.address, port, bucket, accessKey, secretKey },
    pause: () => program.signal('SIGSTOP'),
    resume: () => program.signal('SIGCONT'),
  };
}

/** The CA looks at a challenge as at any load balancer: it reaches one node or another. */
async function startCa(
  here: string,
  lifetime: number,
  machines: readonly Machine[],
  ends: (() => Promise<void> | void)[],
): Promise<FakeCa> {
  const http = await startBalancer(machines.map(({ address }) => ({ host: address, port: HTTP })));
  const tls = await startBalancer(machines.map(({ address }) => ({ host: address, port: HTTPS })));
  const port = (server: Server): number => (server.address() as { port: number }).port;
  const ca = await new FakeCa({ ports: { http: port(http.server), tls: port(tls.server) }, lifetime }).start(0, here);
  ends.push(http.close, tls.close, () => ca.stop());
  return ca;
}

/** Gives connections to the given places in turn, to the next where one does not answer within a second. */
async function startBalancer(
  places: readonly { readonly host: string; readonly port: number }[],
): Promise<{ readonly server: Server; readonly close: () => Promise<void> }> {
  const open = new Set<Socket>();
  let turn = 0;
  const server = createServer((client) => {
    open.add(client);
    client.on('close', () => open.delete(client)).on('error', () => {});
    const attempt = (left: number): void => {
      const place = places[turn++ % places.length];
      if (place === undefined || left === 0) {
        client.destroy();
        return;
      }
      const inner = dial({ ...place, timeout: 1000 });
      inner.once('timeout', () => inner.destroy(new Error('no answer')));
      const failed = (): void => attempt(left - 1);
      inner.once('error', failed).once('connect', () => {
        inner.off('error', failed).on('error', () => client.destroy());
        inner.setTimeout(0);
        client.pipe(inner).pipe(client);
        client.once('close', () => inner.destroy());
        inner.once('close', () => client.destroy());
      });
    };
    attempt(places.length);
  });
  server.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  return {
    server,
    async close() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
