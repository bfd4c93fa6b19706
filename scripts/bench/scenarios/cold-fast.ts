import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Image, layOut } from '../content.ts';
import { startLink } from '../link.ts';
import { download, fetchOnce } from '../load.ts';
import { DOCKER_REGISTRY, otherProxies, type PullThrough, type Upstream } from '../other-proxies.ts';
import { type Bench, cpuOf, gateway, Origin } from '../peers.ts';
import { CLIENT_CORE, clientCoreBusy } from '../process.ts';
import type { Result, Series } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { median } from '../stats.ts';
import { BLOB, cold } from './cold-stage.ts';
import { against, imagePaths, url } from './stage.ts';

/** A registry's mirror in the same data centre: ms, of which a timer and three processes make 1.2 to 1.8, and bytes a second, more than anybody here uses. */
const ROUND_TRIP = 1;
const RATE = 1.25e9;
/** What a server still does after the last byte belongs to the pull, ms. */
const AFTERWARDS = 300;
/** Fresh starts of 11. */
const STARTS = 10;

const SCENARIO = 'cold 256 MiB blob, 1 client, fast link';

const GATEWAY: PullThrough = { name: 'gateway', start: (bench, directory, { url }) => gateway(bench, directory, url) };

/** Two images of one blob each behind a fast link, plain and over TLS. */
async function withUpstream<T>(
  bench: Bench,
  work: (upstream: Upstream, images: readonly Image[]) => Promise<T>,
): Promise<T> {
  mkdirSync(bench.dir, { recursive: true });
  const root = join(bench.dir, 'origin');
  const images = ['v1', 'v2'].map((tag) => layOut(root, 'library/fast', tag, [BLOB]));
  const origin = await Origin.start(bench, root, CLIENT_CORE);
  const link = await startLink(origin.port, ROUND_TRIP, RATE);
  const tlsLink = await startLink(origin.tlsPort, ROUND_TRIP, RATE);
  try {
    return await work({ url: link.url, tlsPort: tlsLink.port }, images);
  } finally {
    for (const { stop } of [link, tlsLink]) await stop();
    await origin.server.stop();
    rmSync(root, { recursive: true });
  }
}

/** What one image cost: seconds for its manifest, and for its blob to the last byte; CPU seconds of the server for both. */
interface Pulled {
  readonly manifest: number;
  readonly blob: number;
  readonly cpu: number;
  /** The share of their core that the client, the link and the upstream used for the blob. */
  readonly busy: number;
}

/** Of one proxy, for each run its two images. */
interface Measured {
  readonly name: string;
  readonly runs: Pulled[][];
}

/** Starts a proxy on an empty directory, and pulls the images from it, one after the other. */
function pullFrom(
  { start }: PullThrough,
  bench: Bench,
  upstream: Upstream,
  images: readonly Image[],
): Promise<Pulled[]> {
  return cold(
    bench,
    () => start(bench, 'cold', upstream),
    ['cold'],
    async (peer) => {
      const pulled: Pulled[] = [];
      for (const image of images) {
        const [manifest = '', blob = ''] = imagePaths(image);
        const used = cpuOf(peer);
        const described = await fetchOnce(url(peer, manifest));
        const busy = clientCoreBusy();
        const { seconds } = await download(url(peer, blob), 1, 1);
        const share = busy();
        await sleep(AFTERWARDS);
        pulled.push({ manifest: described.last, blob: seconds, cpu: cpuOf(peer) - used, busy: share });
      }
      return pulled;
    },
  );
}

/** 10: a cold blob from an upstream that is near and fast: what the gateway itself costs, beside other pull-through proxies. */
export const coldFast: Scenario = (bench, { runs }) =>
  withUpstream(bench, async (upstream, images) => {
    const proxies = [GATEWAY, DOCKER_REGISTRY, ...otherProxies()];
    const measured = proxies.map(({ name }): Measured => ({ name, runs: [] }));
    const straight: number[] = [];
    const path = imagePaths(images[0] as Image)[1] ?? '';
    for (let run = 0; run < runs; run++) {
      straight.push((await fetchOnce(`${upstream.url}/v2/${path}`)).last);
      for (const [index, proxy] of proxies.entries()) {
        measured[index]?.runs.push(await pullFrom(proxy, bench, upstream, images));
      }
    }
    const results = (['first', 'second'] as const).map((which, at): Result => {
      const blobs = series(measured, (pair) => pair[at]?.blob ?? Number.NaN);
      const direct = { series: { peer: 'straight over the link', values: straight } };
      const { ours, peers } = against(blobs, [1]);
      return {
        scenario: `10  ${SCENARIO}, ${which} blob of a fresh process`,
        figure: 'time to last byte',
        unit: 's',
        better: 'less',
        ours,
        peers: [...peers, direct],
        note: at === 0 ? usage(measured) : manifests(measured),
      };
    });
    const cpu = series(measured, (pair) => pair.reduce((sum, { cpu }) => sum + cpu, 0));
    results.push({
      scenario: `10  ${SCENARIO}, both blobs`,
      figure: 'server CPU',
      unit: 's',
      better: 'less',
      ...against(cpu, [1 / 1.2]),
    });
    return results;
  });

/** 11: the same in ten fresh starts: the worst against the median. */
export const coldStarts: Scenario = (bench, { runs }) =>
  withUpstream(bench, async (upstream, [image]) => {
    if (image === undefined) throw new Error('there is no image');
    const proxies = [GATEWAY, DOCKER_REGISTRY];
    const medians = proxies.map((): number[] => []);
    const worst = proxies.map((): number[] => []);
    for (let run = 0; run < runs; run++) {
      const times = proxies.map((): number[] => []);
      for (let start = 0; start < STARTS; start++) {
        for (const [index, proxy] of proxies.entries()) {
          const [pulled] = await pullFrom(proxy, bench, upstream, [image]);
          times[index]?.push(pulled?.blob ?? Number.NaN);
        }
      }
      for (const [index, values] of times.entries()) {
        medians[index]?.push(median(values));
        worst[index]?.push(Math.max(...values) / median(values));
      }
    }
    const scenario = `11  ${SCENARIO}, ${STARTS} fresh starts`;
    const named = (values: readonly number[][]) =>
      proxies.map(({ name }, at) => ({ peer: name, values: values[at] ?? [] }));
    return [
      {
        scenario,
        figure: 'the worst',
        unit: '× the median',
        better: 'less',
        ...against(named(worst), []),
        bound: 1.25,
      },
      { scenario, figure: 'the median', unit: 's', better: 'less', ...against(named(medians), []) },
    ];
  });

/** A figure of every proxy, by run. */
function series(measured: readonly Measured[], of: (pair: readonly Pulled[]) => number): Series[] {
  return measured.map(({ name, runs }) => ({ peer: name, values: runs.map(of) }));
}

/** How busy what is not measured was: where it is all the time, it is the limit. */
function usage(measured: readonly Measured[]): string {
  const most = series(measured, (pair) => Math.max(...pair.map(({ busy }) => busy)));
  const shares = most.map(({ peer, values }) => `${Math.round(Math.max(...values) * 100)} % with ${peer}`);
  return `client, link and upstream used at most so much of their core: ${shares.join(', ')}`;
}

/** What came before the blob, which some make wait for the whole image. */
function manifests(measured: readonly Measured[]): string {
  const times = series(measured, (pair) => pair[1]?.manifest ?? Number.NaN);
  return `its manifest before: ${times.map(({ peer, values }) => `${median(values).toFixed(3)} s from ${peer}`).join(', ')}`;
}
