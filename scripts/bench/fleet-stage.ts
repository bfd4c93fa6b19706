import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Node } from '../../src/cluster/nodes.ts';
import { POSTGRES, PostgresServer } from '../../test/support/postgres.ts';
import { missing, programPath } from '../../test/support/programs.ts';
import { type Bench, GATEWAY, gatewaySettings, ORIGIN_HOST, type Peer, peer } from './peers.ts';
import { CLIENT_CORE, command, freePort, runOver, Server } from './process.ts';

/** Until nodes that have begun to listen are among those that live, ms. */
const JOINED_WITHIN = 60_000;

/** An S3 server over a directory, and its bucket. */
export interface Store {
  readonly port: number;
  readonly bucket: string;
  readonly keys: { readonly AWS_ACCESS_KEY_ID: string; readonly AWS_SECRET_ACCESS_KEY: string };
  /** Requests that it has answered. */
  readonly accessLog: string;
  readonly server: Server;
  /** Whether an object of so many bytes is complete. */
  has(key: string, size: number): boolean;
}

/** Several gateways and what they share; nodes are started and stopped one by one. Database and store are on the clients' core. */
export interface FleetStage {
  readonly postgres: PostgresServer;
  /** The database that the nodes share. */
  readonly database: string;
  readonly store: Store;
  /**
   * On a data directory of its own, empty at its first start.
   * @param storePort where it reaches the store: at a link's near end, for one
   */
  node(name: string, storePort?: number): Promise<Peer>;
  /** Resolves once they all live: as they know each other, in the order in which they are given. */
  known(nodes: readonly Peer[]): Promise<Node[]>;
  /** Ends nodes, and removes what they have kept. To those that are started later it is as if they had never heard of them. */
  remove(nodes: readonly Peer[]): Promise<void>;
  stop(): Promise<void>;
}

/** Programs that a fleet needs and this machine lacks, in words. */
export function lackingForFleet(): string[] {
  return missing([...POSTGRES, 'versitygw']);
}

export async function fleetStage(bench: Bench, upstream: string): Promise<FleetStage> {
  mkdirSync(bench.dir, { recursive: true });
  const secret = join(bench.dir, 'secret');
  writeFileSync(secret, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
  const postgres = await PostgresServer.start();
  let store: Store | null = null;
  try {
    const database = await postgres.createDatabase();
    store = await startStore(bench);
    return withNodes(bench, { upstream, secret, postgres, database, store });
  } catch (error) {
    await store?.server.stop();
    await postgres.stop();
    throw error;
  }
}

interface Shared extends Pick<FleetStage, 'postgres' | 'database' | 'store'> {
  readonly upstream: string;
  /** File of the key of all secrets. */
  readonly secret: string;
}

function withNodes(bench: Bench, { upstream, secret, postgres, database, store }: Shared): FleetStage {
  const addresses = new Map<Peer, string>();
  let isNew = true;
  return {
    postgres,
    database,
    store,
    async node(name, storePort = store.port) {
      const dataDir = join(bench.dir, name);
      const [https, http] = [await freePort(), await freePort()];
      const address = `127.0.0.1:${await freePort()}`;
      const env = {
        ...process.env,
        ...gatewaySettings(dataDir, { https, http }),
        ...{ GATEWAY_DATABASE: database, GATEWAY_SECRET_FILE: secret, ...store.keys },
        GATEWAY_CLUSTER_ADDRESS: address,
        GATEWAY_CLUSTER_LISTEN: address,
        GATEWAY_CACHE_S3_BUCKET: store.bucket,
        GATEWAY_CACHE_S3_ENDPOINT: `http://127.0.0.1:${storePort}`,
        GATEWAY_CACHE_S3_PATH_STYLE: 'true',
      };
      const server = await Server.start({ command: GATEWAY, args: ['serve'], port: https, env, cwd: bench.dir });
      if (isNew) {
        isNew = false;
        const args = ['registry', 'set', ORIGIN_HOST, '--endpoint', upstream, '--no-check'];
        await command(GATEWAY, ['--data-dir', dataDir, ...args]);
      }
      const node = peer(name, https, [server], `/v2/${ORIGIN_HOST}/`);
      addresses.set(node, address);
      return node;
    },
    async known(nodes) {
      const deadline = Date.now() + JOINED_WITHIN;
      for (;;) {
        const rows = await postgres.query('SELECT id, address, version FROM nodes WHERE live', database);
        const live = rows.map((row): Node => {
          const [id = '', address = '', version = ''] = row.split('|');
          return { id, address, version, draining: false };
        });
        const found = nodes.flatMap((node) => live.find(({ address }) => address === addresses.get(node)) ?? []);
        if (found.length === nodes.length) return found;
        if (Date.now() > deadline)
          throw new Error(`only ${found.length} of ${nodes.length} nodes live, as the database has it`);
        await sleep(100, undefined, { signal: runOver });
      }
    },
    async remove(nodes) {
      await Promise.all(nodes.map((node) => node.stop()));
      await postgres.query('DELETE FROM nodes', database);
      for (const { name } of nodes) rmSync(join(bench.dir, name), { recursive: true, force: true });
    },
    async stop() {
      await store.server.stop();
      await postgres.stop();
    },
  };
}

async function startStore(bench: Bench): Promise<Store> {
  const bucket = 'images';
  const folder = join(bench.dir, 'objects');
  mkdirSync(join(folder, bucket), { recursive: true });
  const port = await freePort();
  const keys = { AWS_ACCESS_KEY_ID: 'bench', AWS_SECRET_ACCESS_KEY: randomBytes(12).toString('hex') };
  const accessLog = join(bench.dir, 'store.log');
  const credentials = ['--access', keys.AWS_ACCESS_KEY_ID, '--secret', keys.AWS_SECRET_ACCESS_KEY];
  const server = await Server.start({
    command: programPath('versitygw'),
    args: ['--port', `127.0.0.1:${port}`, ...credentials, '--access-log', accessLog, 'posix', folder],
    port,
    cpus: CLIENT_CORE,
  });
  const has = (key: string, size: number): boolean => {
    const file = join(folder, bucket, key);
    return existsSync(file) && statSync(file).size === size;
  };
  return { port, bucket, keys, accessLog, server, has };
}
