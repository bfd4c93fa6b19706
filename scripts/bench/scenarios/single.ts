import { mkdirSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { layOut } from '../content.ts';
import { fetchOnce, wrkInSlices } from '../load.ts';
import {
  type Bench,
  cpuOf,
  GATEWAY,
  gatewayOf,
  gatewaySettings,
  ORIGIN_HOST,
  Origin,
  type Peer,
  peer,
} from '../peers.ts';
import { CLIENT_CORE, command, freePort, runOver, Server } from '../process.ts';
import type { Result, Series } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { imagePaths, MiB, url } from './stage.ts';
import { untilReady } from './start.ts';

/** A checkout of another commit, its packages installed, that this one is measured against: the one before there were fleets, for one. */
const BEFORE = process.env.GATEWAY_BENCH_BEFORE;
/** Packages that only a fleet has a use for. */
const FLEETS = /\/node_modules\/(pg|pg-[\w-]+|@aws-sdk|@smithy)\//;
/** Rooms of the gateway that only a fleet has a use for. */
const ROOMS = /\/src\/(postgres|s3)\//;
/** Until what was allocated for the start is given back, ms. */
const RESTS = 5_000;
/** Nothing is slower: as far as a run can tell. */
const GOAL = 0.97;

interface Checkout {
  readonly name: string;
  readonly program: string;
}

/** single: what fleets cost those who have one machine, SQLite and a disk. */
export const single: Scenario = async (bench, { runs, seconds }) => {
  mkdirSync(bench.dir, { recursive: true });
  const ours: Checkout = { name: 'gateway', program: GATEWAY };
  const checkouts = [ours, ...(BEFORE === undefined ? [] : [{ name: 'before', program: gatewayOf(BEFORE) }])];
  const root = join(bench.dir, 'origin');
  const image = layOut(root, 'library/app', 'v1', [MiB]);
  const [manifest = '', blob = ''] = imagePaths(image);
  const origin = await Origin.start(bench, root, CLIENT_CORE);
  try {
    const stray = (await loadedBy(bench, ours)).filter((file) => FLEETS.test(file) || ROOMS.test(file));
    if (stray.length > 0) throw new Error(`serve on SQLite has loaded what only fleets need: ${stray.join(', ')}`);
    const start = await seriesOf(checkouts, runs, (checkout) => secondsToReady(bench, checkout));
    const peers: Peer[] = [];
    const resting: Series[] = [];
    const own: Series[] = [];
    try {
      for (const checkout of checkouts) peers.push(await serving(bench, checkout, origin.url));
      for (const one of peers) for (const path of [manifest, blob]) await fetchOnce(url(one, path));
      await sleep(RESTS, undefined, { signal: runOver });
      for (const { name, servers } of peers) {
        resting.push({ peer: name, values: servers.map((server) => server.resident()) });
        own.push({ peer: name, values: servers.map((server) => server.allocated()) });
      }
      const served = async (path: string): Promise<Series[]> => {
        const loads = peers.map((one) => ({ url: url(one, path), cpu: () => cpuOf(one) }));
        const { slices, units } = await wrkInSlices(loads, 32, runs * seconds);
        return peers.map(({ name }, index) => ({
          peer: name,
          values: slices[index]?.map((slice) => slice.units / (units[index] ?? Number.NaN) / slice.seconds) ?? [],
        }));
      };
      const rate = { unit: '1/s', better: 'more' } as const;
      const memory = { scenario: 'single  one machine at rest', unit: 'MiB', better: 'less' } as const;
      const against = (series: readonly Series[]): Pick<Result, 'ours' | 'peers'> => {
        const [first, ...others] = series;
        if (first === undefined) throw new Error('nothing was measured');
        return { ours: first, peers: others.map((other) => ({ series: other, goal: GOAL })) };
      };
      return [
        {
          ...{ scenario: 'single  start to ready', figure: 'time', unit: 's', better: 'less', ...against(start) },
          note: 'serve has loaded nothing of pg, @aws-sdk, src/postgres and src/s3',
        },
        { ...memory, figure: 'resident', ...against(resting) },
        { ...memory, figure: 'of its own', ...against(own) },
        { scenario: 'single  warm manifest', figure: 'requests', ...rate, ...against(await served(manifest)) },
        { scenario: 'single  warm blob of 1 MiB', figure: 'requests', ...rate, ...against(await served(blob)) },
      ];
    } finally {
      for (const one of peers) await one.stop();
    }
  } finally {
    await origin.server.stop();
  }
};

/** Files of modules that `serve` has loaded until it was told to end, in all its threads: Node writes them down for who looks at coverage. */
async function loadedBy(bench: Bench, { program }: Checkout): Promise<string[]> {
  const folder = mkdtempSync(join(bench.dir, 'loaded-'));
  const { server } = await started(bench, program, 'loaded', { NODE_V8_COVERAGE: folder });
  await server.stop();
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
  const urls = files.flatMap((name) => {
    const { result } = JSON.parse(readFileSync(join(folder, name), 'utf8')) as { result: { url: string }[] };
    return result.map((script) => script.url);
  });
  // Whoever wrote nothing down has not been looked at.
  for (const part of ['/src/main.ts', '/src/sqlite/'])
    if (!urls.some((file) => file.includes(part))) throw new Error(`nothing of ${part} is in what serve has loaded`);
  return urls;
}

async function secondsToReady(bench: Bench, { name, program }: Checkout): Promise<number> {
  const { server, seconds } = await started(bench, program, `start-${name}`);
  await server.stop();
  return seconds;
}

async function serving(bench: Bench, { name, program }: Checkout, upstream: string): Promise<Peer> {
  const { server, https, dataDir } = await started(bench, program, `serve-${name}`);
  const args = ['registry', 'set', ORIGIN_HOST, '--endpoint', upstream, '--no-check'];
  await command(program, ['--data-dir', dataDir, ...args]);
  return peer(name, https, [server], `/v2/${ORIGIN_HOST}/`);
}

/** A gateway that is ready, and how many seconds it took for that. */
async function started(bench: Bench, program: string, folder: string, env: NodeJS.ProcessEnv = {}) {
  const dataDir = join(bench.dir, folder);
  const [https, http] = [await freePort(), await freePort()];
  const at = performance.now();
  const server = await Server.start({
    ...{ command: program, args: ['serve'], port: http, cwd: bench.dir },
    env: { ...gatewaySettings(dataDir, { https, http }), ...env },
  });
  await untilReady(http);
  const seconds = (performance.now() - at) / 1000;
  return { server, https, dataDir, seconds };
}

/** Each in turn, as often as there are runs. The first of each makes the local CA and the table, and is not counted. */
async function seriesOf(
  checkouts: readonly Checkout[],
  runs: number,
  measure: (checkout: Checkout) => Promise<number>,
): Promise<Series[]> {
  const values = checkouts.map((): number[] => []);
  for (let run = -1; run < runs; run++) {
    for (const [index, checkout] of checkouts.entries()) {
      const value = await measure(checkout);
      if (run >= 0) values[index]?.push(value);
    }
  }
  return checkouts.map(({ name }, index) => ({ peer: name, values: values[index] ?? [] }));
}
