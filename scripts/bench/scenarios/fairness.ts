import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Image, layOut } from '../content.ts';
import { connections, get } from '../get.ts';
import { type Bench, cpuOf, gateway, Origin, type Peer } from '../peers.ts';
import { CLIENT_CORE, freePort, Server } from '../process.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { imagePaths, url } from './stage.ts';

/** The hosts that the gateway knows the hostile registry by; documents that drip hold up wide ones of the same registry. */
const HOSTILE_HOST = 'hostile.test';
const WIDE_HOST = 'wide.test';
const LAYER = 256 * 1024;
/**
 * Honest clients begin a pull at an even pace: so slow that neither core is full, or what is measured would be how the kernel shares it. A pull
 * that takes longer than its client's pace is missing in the rate.
 */
const WARM = { clients: 4, every: 50 };
const COLD = { clients: 4, every: 400 };
/** What a gateway may be slow at in its first seconds is none of this. s */
const WARM_UP = 2;
/** Between the first of the troublemakers and the measurement, ms. */
const SETTLE = 1_000;
const HEALTH_EVERY = 20;
const HEALTH_BOUND = 100;
const GOAL = 0.9;

/** Of one time: pulls a second, and the longest that `/healthz` took, ms. */
interface Measured {
  readonly warm: number;
  readonly cold: number;
  readonly health: number;
  readonly failed: number;
  /** Share of a core that the gateway used. */
  readonly cpu: number;
}

/** fairness: warm and cold pulls of honest clients, alone and beside a hostile registry and its clients. */
export const fairness: Scenario = async (bench, { runs, seconds }) => {
  mkdirSync(bench.dir, { recursive: true });
  const root = join(bench.dir, 'origin');
  const warm = layOut(root, 'library/warm', 'v1', [LAYER]);
  const count =
    Math.ceil(((WARM_UP + 2 * runs * seconds) * 1000 * COLD.clients) / COLD.every) + (2 * runs + 1) * COLD.clients;
  const cold = Array.from({ length: count }, (_, index) => layOut(root, 'library/cold', `v${index}`, [LAYER]));
  const origin = await Origin.start(bench, root, CLIENT_CORE);
  const hostile = await Hostile.start(bench);
  const registries = { [HOSTILE_HOST]: hostile.url, [WIDE_HOST]: hostile.url };
  const peer = await gateway(bench, 'gateway', origin.url, { registries });
  try {
    const measure = honest(peer, warm, cold);
    await measure(WARM_UP);
    const alone: Measured[] = [];
    const beside: Measured[] = [];
    for (let run = 0; run < runs; run++) {
      alone.push(await measure(seconds));
      await hostile.begin(peer.port);
      await sleep(SETTLE);
      beside.push(await measure(seconds));
      await hostile.end();
      await sleep(SETTLE);
    }
    return results(alone, beside, hostile.report());
  } finally {
    await peer.stop();
    await hostile.server.stop();
    await origin.server.stop();
  }
};

