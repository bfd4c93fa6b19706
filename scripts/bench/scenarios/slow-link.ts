import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { slowLink } from '../../../test/support/slow-link.ts';
import { layOut } from '../content.ts';
import type { Got } from '../get.ts';
import { fetchOnce } from '../load.ts';
import { gateway, Origin } from '../peers.ts';
import { CLIENT_CORE } from '../process.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { imagePaths, MiB, url } from './stage.ts';

const SIZE = 64 * MiB;
/** A registry on another continent behind a link that gives each connection little: ms, and bytes a second of one connection. */
const ROUND_TRIP = 100;
const RATE = 2 * MiB;

/** slow: a cold blob over a link that is slow for each connection: as many connections as help against one. */
export const coldOverSlowLink: Scenario = async (bench, { runs }) => {
  mkdirSync(bench.dir, { recursive: true });
  const root = join(bench.dir, 'origin');
  const image = layOut(root, 'library/slow', 'v1', [SIZE]);
  const origin = await Origin.start(bench, root, CLIENT_CORE);
  const link = await slowLink({ to: origin.port, roundTripMs: ROUND_TRIP, bytesPerSecond: RATE });
  try {
    const blob = imagePaths(image)[1] ?? '';
    const many: Got[] = [];
    const one: Got[] = [];
    for (let run = 0; run < runs; run++) {
      for (const [connections, into] of [
        ['1', one],
        ['auto', many],
      ] as const) {
        const env = { GATEWAY_UPSTREAM_CONNECTIONS: connections };
        const peer = await gateway(bench, 'gateway', link.url, { env });
        into.push(await fetchOnce(url(peer, blob)));
        await peer.stop();
        rmSync(join(bench.dir, 'gateway'), { recursive: true, force: true });
      }
    }
    return (['first', 'last'] as const).map(
      (figure): Result => ({
        scenario: `slow  cold 64 MiB blob, upstream ${ROUND_TRIP} ms away at ${RATE / MiB} MiB/s a connection`,
        figure: `time to ${figure} byte`,
        unit: 's',
        better: 'less',
        ours: { peer: 'as many as help', values: many.map((fetched) => fetched[figure]) },
        peers: [
          {
            series: { peer: 'one connection', values: one.map((fetched) => fetched[figure]) },
            goal: figure === 'last' ? 3 : 1 / 1.1,
          },
        ],
      }),
    );
  } finally {
    await link.close();
    await origin.server.stop();
    rmSync(root, { recursive: true });
  }
};
