import type { Got } from '../get.ts';
import { download } from '../load.ts';
import { gateway, nginxAndRegistry, type Peer } from '../peers.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import {
  BLOB,
  beginning,
  cold,
  coldGateway,
  LINK,
  straight,
  withLink,
  withOneConnection,
  withOrigin,
} from './cold-stage.ts';
import { imagePaths, url } from './stage.ts';

/** 4: one client, a cold blob of 256 MiB over a link: first byte and last byte, against a fetch straight over that link. */
export const coldBlob: Scenario = (bench, { runs }) =>
  withLink(bench, [BLOB], async ({ image, before, link }) => {
    const [, blob = ''] = imagePaths(image);
    const paths = [...imagePaths(before), ...beginning(image), blob];
    const ours: Got[] = [];
    const direct: Got[] = [];
    for (let run = 0; run < runs; run++) {
      direct.push(await withOneConnection(straight(link), paths));
      ours.push(await coldGateway(bench, link, (at) => withOneConnection(at, paths)));
    }
    return (['first', 'last'] as const).map(
      (figure): Result => ({
        scenario: `4  cold 256 MiB blob, 1 client, ${LINK.words}`,
        figure: `time to ${figure} byte`,
        unit: 's',
        better: 'less',
        ours: { peer: 'gateway', values: ours.map((got) => got[figure]) },
        // "Within 1.1 × of": the gateway may take 1.1 times as long.
        peers: [
          {
            series: { peer: 'straight over the link', values: direct.map((got) => got[figure]) },
            goal: 1 / 1.1,
          },
        ],
        note: 'straight is plain HTTP; the gateway also decides, keeps, hashes and encrypts. Both fetch another image of 60 layers first, and the manifest and the configuration of this one, as a pull does',
      }),
    );
  });

const CROWD = 20;

/** 5: 20 clients at once, a cold blob of 256 MiB. */
export const coldCrowd: Scenario = (bench, { runs }) =>
  withOrigin(bench, [BLOB], async ({ origin, image }) => {
    const path = imagePaths(image)[1] ?? '';
    const part = image.layers[0]?.digest ?? '';
    const times: Record<string, number[]> = { gateway: [], '(a) nginx + registry': [] };
    const used: number[] = [];
    const shares: Record<string, number[]> = { gateway: [], '(a) nginx + registry': [] };
    const starts: [() => Promise<Peer>, string[]][] = [
      [() => gateway(bench, 'gateway', origin.url), ['gateway']],
      [() => nginxAndRegistry(bench, 'a', origin.url), ['a', 'a-nginx', 'a-registry']],
    ];
    for (let run = 0; run < runs; run++) {
      for (const [begin, directories] of starts) {
        const before = origin.bytes(part);
        await cold(bench, begin, directories, async (peer) => {
          const { seconds, busy } = await download(url(peer, path), CROWD, CROWD);
          times[peer.name]?.push(seconds);
          if (peer.name === 'gateway') used.push(busy);
          shares[peer.name]?.push((origin.bytes(part) - before) / BLOB);
        });
      }
    }
    const result = (
      figure: string,
      unit: string,
      from: Record<string, number[]>,
      more: Partial<Result>,
      goal?: number,
    ): Result => ({
      scenario: `5  cold 256 MiB blob, ${CROWD} clients at once`,
      figure,
      unit,
      better: 'less',
      ours: { peer: 'gateway', values: from.gateway ?? [] },
      peers: [
        {
          series: { peer: '(a) nginx + registry', values: from['(a) nginx + registry'] ?? [] },
          ...(goal === undefined ? {} : { goal }),
        },
      ],
      ...more,
    });
    return [
      result(
        'time until the last client has all',
        's',
        times,
        {
          note: `the clients used at most ${Math.round(Math.max(...used) * 100)} % of their core with the gateway, the upstream a part of the rest`,
        },
        3,
      ),
      result('bytes from upstream', '× the blob', shares, { bound: 1 }),
    ];
  });
