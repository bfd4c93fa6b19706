import { Agent } from 'node:https';
import { expect } from 'vitest';
import { eventually } from './eventually.ts';
import type { TestGateway } from './gateway.ts';
import { caOf, type Received, type SendOptions, send } from './http-client.ts';

/** More than one, and more than the two that most machines of these tests would start by themselves. */
export const PROCESSES = 3;
/** Clients at once: as many of every process. */
export const CLIENTS = 12;

let marks = 0;

/** One client with a connection of its own, which stays open until `agent` is destroyed. */
export function get(gateway: TestGateway, path: string, options: Partial<SendOptions> = {}): Promise<Received> {
  return send({ ca: caOf(gateway), ...options, port: gateway.httpsPort, path });
}

/**
 * Clients with a connection each, as many of every process. The kernel gives a new connection to any process that is idle, so more than
 * these are opened, until every process has enough of them.
 */
export async function connected(gateway: TestGateway, options: Partial<SendOptions> = {}): Promise<Agent[]> {
  const byProcess = new Map<unknown, Agent[]>();
  await eventually(`${CLIENTS / PROCESSES} connections of each process`, async () => {
    const round = Array.from({ length: CLIENTS }, () => ({ agent: keptAgent(), mark: `mark/${++marks}` }));
    await Promise.all(
      round.map(({ agent, mark }) =>
        // Refused before anyone is asked for credentials, and counted for no limit.
        get(gateway, '/', {
          ...options,
          method: 'DELETE',
          agent,
          headers: { ...(options.headers as object), 'user-agent': mark },
        }),
      ),
    );
    for (const { agent, mark } of round) {
      await eventually(`the log line of ${mark}`, () => linesOf(gateway, mark).length > 0);
      const [line] = linesOf(gateway, mark);
      const agents = byProcess.get(line?.worker) ?? [];
      byProcess.set(line?.worker, [...agents, agent]);
    }
    return (
      byProcess.size === PROCESSES && [...byProcess.values()].every((agents) => agents.length >= CLIENTS / PROCESSES)
    );
  });
  const all = [...byProcess.values()];
  for (const agents of all) for (const agent of agents.slice(CLIENTS / PROCESSES)) agent.destroy();
  return all.flatMap((agents) => agents.slice(0, CLIENTS / PROCESSES));
}

/** Asks as many clients of every process at once, and makes sure that every process was asked. */
export async function everywhere(
  gateway: TestGateway,
  path: string,
  options: Partial<SendOptions> = {},
  leaves?: (client: number, bytes: number) => boolean,
): Promise<Received[]> {
  const mark = `mark/${++marks}`;
  const { pause: _, ...connection } = options;
  const agents = await connected(gateway, connection);
  const headers = { ...(options.headers as object), 'user-agent': mark };
  const answers = await Promise.all(
    agents.map((agent, client) => {
      const onBytes = (bytes: number, leave: () => void): void => void (leaves?.(client, bytes) === true && leave());
      return get(gateway, path, { ...options, agent, headers, onBytes });
    }),
  );
  await eventually(`a log line for each request of ${mark}`, () => linesOf(gateway, mark).length === CLIENTS);
  for (const agent of agents) agent.destroy();
  expect(new Set(linesOf(gateway, mark).map(({ worker }) => worker)).size).toBe(PROCESSES);
  return answers;
}

/** Holds one connection. */
function keptAgent(): Agent {
  return new Agent({ keepAlive: true, maxSockets: 1 });
}

export function linesOf(gateway: TestGateway, mark: string): Record<string, unknown>[] {
  return gateway.logLines().filter(({ userAgent }) => userAgent === mark);
}

export function statuses(answers: readonly Received[]): number[] {
  return [...new Set(answers.map(({ status }) => status))];
}

/** Resolves once connections go to every process. */
export async function allServe(gateway: TestGateway): Promise<void> {
  await eventually(
    'every process to take connections',
    async () => JSON.parse(await gateway.ok('status', '--json')).workers === PROCESSES,
  );
}
