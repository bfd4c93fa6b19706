import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { linkSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { parseDigest } from '../../../src/oci/names.ts';
import { openCacheIndex } from '../../../src/sqlite/open-cache-index.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { addAliases } from '../aliases-file.ts';
import { type Image, layOut } from '../content.ts';
import { startLink } from '../link.ts';
import { type Held, MemoryLimit } from '../memory-limit.ts';
import { type Paced, PacedClients } from '../paced.ts';
import { type Bench, GATEWAY, gatewaySettings, nginxStatic, ORIGIN_HOST, Origin } from '../peers.ts';
import { CLIENT_CORE, freePort, runOver, Server } from '../process.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { MiB } from './stage.ts';
import { untilReady } from './start.ts';

/** Of the machine. */
const MEMORY = 512 * MiB;
const ALIASES = 10_000;
const BLOBS = 1_000_000;
/** Names of one file in the cache: a file system allows 65,000. */
const NAMES_OF_ONE = 50_000;
/** Rows that are put into the index between two pauses. */
const PAUSE_AFTER = 1_000;
const CLIENTS = 2_000;
/** Manifests a second, of all clients together. */
const RATE = 5_000;
const FILLS = 20;
const LAYER = 32 * MiB;
/**
 * The link that the fills share, ms and bytes a second, as such a machine has it: they are under way for longer than is measured, and the core
 * of the clients has time for those whose answers are.
 */
const ROUND_TRIP = 20;
const LINK = 16 * MiB;
/** How long it is measured at least, s: as many seconds as the gateway's own work in the background comes by in. */
const LEAST = 15;
/** Between the first of the fills and the measurement, ms. */
const SETTLE = 2_000;
/** Between two looks at the memory, ms. */
const LOOK = 100;
/** Bounds: MiB, s, ms. */
const MOST_HELD = 400;
const MOST_START = 1;
const MOST_P99 = 20;

interface Run {
  readonly start: number;
  readonly held: Held;
  readonly killed: number;
  readonly manifests: Paced;
  /** The same clients at the same pace against nginx with the same files and no fills: what the clients themselves take. */
  readonly nginx: Paced;
  /** Share of its core that the gateway used. */
  readonly cpu: number;
  /** Share of the time for which it was ready to run and did not: where that is much, the machine was busy with something else. */
  readonly waited: number;
  /** Fills that were still under way at the end. */
  readonly filling: number;
}

/**
 * 15: a machine of 512 MiB with a large table, a large index and many clients, while it fills. One process, as `listen.workers: auto` makes on the
 * one core that such machines have.
 */
export const smallMachine: Scenario = async (bench, { runs, seconds }) => {
  mkdirSync(bench.dir, { recursive: true });
  const root = join(bench.dir, 'origin');
  const warm = layOut(root, 'library/warm', 'v1', [1024]);
  const origin = await Origin.start(bench, root, CLIENT_CORE);
  const link = await startLink(origin.port, ROUND_TRIP, LINK);
  const dataDir = join(bench.dir, 'gateway');
  const hosts = await addAliases(dataDir, link.url, ALIASES);
  await fillIndex(dataDir, BLOBS);
  const measured: Run[] = [];
  try {
    // The first start makes the local CA; it is not counted.
    await stop(await start(dataDir));
    for (let run = 0; run < runs; run++) {
      const cold = layOut(
        root,
        'library/cold',
        `v${run}`,
        Array.from({ length: FILLS }, () => LAYER),
      );
      measured.push(await measure({ bench, root, dataDir, hosts, warm, cold, seconds: Math.max(LEAST, seconds) }));
      for (const { digest } of cold.layers) rmSync(join(root, 'v2/library/cold/blobs', digest));
    }
  } finally {
    await link.stop();
    await origin.server.stop();
  }
  return results(measured);
};

interface Given {
  readonly bench: Bench;
  readonly root: string;
  readonly dataDir: string;
  readonly hosts: readonly string[];
  readonly warm: Image;
  readonly cold: Image;
  readonly seconds: number;
}

async function measure({ bench, root, dataDir, hosts, warm, cold, seconds }: Given): Promise<Run> {
  const path = `/v2/${warm.repository}/manifests/${warm.tag}`;
  const crowd = { clients: CLIENTS, rate: RATE, path };
  const gateway = await start(dataDir);
  const { server, limit, port } = gateway;
  const most = { total: 0, anonymous: 0 };
  const looks = setInterval(() => {
    const { total, anonymous } = heldBy(gateway);
    most.total = Math.max(most.total, total);
    most.anonymous = Math.max(most.anonymous, anonymous);
  }, LOOK);
  try {
    // Each client asks for a name of its own.
    const asked = hosts.filter((_, index) => index % Math.floor(ALIASES / CLIENTS) === 0);
    const clients = await PacedClients.connect({ ...crowd, port, hosts: asked });
    const fills = new Fills(port, cold);
    await sleep(SETTLE, undefined, { signal: runOver });
    const [cpuBefore, waitedBefore, began] = [server.cpu(), server.waited(), performance.now()];
    const manifests = await clients.measure(seconds);
    const took = (performance.now() - began) / 1000;
    const cpu = (server.cpu() - cpuBefore) / took;
    const waited = (server.waited() - waitedBefore) / took;
    const filling = fills.running;
    await fills.end();
    await clients.end();
    if (server.child.exitCode !== null || server.child.signalCode !== null) throw new Error('the gateway has ended');
    const killed = limit?.killed() ?? 0;
    clearInterval(looks);
    return {
      start: gateway.seconds,
      held: most,
      killed,
      manifests,
      nginx: await control(),
      cpu,
      waited,
      filling,
    };
  } finally {
    clearInterval(looks);
    await stop(gateway);
  }

  async function control(): Promise<Paced> {
    const peer = await nginxStatic(bench, 'c', root);
    try {
      const clients = await PacedClients.connect({ ...crowd, port: peer.port, hosts: ['localhost'] });
      const paced = await clients.measure(seconds);
      await clients.end();
      return paced;
    } finally {
      await peer.stop();
    }
  }
}

interface Limited {
  readonly server: Server;
  readonly port: number;
  /** Null where no control group can be made. */
  readonly limit: MemoryLimit | null;
  /** From the start of the process to the first 200 of `/readyz`. */
  readonly seconds: number;
}

let groups = 0;

async function start(dataDir: string): Promise<Limited> {
  const [https, http] = [await freePort(), await freePort()];
  const limit = MemoryLimit.make(String(groups++), MEMORY);
  const began = performance.now();
  const server = await Server.start({
    ...(limit?.within(GATEWAY, 'serve') ?? { command: GATEWAY, args: ['serve'] }),
    port: http,
    env: gatewaySettings(dataDir, { https, http }),
  });
  await untilReady(http);
  return { server, port: https, limit, seconds: (performance.now() - began) / 1000 };
}

async function stop({ server, limit }: Limited): Promise<void> {
  await server.stop();
  limit?.remove();
}

/** Without a control group, what its processes hold together with the pages of the program's file. */
function heldBy({ server, limit }: Limited): Held {
  return limit?.held() ?? { total: server.resident(), anonymous: server.allocated() };
}

/** Clients that each fetch a cold layer, from an address of their own. */
class Fills {
  running = 0;
  readonly #end = new AbortController();
  readonly #ended: Promise<void>[] = [];

  constructor(port: number, image: Image) {
    const signal = AbortSignal.any([runOver, this.#end.signal]);
    for (const [index, { digest }] of image.layers.entries()) {
      const url = `https://127.0.0.1:${port}/v2/${ORIGIN_HOST}/${image.repository}/blobs/${digest}`;
      const flags = ['-sS', '--fail', '--insecure', '--http1.1', '--interface', `127.200.0.${index + 1}`];
      this.running++;
      this.#ended.push(
        new Promise((resolve) => {
          execFile('taskset', ['-c', CLIENT_CORE, 'curl', ...flags, '-o', '/dev/null', url], { signal }, (error) => {
            this.running--;
            if (error !== null && !signal.aborted) console.error(`a fill failed: ${error.message}`);
            resolve();
          });
        }),
      );
    }
  }

  async end(): Promise<void> {
    this.#end.abort();
    await Promise.all(this.#ended);
  }
}

/** An index that knows a million blobs, and their names on the disk: hard links to a few files, since nobody reads them. */
async function fillIndex(dataDir: string, count: number): Promise<void> {
  const blobs = join(dataDir, 'blobs', 'sha256');
  for (let prefix = 0; prefix < 256; prefix++) {
    mkdirSync(join(blobs, prefix.toString(16).padStart(2, '0')), { recursive: true });
  }
  const index = openCacheIndex(dataDir, silentLog());
  const now = Date.now();
  const size = 1000;
  let file = '';
  for (let number = 0; number < count; number++) {
    if (number % NAMES_OF_ONE === 0) {
      file = join(dataDir, `blobs-${number}`);
      writeFileSync(file, Buffer.alloc(size));
    }
    if (number % PAUSE_AFTER === 0) {
      // The index makes its checkpoints meanwhile. All of it takes minutes: it can be ended.
      await setImmediate();
      runOver.throwIfAborted();
    }
    const hex = createHash('sha256').update(`blob ${number}`).digest('hex');
    const digest = parseDigest(`sha256:${hex}`);
    if (digest === null) throw new Error('no digest');
    linkSync(file, join(blobs, hex.slice(0, 2), hex));
    index.addBlob({ digest, size, created: now - number, lastUse: now - number });
  }
  index.close();
}

function results(runs: readonly Run[]): Result[] {
  const figure = (name: string, unit: string, values: readonly number[], bound?: number, note?: string): Result => ({
    scenario: `15  ${MEMORY / MiB} MiB of memory, ${ALIASES} aliases, an index of ${BLOBS} blobs, ${CLIENTS} clients, ${FILLS} fills`,
    figure: name,
    unit,
    better: 'less',
    ours: { peer: 'gateway', values },
    peers: [],
    ...(bound === undefined ? {} : { bound }),
    ...(note === undefined ? {} : { note }),
  });
  const least = Math.min(...runs.map(({ filling }) => filling));
  return [
    figure(
      'killed for want of memory',
      'processes',
      runs.map(({ killed }) => killed),
      0,
    ),
    figure(
      'most that is held, without pages of files',
      'MiB',
      runs.map(({ held }) => held.total),
      MOST_HELD,
    ),
    figure(
      'most that its processes allocated',
      'MiB',
      runs.map(({ held }) => held.anonymous),
    ),
    {
      ...figure(
        `manifests at ${RATE} a second, p99`,
        'ms',
        runs.map(({ manifests }) => manifests.p99),
        MOST_P99,
      ),
      peers: [{ series: { peer: '(c) nginx static, no fills', values: runs.map(({ nginx }) => nginx.p99) } }],
      note: `the longest took ${Math.max(...runs.map(({ manifests }) => manifests.most)).toFixed(0)} ms, the clients were ${Math.max(...runs.map(({ manifests }) => manifests.late)).toFixed(0)} ms late at most and used ${Math.round(100 * Math.max(...runs.map(({ manifests }) => manifests.busy)))} % of their core; of ${FILLS} fills at least ${least} were under way to the end; the gateway used at most ${Math.round(100 * Math.max(...runs.map(({ cpu }) => cpu)))} % of its core and waited for it for ${Math.round(100 * Math.max(...runs.map(({ waited }) => waited)))} % of the time`,
    },
    figure(
      'manifests that failed',
      'requests',
      runs.map(({ manifests }) => manifests.failed),
      0,
    ),
    figure(
      'start to ready',
      's',
      runs.map(({ start: seconds }) => seconds),
      MOST_START,
    ),
  ];
}
