import { pullImage, wrk } from '../load.ts';
import { cpuOf, type Peer } from '../peers.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { against, imagePaths, inTurn, MiB, url, warmStage, warmUp } from './stage.ts';

/** Runs `load` and keeps what it cost the server: CPU seconds for each of the units that it returns. */
class Costs {
  readonly #values = new Map<string, number[]>();

  async of(peer: Peer, seconds: number, load: () => Promise<number>): Promise<number> {
    const before = cpuOf(peer);
    const rate = await load();
    const kept = this.#values.get(peer.name) ?? [];
    this.#values.set(peer.name, [...kept, (cpuOf(peer) - before) / (rate * seconds)]);
    return rate;
  }

  result(from: Result, figure: string, unit: string, scale: number): Result {
    const scaled = (peer: string) => ({ peer, values: (this.#values.get(peer) ?? []).map((value) => value * scale) });
    return {
      scenario: from.scenario,
      figure,
      unit,
      better: 'less',
      ours: scaled(from.ours.peer),
      peers: from.peers.map(({ series }) => ({ series: scaled(series.peer) })),
    };
  }
}

/** 1: a warm blob of 64 MiB over TLS. */
export const warmBlob: Scenario = async (bench, { runs, seconds }) => {
  const stage = await warmStage(bench, [64 * MiB]);
  try {
    const path = imagePaths(stage.image)[1] ?? '';
    const results: Result[] = [];
    for (const connections of [4, 64]) {
      const costs = new Costs();
      const peers = [stage.ours, stage.a, stage.b, stage.c];
      await warmUp(peers, async (peer) => (await wrk(url(peer, path), connections, 1)).bytes);
      const series = await inTurn(peers, runs, (peer) =>
        costs.of(peer, seconds, async () => (await wrk(url(peer, path), connections, seconds)).bytes / 1e6),
      );
      const speed: Result = {
        scenario: `1  warm 64 MiB blob, ${connections} connections`,
        figure: 'body bytes',
        unit: 'MB/s',
        better: 'more',
        ...against(series, [2, 1.2, 0.85]),
      };
      results.push(speed, costs.result(speed, 'server CPU a GB', 's', 1000));
    }
    return results;
  } finally {
    await stage.stop();
  }
};

/** 2: a warm manifest by tag. */
export const warmManifest: Scenario = async (bench, { runs, seconds }) => {
  const stage = await warmStage(bench, [MiB]);
  try {
    const path = imagePaths(stage.image)[0] ?? '';
    const costs = new Costs();
    const peers = [stage.ours, stage.a, stage.b, stage.c];
    await warmUp(peers, async (peer) => (await wrk(url(peer, path), 32, 1)).requests);
    const series = await inTurn(peers, runs, (peer) =>
      costs.of(peer, seconds, async () => (await wrk(url(peer, path), 32, seconds)).requests),
    );
    const speed: Result = {
      scenario: '2  warm manifest by tag, 32 connections',
      figure: 'requests',
      unit: '1/s',
      better: 'more',
      ...against(series, [50, 50, 0.5]),
      note: `the manifest has ${stage.image.manifestSize} bytes; (c) serves a file of that size`,
    };
    return [speed, costs.result(speed, 'server CPU a request', 'µs', 1e6)];
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
