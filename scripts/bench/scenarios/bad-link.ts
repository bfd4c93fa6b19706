import { mkdirSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BadLink, startBadLink } from '../bad-link.ts';
import { layOut } from '../content.ts';
import { get } from '../get.ts';
import { DOCKER_REGISTRY } from '../other-proxies.ts';
import { type Bench, gateway, Origin } from '../peers.ts';
import { CLIENT_CORE } from '../process.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { cold } from './cold-stage.ts';
import { imagePaths, MiB, url } from './stage.ts';

const SIZE = 64 * MiB;
/** A mobile network, or a crowded way between continents. */
const PATH = { roundTrip: 200, loss: 0.03, resetAfter: 8 * MiB };
/** One connection would need twenty minutes for the blob: its rate is taken over this time, ms, and nothing on the way there changes with it. */
const SAMPLE_MS = 40_000;

/**
 * 14: a cold blob over a bad link, with defaults, against one connection straight over it, and docker-registry. These two are given part of
 * the time, at the same time: the link is wide, and no connection takes anything from another.
 */
export const coldOverBadLink: Scenario = async (bench, { runs }) => {
  mkdirSync(bench.dir, { recursive: true });
  const root = `${bench.dir}/origin`;
  const image = layOut(root, 'library/far', 'v1', [SIZE]);
  const origin = await Origin.start(bench, root, CLIENT_CORE);
  const blob = imagePaths(image)[1] ?? '';
  const ours: number[] = [];
  const direct: number[] = [];
  const registry: number[] = [];
  let made = '';
  try {
    for (let run = 0; run < runs; run++) {
      // The same chance for the same run.
      const link = await startBadLink(origin.socket, PATH, run * 1_000_003);
      made = link.made;
      try {
        const [straight, theirs] = await Promise.all([
          rateOf(`${link.url}/v2/${blob}`),
          throughRegistry(bench, link, blob),
        ]);
        direct.push(straight);
        registry.push(theirs);
        ours.push(await throughGateway(bench, link, blob));
      } finally {
        await link.stop();
      }
    }
  } finally {
    await origin.server.stop();
    rmSync(root, { recursive: true });
  }
  const { roundTrip, loss, resetAfter } = PATH;
  const result: Result = {
    scenario: `14  cold ${SIZE / MiB} MiB blob, upstream ${roundTrip} ms away, ${loss * 100} % loss, a reset every ${resetAfter / MiB} MiB`,
    figure: 'rate',
    unit: 'KiB/s',
    better: 'more',
    ours: { peer: 'gateway', values: ours },
    peers: [
      { series: { peer: 'straight, one connection', values: direct }, goal: 6 },
      { series: { peer: DOCKER_REGISTRY.name, values: registry } },
    ],
    note: `the link is ${made}; the gateway fetches the whole blob, the others ${SAMPLE_MS / 1000} s of it`,
  };
  return [result];
};

async function throughGateway(bench: Bench, link: BadLink, blob: string): Promise<number> {
  const start = () => gateway(bench, 'gateway', link.url);
  return await cold(bench, start, ['gateway'], async (peer) => {
    const { status, bytes, last } = await get(url(peer, blob), { timeout: SAMPLE_MS });
    if (status !== 200 || bytes !== SIZE) throw new Error(`the gateway answered ${status} and ${bytes} bytes`);
    return bytes / 1024 / last;
  });
}

function throughRegistry(bench: Bench, link: BadLink, blob: string): Promise<number> {
  const start = () => DOCKER_REGISTRY.start(bench, 'b', { url: link.url, tlsPort: 0 });
  return cold(bench, start, ['b'], (peer) => rateOf(url(peer, blob)));
}

/** KiB a second of one GET, from its first byte on, as far as it comes in the time. */
async function rateOf(from: string): Promise<number> {
  let bytes = 0;
  let since = 0;
  const stop = new AbortController();
  const fetched = get(from, {
    timeout: SAMPLE_MS,
    signal: stop.signal,
    onChunk: (chunk) => {
      if (bytes === 0) since = performance.now();
      bytes += chunk.length;
    },
  }).catch((error: unknown) => {
    // It breaks off where it is told to, or where the link resets it: what came until then is what it brought.
    if (bytes === 0) throw error;
  });
  await Promise.race([fetched, sleep(SAMPLE_MS)]);
  const rate = bytes / 1.024 / (performance.now() - since);
  stop.abort();
  await fetched;
  return rate;
}
