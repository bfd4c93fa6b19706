import { setTimeout as sleep } from 'node:timers/promises';
import { wrk } from '../load.ts';
import type { Result, Series } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { imagePaths, MiB, url, warmStage } from './stage.ts';

const DOWNLOADS = 200;
/** What a server has to become idle: it gives back what it needs no longer when it has been quiet for a while, ms. */
const QUIET = 5_000;
/** Between two looks, ms. */
const LOOK = 100;

/** 7: resident memory, idle and under 200 concurrent downloads of a warm blob; the highest that was seen. */
export const memory: Scenario = async (bench, { runs, seconds }) => {
  const stage = await warmStage(bench, [64 * MiB]);
  try {
    const path = imagePaths(stage.image)[1] ?? '';
    const [server] = stage.ours.servers;
    if (server === undefined) throw new Error('no gateway');
    const idle: number[] = [];
    const busy: number[] = [];
    const allocated: number[] = [];
    for (let run = 0; run < runs; run++) {
      await sleep(QUIET);
      idle.push(server.resident());
      allocated.push(server.allocated());
      let highest = 0;
      let done = false;
      const load = wrk(url(stage.ours, path), DOWNLOADS, seconds).finally(() => {
        done = true;
      });
      while (!done) {
        highest = Math.max(highest, server.resident());
        await sleep(LOOK);
      }
      await load;
      busy.push(highest);
    }
    // What a gateway that has only just started holds: the first idle value comes after one warm-up pull.
    const result = (figure: string, values: Series['values'], bound?: number): Result => ({
      scenario: '7  resident memory (PSS of all its processes)',
      figure,
      unit: 'MiB',
      better: 'less',
      ours: { peer: 'gateway', values },
      peers: [],
      ...(bound === undefined ? {} : { bound }),
      note: 'of pages of the program’s file a process counts its share, which depends on who else runs it',
    });
    return [
      result('idle, after its first pull', idle.slice(0, 1), 115),
      result('idle, after its first pull, without the program’s file', allocated.slice(0, 1)),
      result('idle again, after the load', idle.slice(1), 200),
      result(`${DOWNLOADS} concurrent downloads of 64 MiB`, busy, 200),
    ].filter(({ ours }) => ours.values.length > 0);
  } finally {
    await stage.stop();
  }
};
