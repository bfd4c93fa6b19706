import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Agent, type RequestOptions, request } from 'node:https';
import { join } from 'node:path';
import { expect } from 'vitest';
import { eventually } from './eventually.ts';
import type { TestGateway } from './gateway.ts';

/** More than one, and more than the two that most machines of these tests would start by themselves. */
export const PROCESSES = 3;
/** Connections at once: connections go to whoever has the fewest, so every process gets some. */
export const CLIENTS = 12;

export interface Got {
  readonly status: number;
  readonly digest: string;
  readonly bytes: number;
  readonly whole: boolean;
  readonly text: string;
}

export interface Ask extends RequestOptions {
  readonly onBytes?: (bytes: number, leave: () => void) => void;
  /** Called with the first bytes; no more are taken until what it returns resolves. */
  readonly pause?: () => Promise<void>;
}

let marks = 0;

/** One client with a connection of its own, which stays open until `agent` is destroyed. */
export function get(gateway: TestGateway, path: string, { onBytes, pause, ...options }: Ask = {}): Promise<Got> {
  return new Promise((resolve) => {
    const hash = createHash('sha256');
    let [status, bytes, text, complete] = [0, 0, '', false];
    const sent = request({
      host: '127.0.0.1',
      port: gateway.httpsPort,
      servername: 'localhost',
      ca: readFileSync(join(gateway.dataDir, 'ca.crt')),
      path,
      ...options,
    });
    sent.on('error', () => {});
    sent.on('response', (response) => {
      status = response.statusCode ?? 0;
      response.on('error', () => {});
      response.once('data', () => {
        if (pause === undefined) return;
        response.pause();
        void pause().then(() => response.resume());
      });
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        hash.update(chunk);
        if (text.length < 4096 && status !== 206 && bytes < 4096) text += chunk.toString();
        onBytes?.(bytes, () => sent.destroy());
      });
      response.on('end', () => {
        complete = response.complete;
      });
    });
    sent.on('close', () => resolve({ status, bytes, text, whole: complete, digest: `sha256:${hash.digest('hex')}` }));
    sent.end();
  });
}

/** Asks on many new connections at once, and makes sure that every process was asked. */
export async function everywhere(
  gateway: TestGateway,
  path: string,
  options: Ask = {},
  leaves?: (client: number, bytes: number) => boolean,
): Promise<Got[]> {
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

export function statuses(answers: readonly Got[]): number[] {
  return [...new Set(answers.map(({ status }) => status))];
}

/** Resolves once connections go to every process. */
export async function allServe(gateway: TestGateway): Promise<void> {
  await eventually(
    'every process to take connections',
    async () => JSON.parse(await gateway.ok('status', '--json')).workers === PROCESSES,
  );
}
