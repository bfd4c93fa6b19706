import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Image, layOut } from '../content.ts';
import { startLink } from '../link.ts';
import { download, type Fetched, fetchOnce, keepAlive } from '../load.ts';
import { type Bench, gateway, nginxAndRegistry, Origin, type Peer } from '../peers.ts';
import { CLIENT_CORE } from '../process.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { imagePaths, MiB, url } from './stage.ts';

const SIZE = 256 * MiB;
/**
 * The link to the upstream, ms and bytes a second: a registry in the same country, a fast leased line. Without one, the first byte would be
 * a race on loopback, and the last would tell who hashes and encrypts on which core, not what a pull waits for.
 */
const ROUND_TRIP = 20;
const RATE = 100 * MiB;

/** Layers of another image that is pulled first: the blob is cold, not the program, which in use has run for weeks. */
const BEFORE = Array.from({ length: 60 }, () => MiB);

async function withOrigin<T>(
  bench: Bench,
  work: (origin: Origin, image: Image, before: Image) => Promise<T>,
): Promise<T> {
  mkdirSync(bench.dir, { recursive: true });
  const root = join(bench.dir, 'origin');
  const image = layOut(root, 'library/cold', 'v1', [SIZE]);
  const before = layOut(root, 'library/before', 'v1', BEFORE);
  const origin = await Origin.start(bench, root, CLIENT_CORE);
  try {
    return await work(origin, image, before);
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

/** 4: one client, a cold blob of 256 MiB over a link: first byte and last byte, against a fetch straight over that link. */
export const coldBlob: Scenario = (bench, { runs }) =>
  withOrigin(bench, async (origin, image, before) => {
    const link = await startLink(origin.port, ROUND_TRIP, RATE);
    try {
      const [manifest = '', blob = ''] = imagePaths(image);
      const paths = [...imagePaths(before), manifest, `${image.repository}/blobs/${image.configDigest}`, blob];
      const ours: Fetched[] = [];
      const straight: Fetched[] = [];
      for (let run = 0; run < runs; run++) {
        straight.push(await pull((path) => `${link.url}/v2/${path}`, paths));
        const gatewayOnIt = () => gateway(bench, 'gateway', link.url);
        ours.push(await cold(bench, gatewayOnIt, ['gateway'], (peer) => pull((path) => url(peer, path), paths)));
      }
      return (['first', 'last'] as const).map(
        (figure): Result => ({
          scenario: `4  cold 256 MiB blob, 1 client, upstream ${ROUND_TRIP} ms away at ${RATE / MiB} MiB/s`,
          figure: `time to ${figure} byte`,
          unit: 's',
          better: 'less',
          ours: { peer: 'gateway', values: ours.map((fetched) => fetched[figure]) },
          // "Within 1.1 × of": the gateway may take 1.1 times as long.
          peers: [
            {
              series: { peer: 'straight over the link', values: straight.map((fetched) => fetched[figure]) },
              goal: 1 / 1.1,
            },
          ],
          note: 'straight is plain HTTP; the gateway also decides, keeps, hashes and encrypts. Both fetch another image of 60 layers first, and the manifest and the configuration of this one, as a pull does',
        }),
      );
    } finally {
      await link.stop();
    }
  });

/** All of them, one after the other on one connection; what the last took. */
async function pull(at: (path: string) => string, paths: readonly string[]): Promise<Fetched> {
  const agent = keepAlive(at(paths[0] ?? ''));
  try {
    let fetched: Fetched = { bytes: 0, first: 0, last: 0 };
    for (const path of paths) fetched = await fetchOnce(at(path), agent);
    return fetched;
  } finally {
    agent.destroy();
  }
}

const CROWD = 20;

/** 5: 20 clients at once, a cold blob of 256 MiB. */
export const coldCrowd: Scenario = (bench, { runs }) =>
  withOrigin(bench, async (origin, image) => {
    const path = imagePaths(image)[1] ?? '';
    const part = image.layers[0]?.digest ?? '';
    const times: Record<string, number[]> = { gateway: [], '(a) nginx + registry': [] };
    const used: number[] = [];
    const shares: Record<string, number[]> = { gateway: [], '(a) nginx + registry': [] };
    const starts: [() => Promise<Peer>, string[]][] = [
      [() => gateway(bench, 'gateway', origin.url), ['gateway']],
      [() => nginxAndRegistry(bench, 'a', origin.url), ['a', 'a-nginx', 'a-registry']],
    ];
    for (let run = 0; run < runs; run++) {
      for (const [begin, directories] of starts) {
        const before = origin.bytes(part);
        await cold(bench, begin, directories, async (peer) => {
          const { seconds, busy } = await download(url(peer, path), CROWD, CROWD);
          times[peer.name]?.push(seconds);
          if (peer.name === 'gateway') used.push(busy);
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
      result(
        'time until the last client has all',
        's',
        times,
        {
          note: `the clients used at most ${Math.round(Math.max(...used) * 100)} % of their core with the gateway, the upstream a part of the rest`,
        },
        3,
      ),
      result('bytes from upstream', '× the blob', shares, { bound: 1 }),
    ];
  });
