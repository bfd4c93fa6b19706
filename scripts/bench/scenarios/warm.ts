import { CpuQuotas } from '../cpu-quota.ts';
import { download, pullImage, wrk, wrkInSlices } from '../load.ts';
import { cpuOf, type Peer } from '../peers.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import type { Slice } from '../slices.ts';
import { warmUp } from '../warm-up.ts';
import { against, imagePaths, inTurn, MiB, url, warmStage } from './stage.ts';

const SIZE = 64 * MiB;
/** What every server has of its core: so much less than the client of its own that the client is not what is measured. */
const SHARE = 0.7;

/** 1: a warm blob of 64 MiB over TLS. */
export const warmBlob: Scenario = async (bench, { runs, seconds }) => {
  const stage = await warmStage(bench, [SIZE]);
  const quotas = new CpuQuotas();
  try {
    const path = imagePaths(stage.image)[1] ?? '';
    const peers = [stage.ours, stage.a, stage.b, stage.c];
    const limited = peers.map((peer) => quotas.limit(SHARE, ...peer.servers.flatMap((server) => server.pids())));
    const given = limited.includes(false)
      ? 'not every server could be given a CPU quota, so the client may be what is measured: run this as root'
      : `every server has ${SHARE * 100} % of its core`;
    const results: Result[] = [];
    for (const connections of [4, 64]) {
      await warmUp(peers, (peer) => wrk(url(peer, path), connections, 1));
      // As often as the gateway can in that time; the same for all.
      const { rate } = await download(url(stage.ours, path), connections, connections);
      const times = connections * Math.max(1, Math.round((rate * seconds) / SIZE / connections));
      const busy: number[] = [];
      const costs = new Map(peers.map((peer): [Peer, number[]] => [peer, []]));
      const series = await inTurn(peers, runs, async (peer) => {
        const before = cpuOf(peer);
        const done = await download(url(peer, path), connections, times);
        costs.get(peer)?.push((cpuOf(peer) - before) / ((times * SIZE) / 1e9));
        busy.push(done.busy);
        return done.rate / 1e6;
      });
      const scenario = `1  warm 64 MiB blob, ${connections} connections`;
      const percent = Math.round(Math.max(...busy) * 100);
      results.push(
        {
          scenario,
          figure: 'body bytes',
          unit: 'MB/s',
          better: 'more',
          ...against(series, [2, 1.2, 0.85]),
          note: `${given}; the client used at most ${percent} % of its own`,
        },
        {
          scenario,
          figure: 'server CPU a GB',
          unit: 's',
          better: 'less',
          ...against(
            peers.map((peer) => ({ peer: peer.name, values: costs.get(peer) ?? [] })),
            [],
          ),
        },
      );
    }
    return results;
  } finally {
    await stage.stop();
    quotas.remove();
  }
};

/** 2: a warm manifest by tag. */
export const warmManifest: Scenario = async (bench, { runs, seconds }) => {
  const stage = await warmStage(bench, [MiB]);
  try {
    const path = imagePaths(stage.image)[0] ?? '';
    const peers = [stage.ours, stage.a, stage.b, stage.c];
    const { slices, units } = await wrkInSlices(
      peers.map((peer) => ({ url: url(peer, path), cpu: () => cpuOf(peer) })),
      32,
      runs * seconds,
    );
    const series = (of: (slice: Slice, bytes: number) => number) =>
      peers.map((peer, index) => ({
        peer: peer.name,
        values: slices[index]?.map((slice) => of(slice, units[index] ?? Number.NaN)) ?? [],
      }));
    const scenario = '2  warm manifest by tag, 32 connections';
    return [
      {
        scenario,
        figure: 'requests',
        unit: '1/s',
        better: 'more',
        ...against(
          series((slice, bytes) => slice.units / bytes / slice.seconds),
          [50, 50, 0.5],
        ),
        note: `the manifest has ${stage.image.manifestSize} bytes; (c) serves a file of that size`,
      },
      {
        scenario,
        figure: 'server CPU a request',
        unit: 'µs',
        better: 'less',
        ...against(
          series((slice, bytes) => (slice.cpu / (slice.units / bytes)) * 1e6),
          [],
        ),
      },
    ];
  } finally {
    await stage.stop();
  }
};

const CLIENTS = 20;

/** 3: a warm image of 40 layers of 1 MiB, 20 clients at once. */
export const warmImage: Scenario = async (bench, { runs }) => {
  const stage = await warmStage(
    bench,
    Array.from({ length: 40 }, () => MiB),
  );
  try {
    const series = await inTurn([stage.ours, stage.a, stage.b, stage.c], runs, (peer) => {
      const [manifest = '', ...blobs] = imagePaths(stage.image).map((path) => url(peer, path));
      return pullImage(CLIENTS, manifest, blobs);
    });
    return [
      {
        scenario: `3  warm image of 40 layers of 1 MiB, ${CLIENTS} clients at once`,
        figure: 'time until the last client has all',
        unit: 's',
        better: 'less',
        ...against(series, [1.5, undefined, undefined]),
        note: 'the clients share one core: their TLS and HTTP work is part of every figure',
      },
    ];
  } finally {
    await stage.stop();
  }
};
