import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { addAliases } from '../aliases-file.ts';
import { layOut } from '../content.ts';
import { cpuOf, gateway, nginxStatic, Origin, type Peer } from '../peers.ts';
import { CLIENT_CORE, runOver } from '../process.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { HeldClient, inSlices, type Loaded, slice } from '../slices.ts';
import { warmUp } from '../warm-up.ts';

const CLIENT = join(import.meta.dirname, '../handshake-client.ts');
/** Names that the client asks for in turn; the table holds more. */
const NAMES = 10;

/** ms: over a hundred handshakes, short against the time in which a shared machine changes its speed. */
const SLICE = 150;

interface Subject {
  readonly name: string;
  readonly peer: Peer;
  readonly hosts: readonly string[];
}

/** A client that shakes hands with it. */
function shaking({ peer, hosts }: Subject, kind: string, file: string): Loaded & { readonly resumed: () => number } {
  const client = new HeldClient(process.execPath, CLIENT, String(peer.port), kind, file, ...hosts);
  const counts = (): Float64Array => new Float64Array(Uint8Array.from(readFileSync(file)).buffer);
  return { client, done: () => counts()[0] ?? 0, resumed: () => counts()[1] ?? 0, cpu: () => cpuOf(peer) };
}

/** 6: TLS handshakes, full and resumed, with 10 and with 1,000 aliases in the table. */
export const handshakes: Scenario = async (bench, { runs, seconds }) => {
  mkdirSync(bench.dir, { recursive: true });
  const root = join(bench.dir, 'origin');
  layOut(root, 'library/app', 'v1', [1024]);
  const origin = await Origin.start(bench, root, CLIENT_CORE);
  const subjects: Subject[] = [];
  for (const count of [1_000, 10]) {
    const dataDir = join(bench.dir, `gateway-${count}`);
    const hosts = (await addAliases(dataDir, origin.url, count)).slice(-NAMES);
    subjects.push({
      name: `gateway, ${count} aliases`,
      peer: await gateway(bench, '', origin.url, { dataDir }),
      hosts,
    });
  }
  const c = await nginxStatic(bench, 'c', root);
  subjects.push({ name: c.name, peer: c, hosts: ['localhost'] });
  try {
    const results: Result[] = [];
    for (const kind of ['full', 'resumed']) {
      const loads: ReturnType<typeof shaking>[] = [];
      for (const [index, subject] of subjects.entries()) {
        const file = join(bench.dir, `${kind}-${index}`);
        const load = shaking(subject, kind, file);
        loads.push(load);
        while (!existsSync(file) || statSync(file).size === 0) await sleep(20, undefined, { signal: runOver });
        load.client.hold();
      }
      await warmUp(loads, (load) => slice(load, 1_000));
      const slices = await inSlices(loads, runs * seconds, SLICE);
      for (const [index, load] of loads.entries()) {
        const [all, resumed] = [load.done(), load.resumed()];
        const expected = kind === 'resumed' ? all : 0;
        if (resumed !== expected) throw new Error(`${subjects[index]?.name} resumed ${resumed} of ${all}`);
        await load.client.end();
      }
      const rates = slices.map((each) => each.map(({ units, seconds }) => units / seconds));
      // Nothing was done in a slice that a client of which the server has tired spends on connecting anew.
      const costs = slices.map((each) => each.map(({ units, cpu }) => (units === 0 ? 0 : units / cpu)));
      const figure = (
        what: string,
        unit: string,
        better: Result['better'],
        values: number[][],
        goals: number[],
      ): Result => ({
        scenario: `6  TLS handshakes, ${kind}`,
        figure: what,
        unit,
        better,
        ours: { peer: subjects[0]?.name ?? '', values: values[0] ?? [] },
        peers: subjects.slice(1).map(({ name }, index) => ({
          series: { peer: name, values: values[index + 1] ?? [] },
          ...(goals[index] === undefined ? {} : { goal: goals[index] }),
        })),
      });
      // "Same as with 10 aliases" leaves the machine's own noise.
      results.push(
        figure('handshakes a second of the server’s CPU', '1/s', 'more', costs, [0.9, kind === 'full' ? 0.75 : 0.8]),
        figure('handshakes as the client made them', '1/s', 'more', rates, []),
      );
    }
    const last = results.at(-1);
    if (last !== undefined) {
      results[results.length - 1] = {
        ...last,
        note: 'keys are agreed on by X25519, the group that all servers know; a client checks a signature where a server makes one, which is dearer: its core is the limit, so the goal is held against the server’s CPU',
      };
    }
    return results;
  } finally {
    for (const { peer } of subjects) await peer.stop();
    await origin.server.stop();
  }
};
