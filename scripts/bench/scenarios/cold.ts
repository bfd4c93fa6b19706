import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Image, layOut } from '../content.ts';
import { fetchOnce } from '../load.ts';
import { type Bench, gateway, nginxAndRegistry, Origin, type Peer } from '../peers.ts';
import { CLIENT_CORE } from '../process.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenarios.ts';
import { imagePaths, MiB, url } from './stage.ts';

const SIZE = 256 * MiB;
/** A fast leased line. Unbounded, the upstream on this machine would measure who hashes and encrypts on which core, not what a pull waits for. */
const LINK = 100 * MiB;

async function withOrigin<T>(
  bench: Bench,
  rate: number,
  work: (origin: Origin, image: Image) => Promise<T>,
): Promise<T> {
  mkdirSync(bench.dir, { recursive: true });
  const root = join(bench.dir, 'origin');
  const image = layOut(root, 'library/cold', 'v1', [SIZE]);
  const origin = await Origin.start(bench, root, CLIENT_CORE, rate);
  try {
    return await work(origin, image);
  } finally {
    await origin.server.stop();
    rmSync(root, { recursive: true });
  }
}

/** A cold server a run: started on an empty directory, asked, stopped, wiped. */
async function cold<T>(
  bench: Bench,
  start: () => Promise<Peer>,
  directories: readonly string[],
  measure: (peer: Peer) => Promise<T>,
): Promise<T> {
  const peer = await start();
  try {
    return await measure(peer);
  } finally {
    await peer.stop();
    for (const directory of directories) rmSync(join(bench.dir, directory), { recursive: true, force: true });
  }
}

/** 4: one client, a cold blob of 256 MiB: first byte and last byte, against a fetch straight from the upstream. */
export const coldBlob: Scenario = async (bench, { runs }) => {
  const results: Result[] = [];
  for (const rate of [LINK, 0]) {
    await withOrigin(bench, rate, async (origin, image) => {
      const path = imagePaths(image)[1] ?? '';
      const figures = {
        ours: { first: [] as number[], last: [] as number[] },
        straight: { first: [] as number[], last: [] as number[] },
      };
      for (let run = 0; run < runs; run++) {
        const straight = await fetchOnce(`${origin.url}/v2/${path}`);
        const ours = await cold(
          bench,
          () => gateway(bench, 'gateway', origin.url),
          ['gateway'],
          async (peer) => {
            // The connection of a ping, so that neither side's first byte is the cost of loading a program.
            await fetchOnce(`https://localhost:${peer.port}/v2/`);
            return fetchOnce(url(peer, path));
          },
        );
        for (const figure of ['first', 'last'] as const) {
          figures.ours[figure].push(ours[figure]);
          figures.straight[figure].push(straight[figure]);
        }
      }
      for (const figure of ['first', 'last'] as const) {
        results.push({
          scenario: `4  cold 256 MiB blob, 1 client, upstream ${rate === 0 ? 'unbounded' : `at ${rate / MiB} MiB/s`}`,
          figure: `time to ${figure} byte`,
          unit: 's',
          better: 'less',
          ours: { peer: 'gateway', values: figures.ours[figure] },
          peers: [
            {
              series: { peer: 'straight from upstream', values: figures.straight[figure] },
              // "Within 1.1 × of": the gateway may take 1.1 times as long.
              ...(rate === 0 ? {} : { goal: 1 / 1.1 }),
            },
          ],
          note: 'straight is plain HTTP on the client’s core; the gateway also decides, keeps, hashes and encrypts',
        });
      }
    });
  }
  return results;
};

const CROWD = 20;

/** 5: 20 clients at once, a cold blob of 256 MiB. */
export const coldCrowd: Scenario = (bench, { runs }) =>
  withOrigin(bench, 0, async (origin, image) => {
    const path = imagePaths(image)[1] ?? '';
    const part = image.layers[0]?.digest ?? '';
    const times: Record<string, number[]> = { gateway: [], '(a) nginx + registry': [] };
    const shares: Record<string, number[]> = { gateway: [], '(a) nginx + registry': [] };
    const starts: [() => Promise<Peer>, string[]][] = [
      [() => gateway(bench, 'gateway', origin.url), ['gateway']],
      [() => nginxAndRegistry(bench, 'a', origin.url), ['a', 'a-nginx', 'a-registry']],
    ];
    for (let run = 0; run < runs; run++) {
      for (const [begin, directories] of starts) {
        const before = origin.bytes(part);
        await cold(bench, begin, directories, async (peer) => {
          const all = await Promise.all(Array.from({ length: CROWD }, () => fetchOnce(url(peer, path))));
          times[peer.name]?.push(Math.max(...all.map(({ last }) => last)));
          shares[peer.name]?.push((origin.bytes(part) - before) / SIZE);
        });
      }
    }
    const result = (
      figure: string,
      unit: string,
      from: Record<string, number[]>,
      more: Partial<Result>,
      goal?: number,
    ): Result => ({
      scenario: `5  cold 256 MiB blob, ${CROWD} clients at once`,
      figure,
      unit,
      better: 'less',
      ours: { peer: 'gateway', values: from.gateway ?? [] },
      peers: [
        {
          series: { peer: '(a) nginx + registry', values: from['(a) nginx + registry'] ?? [] },
          ...(goal === undefined ? {} : { goal }),
        },
      ],
      ...more,
    });
    return [
      result('time until the last client has all', 's', times, {}, 3),
      result('bytes from upstream', '× the blob', shares, { bound: 1 }),
    ];
  });
