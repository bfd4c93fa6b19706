import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { addAliases } from '../aliases-file.ts';
import { layOut } from '../content.ts';
import { cpuOf, gateway, nginxStatic, Origin, type Peer } from '../peers.ts';
import { CLIENT_CORE, command } from '../process.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { warmUp } from './stage.ts';

const CLIENT = join(import.meta.dirname, '../handshake-client.ts');
/** Names that the client asks for in turn; the table holds more. */
const NAMES = 10;

interface Subject {
  readonly name: string;
  readonly peer: Peer;
  readonly hosts: readonly string[];
}

/** Handshakes a second as the client made them, and a second of the server's CPU. @throws where one was resumed that should not be, or the other way round */
async function shake(
  { peer, hosts }: Subject,
  seconds: number,
  kind: string,
): Promise<{ readonly rate: number; readonly cost: number }> {
  const before = cpuOf(peer);
  const output = await command(process.execPath, [CLIENT, String(peer.port), String(seconds), kind, ...hosts]);
  const { count, resumed, ...took } = JSON.parse(output) as { count: number; resumed: number; seconds: number };
  if (kind === 'resumed' && resumed < count) throw new Error(`${peer.name} resumed ${resumed} of ${count}`);
  if (kind === 'full' && resumed > 0) throw new Error(`${peer.name} resumed sessions that were not offered`);
  return { rate: count / took.seconds, cost: count / (cpuOf(peer) - before) };
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
    const hosts = addAliases(dataDir, origin.url, count).slice(-NAMES);
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
      const rates = subjects.map((): number[] => []);
      const costs = subjects.map((): number[] => []);
      await warmUp(subjects, async (subject) => (await shake(subject, 1, kind)).cost);
      for (let run = 0; run < runs; run++) {
        for (const [index, subject] of subjects.entries()) {
          const { rate, cost } = await shake(subject, seconds, kind);
          rates[index]?.push(rate);
          costs[index]?.push(cost);
        }
      }
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
        figure('handshakes a second of the server’s CPU', '1/s', 'more', costs, [0.9, 0.8]),
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
