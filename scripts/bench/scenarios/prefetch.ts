import { connectionsTo } from '../get.ts';
import { fetchOnce } from '../load.ts';
import { gateway } from '../peers.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { type At, beginning, cold, inOrder, LINK, withLink } from './cold-stage.ts';
import { imagePaths, MiB, url } from './stage.ts';

/** Layers as most images have them: some tens of MiB at most, and several small ones. */
const LAYERS = [24, 12, 8, 8, 6, 4, 4, 3, 2, 2, 1, 1].map((size) => size * MiB);

/** How many layers clients fetch at a time: one by one (kaniko, many scripts), Docker. */
const AT_A_TIME = [1, 3] as const;

/** A cold pull from its manifest to the last byte, with `cache.prefetch: manifest` and without. */
export const prefetch: Scenario = (bench, { runs }) =>
  withLink(bench, LAYERS, async ({ image, before, link }) => {
    const layers = imagePaths(image).slice(1);
    const results: Result[] = [];
    for (const atATime of AT_A_TIME) {
      const took: Record<'manifest' | 'off', number[]> = { manifest: [], off: [] };
      for (let run = 0; run < runs; run++) {
        for (const mode of ['off', 'manifest'] as const) {
          const start = () => gateway(bench, 'gateway', link.url, { env: { GATEWAY_CACHE_PREFETCH: mode } });
          took[mode].push(
            await cold(bench, start, ['gateway'], (peer) =>
              pull((path) => url(peer, path), imagePaths(before), [...beginning(image), ...layers], atATime),
            ),
          );
        }
      }
      results.push({
        scenario: `prefetch  cold image, ${LAYERS.length} layers (75 MiB), ${atATime} at a time, ${LINK.words}`,
        figure: 'time from the manifest to the last byte',
        unit: 's',
        better: 'less',
        ours: { peer: 'cache.prefetch: manifest', values: took.manifest },
        peers: [{ series: { peer: 'cache.prefetch: off', values: took.off }, goal: 1 }],
      });
    }
    return results;
  });

/** Seconds. @param before what is pulled before the clock runs @param paths the manifest and the configuration, one after the other, then layers */
async function pull(
  at: At,
  before: readonly string[],
  [manifest = '', config = '', ...layers]: readonly string[],
  atATime: number,
): Promise<number> {
  const agent = connectionsTo(at(''), atATime);
  try {
    await inOrder(at, before, agent);
    const started = performance.now();
    await inOrder(at, [manifest, config], agent);
    const waiting = [...layers];
    const lane = async (): Promise<void> => {
      for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) await fetchOnce(at(path), agent);
    };
    await Promise.all(Array.from({ length: atATime }, lane));
    return (performance.now() - started) / 1000;
  } finally {
    agent.destroy();
  }
}
