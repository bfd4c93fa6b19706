import { pullImage, wrk } from '../load.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenarios.ts';
import { against, imagePaths, inTurn, MiB, url, warmStage } from './stage.ts';

/** 1: a warm blob of 64 MiB over TLS. */
export const warmBlob: Scenario = async (bench, { runs, seconds }) => {
  const stage = await warmStage(bench, [64 * MiB]);
  try {
    const path = imagePaths(stage.image)[1] ?? '';
    const results: Result[] = [];
    for (const connections of [4, 64]) {
      const series = await inTurn([stage.ours, stage.a, stage.b, stage.c], runs, async (peer) => {
        const { bytes } = await wrk(url(peer, path), connections, seconds);
        return bytes / 1e6;
      });
      results.push({
        scenario: `1  warm 64 MiB blob, ${connections} connections`,
        figure: 'body bytes',
        unit: 'MB/s',
        better: 'more',
        ...against(series, [2, 1.2, 0.85]),
      });
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
    const series = await inTurn([stage.ours, stage.a, stage.b, stage.c], runs, async (peer) => {
      const { requests } = await wrk(url(peer, path), 32, seconds);
      return requests;
    });
    return [
      {
        scenario: '2  warm manifest by tag, 32 connections',
        figure: 'requests',
        unit: '1/s',
        better: 'more',
        ...against(series, [50, 50, 0.5]),
        note: `the manifest has ${stage.image.manifestSize} bytes; (c) serves a file of that size`,
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
    const paths = imagePaths(stage.image);
    const series = await inTurn([stage.ours, stage.a, stage.b, stage.c], runs, async (peer) => {
      const base = url(peer, '');
      const times = await Promise.all(Array.from({ length: CLIENTS }, () => pullImage(base, paths)));
      return Math.max(...times);
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