/** Each client with an address of its own. Every call goes on with images that nobody has asked for. */
function honest(peer: Peer, warm: Image, cold: readonly Image[]): (seconds: number) => Promise<Measured> {
  const agents = (net: number, clients: number) =>
    Array.from({ length: clients }, (_, client) => connections(1, `127.2.${net}.${1 + client}`));
  const [warmAgents, coldAgents] = [agents(1, WARM.clients), agents(2, COLD.clients)];
  const [healthAgent] = agents(3, 1);
  let next = 0;
  return async (seconds) => {
    const [started, used] = [performance.now(), cpuOf(peer)];
    const until = started + seconds * 1000;
    let failed = 0;
    let health = 0;
    /** How many pulls ended in time. */
    const paced = async (every: number, pull: () => Promise<void>): Promise<number> => {
      let done = 0;
      while (performance.now() < until) {
        const started = performance.now();
        const ended = pull().then(
          () => {
            if (performance.now() < until) done += 1;
          },
          () => {
            failed += 1;
          },
        );
        await Promise.race([ended, sleep(until - started)]);
        await sleep(Math.max(0, Math.min(until, started + every) - performance.now()));
      }
      return done;
    };
    const image = async (agent: (typeof warmAgents)[number], { paths }: { paths: readonly string[] }) => {
      for (const path of paths) {
        const { status } = await get(url(peer, path), { agent, headers: { accept: '*/*' } });
        if (status !== 200) throw new Error(`${path}: ${status}`);
      }
    };
    const ask = async (): Promise<void> => {
      if (healthAgent === undefined) return;
      const started = performance.now();
      await get(`https://localhost:${peer.port}/healthz`, { agent: healthAgent });
      health = Math.max(health, performance.now() - started);
    };
    const rate = async (pulls: Promise<number>[]) =>
      (await Promise.all(pulls)).reduce((sum, done) => sum + done, 0) / seconds;
    const fresh = (): { paths: readonly string[] } => {
      const image = cold[next++];
      if (image === undefined) throw new Error('no image is left that nobody has asked for');
      return { paths: [...imagePaths(image), `${image.repository}/blobs/${image.configDigest}`] };
    };
    const kept = { paths: imagePaths(warm) };
    const [warmRate, coldRate] = await Promise.all([
      rate(warmAgents.map((agent) => paced(WARM.every, () => image(agent, kept)))),
      rate(coldAgents.map((agent) => paced(COLD.every, () => image(agent, fresh())))),
      paced(HEALTH_EVERY, ask),
    ]);
    const cpu = (cpuOf(peer) - used) / ((performance.now() - started) / 1000);
    return { warm: warmRate, cold: coldRate, health, failed, cpu };
  };
}

class Hostile {
  readonly server: Server;
  readonly url: string;
  readonly #counts: Record<string, number>[] = [];

  private constructor(server: Server, url: string) {
    this.server = server;
    this.url = url;
  }

  static async start(bench: Bench): Promise<Hostile> {
    const port = await freePort();
    const server = await Server.start({
      cpus: CLIENT_CORE,
      command: process.execPath,
      args: [join(import.meta.dirname, '../hostile-client.ts'), String(port), HOSTILE_HOST, WIDE_HOST],
      port,
      cwd: bench.dir,
    });
    return new Hostile(server, `http://127.0.0.1:${port}`);
  }

  async begin(port: number): Promise<void> {
    await fetch(`${this.url}/begin?port=${port}`, { method: 'POST' });
  }

  async end(): Promise<void> {
    const answer = await fetch(`${this.url}/end`, { method: 'POST' });
    this.#counts.push((await answer.json()) as Record<string, number>);
  }

  /** What became of its clients in the last run. */
  report(): string {
    const { asked = 0, answered = 0, dripping = 0, wide = 0 } = this.#counts.at(-1) ?? {};
    return `in the last run ${answered} of ${asked} lazy readers were answered, ${dripping} dripping documents asked for, ${wide} wide manifests fetched`;
  }
}

function results(alone: readonly Measured[], beside: readonly Measured[], report: string): Result[] {
  const scenario = 'fairness  honest clients beside a hostile registry and its clients';
  const of = (of: keyof Measured) => ({
    ours: { peer: 'beside them', values: beside.map((one) => one[of]) },
    alone: { peer: 'alone', values: alone.map((one) => one[of]) },
  });
  const rates = (['warm', 'cold'] as const).map((kind): Result => {
    const { ours, alone: series } = of(kind);
    return {
      scenario,
      figure: `${kind} pulls`,
      unit: '1/s',
      better: 'more',
      ours,
      peers: [{ series, goal: GOAL }],
    };
  });
  const health = of('health');
  const failed = of('failed');
  const cpu = of('cpu');
  return [
    ...rates,
    {
      scenario,
      figure: 'longest answer of /healthz',
      unit: 'ms',
      better: 'less',
      ours: health.ours,
      peers: [{ series: health.alone }],
      bound: HEALTH_BOUND,
    },
    {
      scenario,
      figure: 'server CPU',
      unit: 'cores',
      better: 'less',
      ours: cpu.ours,
      peers: [{ series: cpu.alone }],
    },
    {
      scenario,
      figure: 'pulls that failed',
      unit: 'pulls',
      better: 'less',
      ours: failed.ours,
      peers: [],
      bound: 0,
      note: report,
    },
  ];
}
