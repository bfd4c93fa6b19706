import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { layOut } from '../content.ts';
import { CpuQuotas } from '../cpu-quota.ts';
import { fetchOnce, wrk } from '../load.ts';
import { type Bench, gateway, Origin, type Peer } from '../peers.ts';
import { CLIENT_CORE } from '../process.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { median } from '../stats.ts';
import { against, imagePaths, inTurn, MiB, url } from './stage.ts';

/** Of the servers' core, for each process: two of them leave room on it, and the client's core has room for what they send. */
const SHARE = 0.3;
const CONNECTIONS = [4, 64];
const GOAL = 1.7;

/**
 * Two workers against one on a warm blob. Two processes that may use what they like would need two cores for themselves and a third for
 * the client. Here each process gets the same share of a core, and both have it on the servers' core: where the second one had it on the
 * client's, it lost caches to the client that the one worker never shared. What two cores do to each other is not seen this way.
 */
export const workers: Scenario = async (bench, { runs, seconds }) => {
  mkdirSync(bench.dir, { recursive: true });
  const quotas = new CpuQuotas();
  const root = join(bench.dir, 'origin');
  const path = imagePaths(layOut(root, 'library/app', 'v1', [64 * MiB]))[1] ?? '';
  const origin = await Origin.start(bench, root, CLIENT_CORE);
  const peers: Peer[] = [];
  try {
    for (const count of [2, 1]) {
      const peer = await gatewayOf(bench, origin.url, count);
      peers.push(peer);
      for (let pull = 0; pull < 2 * count; pull++) await fetchOnce(url(peer, path));
      const pids = processes(peer);
      if (!pids.every((pid) => quotas.limit(SHARE, pid))) {
        console.error('workers: skipped, this user cannot give processes a CPU quota (control groups, version 1 or 2)');
        return [];
      }
    }
    const results: Result[] = [];
    for (const connections of CONNECTIONS) {
      const busy: number[] = [];
      const used = new Map(peers.map((peer): [Peer, number[]] => [peer, []]));
      const series = await inTurn(peers, runs, async (peer) => {
        const before = cpu(peer);
        const measured = await wrk(url(peer, path), connections, seconds);
        used.get(peer)?.push((cpu(peer) - before) / seconds);
        busy.push(measured.busy);
        return measured.bytes / 1e6;
      });
      const shares = peers.map((peer) => `${peer.name} ${percent(median(used.get(peer) ?? []))}`).join(', ');
      results.push({
        scenario: `workers  warm 64 MiB blob, ${connections} connections, each process with ${percent(SHARE)} of a core`,
        figure: 'body bytes',
        unit: 'MB/s',
        better: 'more',
        ...against(series, [GOAL]),
        note:
          `CPU used, of one core: ${shares} (what it was given, unless the client was the limit); ` +
          `the client: ${percent(median(busy))}, at most ${percent(Math.max(...busy))}`,
      });
    }
    return results;
  } finally {
    for (const peer of peers) await peer.stop();
    await origin.server.stop();
    quotas.remove();
  }
};

/** Less CPU than this between two looks, s, is none. */
const STILL = 0.02;

async function gatewayOf(bench: Bench, origin: string, count: number): Promise<Peer> {
  const peer = await gateway(bench, `workers-${count}`, origin, { workers: count });
  const deadline = Date.now() + 30_000;
  // A process that has just been started takes connections once it has loaded its program: then it holds still, but for a look at itself.
  for (let before = Number.NaN; processes(peer).length !== count || !(cpu(peer) - before < STILL); ) {
    if (Date.now() > deadline) throw new Error(`the gateway has ${processes(peer).length} processes, not ${count}`);
    before = cpu(peer);
    await sleep(500);
  }
  return { ...peer, name: `${count} worker${count === 1 ? '' : 's'}` };
}

function processes(peer: Peer): number[] {
  return peer.servers.flatMap((server) => server.pids());
}

function cpu(peer: Peer): number {
  return peer.servers.reduce((sum, server) => sum + server.cpu(), 0);
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
