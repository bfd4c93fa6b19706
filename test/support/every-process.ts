import { Agent } from 'node:https';
import { expect } from 'vitest';
import { eventually } from './eventually.ts';
import type { TestGateway } from './gateway.ts';
import { caOf, type Received, type SendOptions, send } from './http-client.ts';

/** More than one, and more than the two that most machines of these tests would start by themselves. */
export const PROCESSES = 3;
/** Connections at once: connections go to whoever has the fewest, so every process gets some. */
export const CLIENTS = 12;

let marks = 0;

/** One client with a connection of its own, which stays open until `agent` is destroyed. */
export function get(gateway: TestGateway, path: string, options: Partial<SendOptions> = {}): Promise<Received> {
  return send({ ca: caOf(gateway), ...options, port: gateway.httpsPort, path });
}

/** Asks on many new connections at once, and makes sure that every process was asked. */
export async function everywhere(
  gateway: TestGateway,
  path: string,
  options: Partial<SendOptions> = {},
  leaves?: (client: number, bytes: number) => boolean,
): Promise<Received[]> {
  const mark = `mark/${++marks}`;
  const agents = Array.from({ length: CLIENTS }, () => new Agent({ keepAlive: true }));
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
