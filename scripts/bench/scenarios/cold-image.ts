import { connectionsTo, type Got } from '../get.ts';
import { fetchOnce } from '../load.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { sequence } from '../sequence.ts';
import { type At, beginning, coldGateway, inOrder, LINK, straight, withLink } from './cold-stage.ts';
import { imagePaths, MiB } from './stage.ts';

/** 40 layers, MiB: few large ones and many small, as images have them; 512 in all. */
const SIZES: readonly (readonly [count: number, size: number])[] = [
  [1, 64],
  [1, 48],
  [1, 40],
  [2, 32],
  [3, 24],
  [4, 16],
  [4, 12],
  [6, 8],
  [8, 4],
  [4, 5],
  [2, 2],
  [4, 1],
];

/** How many layers clients fetch at a time: Docker, containerd. */
const AT_A_TIME = [3, 6] as const;

/** What one pull of all layers took, s. */
interface Pulled {
  /** Until the first layer's first byte. */
  readonly first: number;
  /** Until the last byte of all. */
  readonly last: number;
}

/** 12: one client pulls a cold image of 40 layers over a link, several at a time, against the same straight over that link. */
export const coldImage: Scenario = (bench, { runs }) =>
  withLink(bench, layers(), async ({ image, before, link }) => {
    const [, ...paths] = imagePaths(image);
    const first = [...imagePaths(before), ...beginning(image)];
    const results: Result[] = [];
    for (const atATime of AT_A_TIME) {
      const ours: Pulled[] = [];
      const direct: Pulled[] = [];
      for (let run = 0; run < runs; run++) {
        const pull = (at: At): Promise<Pulled> => pullLayers(at, first, paths, atATime);
        direct.push(await pull(straight(link)));
        ours.push(await coldGateway(bench, link, pull));
      }
      const result = (figure: string, of: keyof Pulled, goal: number): Result => ({
        scenario: `12  cold image, 40 layers of 1 to 64 MiB (512 MiB), ${atATime} at a time, ${LINK.words}`,
        figure,
        unit: 's',
        better: 'less',
        ours: { peer: 'gateway', values: ours.map((pulled) => pulled[of]) },
        peers: [{ series: { peer: 'straight over the link', values: direct.map((pulled) => pulled[of]) }, goal }],
      });
      results.push(
        result('time until all layers are there', 'last', 1 / 1.05),
        result("first layer's first byte", 'first', 1 / 1.1),
      );
    }
    return results;
  });

/** In an order without a pattern, the same in every run. */
function layers(): number[] {
  const next = sequence(12);
  return SIZES.flatMap(([count, size]) => Array.from({ length: count }, () => ({ size, key: next() })))
    .sort((one, other) => one.key - other.key)
    .map(({ size }) => size * MiB);
}

/** @param first what is fetched before the clock runs, on one connection */
async function pullLayers(
  at: At,
  first: readonly string[],
  paths: readonly string[],
  atATime: number,
): Promise<Pulled> {
  const agent = connectionsTo(at(''), atATime);
  try {
    await inOrder(at, first, agent);
    const started = performance.now();
    const waiting = [...paths];
    const got: Promise<Got>[] = [];
    const lane = async (): Promise<void> => {
      for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) {
        const fetched = fetchOnce(at(path), agent);
        got.push(fetched);
        await fetched;
      }
    };
    await Promise.all(Array.from({ length: atATime }, lane));
    const last = (performance.now() - started) / 1000;
    return { first: (await got[0])?.first ?? Number.NaN, last };
  } finally {
    agent.destroy();
  }
}
