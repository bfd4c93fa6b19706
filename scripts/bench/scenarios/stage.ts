import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Image, layOut } from '../content.ts';
import { fetchOnce } from '../load.ts';
import { type Bench, gateway, nginxAndRegistry, nginxStatic, Origin, type Peer, registryAlone } from '../peers.ts';
import { CLIENT_CORE } from '../process.ts';
import type { Series } from '../report.ts';

export const MiB = 1024 * 1024;

/** The gateway and the three peers over one origin, all with the image warm. */
export interface Stage {
  readonly image: Image;
  readonly origin: Origin;
  readonly ours: Peer;
  readonly a: Peer;
  readonly b: Peer;
  readonly c: Peer;
  readonly stop: () => Promise<void>;
}

export async function warmStage(bench: Bench, layers: readonly number[]): Promise<Stage> {
  mkdirSync(bench.dir, { recursive: true });
  const root = join(bench.dir, 'origin');
  const image = layOut(root, 'library/app', 'v1', layers);
  const origin = await Origin.start(bench, root, CLIENT_CORE);
  const ours = await gateway(bench, 'gateway', origin.url);
  const a = await nginxAndRegistry(bench, 'a', origin.url);
  const b = await registryAlone(bench, 'b', origin.url);
  const c = await nginxStatic(bench, 'c', root);
  const stage: Stage = {
    image,
    origin,
    ours,
    a,
    b,
    c,
    stop: async () => {
      for (const peer of [ours, a, b, c]) await peer.stop();
      await origin.server.stop();
    },
  };
  for (const peer of [ours, a, b, c]) for (const path of imagePaths(image)) await fetchOnce(url(peer, path));
  return stage;
}

/** The manifest by tag, then every layer: what a pull asks for, relative to a peer's prefix. */
export function imagePaths(image: Image): string[] {
  return [
    `${image.repository}/manifests/${image.tag}`,
    ...image.layers.map(({ digest }) => `${image.repository}/blobs/${digest}`),
  ];
}

export function url(peer: Peer, path: string): string {
  return `https://localhost:${peer.port}${peer.prefix}${path}`;
}

/** Measures each peer once a run, in turn, so that all of them see the machine as it is in that run. */
export async function inTurn(
  peers: readonly Peer[],
  runs: number,
  measure: (peer: Peer) => Promise<number>,
): Promise<Series[]> {
  const values = peers.map((): number[] => []);
  for (let run = 0; run < runs; run++) {
    for (const [index, peer] of peers.entries()) values[index]?.push(await measure(peer));
  }
  return peers.map((peer, index) => ({ peer: peer.name, values: values[index] ?? [] }));
}

/** The first series is ours, the rest are the peers' with their goals. */
export function against(series: readonly Series[], goals: readonly (number | undefined)[]) {
  const [ours, ...peers] = series;
  if (ours === undefined) throw new Error('nothing was measured');
  return {
    ours,
    peers: peers.map((peer, index) => {
      const goal = goals[index];
      return { series: peer, ...(goal === undefined ? {} : { goal }) };
    }),
  };
}
