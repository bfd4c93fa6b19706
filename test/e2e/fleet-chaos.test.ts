import { randomInt } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { afterEach, expect, it } from 'vitest';
import { awayFromMidnight } from '../support/clock.ts';
import { eventually } from '../support/eventually.ts';
import { Harm } from '../support/fleet-harm.ts';
import { violations } from '../support/fleet-history.ts';
import { FLEET_NETWORK } from '../support/fleet-network.ts';
import { POSTGRES } from '../support/postgres.ts';
import { describeWith } from '../support/programs.ts';
import { RealFleet } from '../support/real-fleet.ts';

/** How long there is harm. A long run: GATEWAY_TEST_CHAOS=600. */
const SECONDS = Number(process.env.GATEWAY_TEST_CHAOS ?? 60);
/**
 * What happens follows from it, but for how fast the machine is: GATEWAY_TEST_SEED repeats a run that failed. The short run, which is that of a pipeline, has
 * always the same; a longer one is for finding what nobody has thought of.
 */
const SEED = Number(process.env.GATEWAY_TEST_SEED ?? (SECONDS > 60 ? randomInt(2 ** 31) : 4));

const MIB = 1024 * 1024;
const LIFETIME = 60_000;
/** The greedy user reaches it before the end. */
const LIMIT = Math.max(1, SECONDS / 60) * 96 * MIB;
/** Of an order, at most: what a node that was stopped holds for so long. */
const LEASE = 60_000;
/** Buffers of both ends of a connection. */
const ON_THE_WAY = 512 * 1024;

describeWith([...POSTGRES, ...FLEET_NETWORK, 'versitygw', 'faketime'], 'three gateways under harm', () => {
  let bed: RealFleet | undefined;
  let harm: Harm | undefined;
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') {
      for (const { name, gateway } of bed?.nodes ?? []) console.error(`--- ${name}\n${complaints(gateway.log())}`);
    }
    await harm?.close();
    await bed?.close();
  });

  it(
    `give no wrong byte and lose no change in ${SECONDS} s of kills, pauses, cuts and losses (GATEWAY_TEST_SEED=${SEED})`,
    async () => {
      await awayFromMidnight();
      bed = await RealFleet.start({
        s3: true,
        lifetime: LIFETIME,
        ahead: [0, 4, -4],
        config: { limits: { bytesPerDay: String(LIMIT) }, cache: { tagTtl: '5s' } },
      });
      harm = await Harm.prepare(bed);
      await harm.run(SECONDS, SEED);
      const { nodes } = bed;
      await eventually('all nodes to know the same', async () => {
        const lists = await Promise.all(
          nodes.map(async ({ gateway }) =>
            [await gateway.ok('alias', 'ls', '--json'), await gateway.ok('user', 'ls', '--json')].map(names).join(),
          ),
        );
        return new Set(lists).size === 1;
      }).catch(() => {});
      const history = await harm.history(LIMIT);
      if (process.env.GATEWAY_TEST_HISTORY !== undefined) {
        writeFileSync(process.env.GATEWAY_TEST_HISTORY, JSON.stringify(history, null, 1));
      }
      const { pulls, changes, orders, fetches } = history;
      const faults = history.faults.filter(({ kind }) => kind !== 'starved');
      const starved = history.faults.length - faults.length;
      const served = pulls.filter(({ status }) => status === 200 || status === 206);
      const sum = fetches.reduce((all, { sent }) => all + sent, 0) / fetches.reduce((all, { size }) => all + size, 0);
      console.log(
        `seed ${SEED}: ${served.length} of ${pulls.length} pulls served, ${changes.filter(({ confirmed }) => confirmed).length} of ${changes.length} changes confirmed, ` +
          `${faults.length} faults (${faults.map(({ kind }) => kind).join(' ')}), ${orders.length} orders, ${fetches.length} blobs fetched ${sum.toFixed(2)} times; the machine stood still ${starved} times`,
      );
      expect(violations(history, { lifetime: LIFETIME, lease: LEASE, onTheWay: ON_THE_WAY, recovery: 10_000 })).toEqual(
        [],
      );
      // Something happened, on a busy machine too.
      expect(served.length).toBeGreaterThan(SECONDS / 6);
      expect(changes.filter(({ confirmed }) => confirmed).length).toBeGreaterThan(SECONDS / 30);
      expect(faults.length).toBeGreaterThan(SECONDS / 40);
    },
    (SECONDS + 240) * 1000,
  );
});

function names(json: string): string {
  return (JSON.parse(json) as { name: string }[])
    .map(({ name }) => name)
    .sort()
    .join();
}

function complaints(log: string): string {
  return log
    .split('\n')
    .filter((line) => /"level":"(warn|error|fatal)"/.test(line) || !line.startsWith('{'))
    .slice(-30)
    .join('\n');
}
