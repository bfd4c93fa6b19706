import { expect, it } from 'vitest';
import { silentLog } from '../../../src/telemetry/log.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { Budgets, type Question } from '../../../src/upstream/budgets.ts';
import { BudgetError, StatusError } from '../../../src/upstream/failures.ts';

const signal = new AbortController().signal;
const HOST = 'registry.test';
const question: Question = {
  repository: 'org/app',
  sparing: false,
  route: {
    host: HOST,
    endpoints: [`https://${HOST}`],
    proxy: null,
    credentials: null,
    named: [],
    realms: [],
    ca: null,
  },
  endpoint: new URL(`https://${HOST}`),
  method: 'GET',
  what: 'blobs',
  isAdditional: false,
};

it('a guard that says nothing of how long is left alone for seconds at first, and longer each time that it refuses again', async () => {
  const clock = { at: 0 };
  const budgets = new Budgets(new Metrics(), silentLog(), () => clock.at);
  /** Seconds that it rests after so many refusals at the same moment. */
  const refused = async (times = 1, retryAfter?: number): Promise<number | undefined> => {
    const admitted = await Promise.all(Array.from({ length: times }, () => budgets.admit(question, signal)));
    for (const one of admitted) {
      one.refused(new StatusError(429, HOST, retryAfter), { headers: {}, isJson: false });
      one.close();
    }
    const error: unknown = await budgets.admit(question, signal).catch((reason: unknown) => reason);
    return error instanceof BudgetError ? error.retryAfter : undefined;
  };
  const pauses: (number | undefined)[] = [];
  for (let i = 0; i < 6; i++) {
    const pause = await refused(3);
    pauses.push(pause);
    clock.at += (pause ?? 0) * 1000 + 1;
  }
  expect(pauses).toEqual([5, 10, 20, 40, 60, 60]);
  clock.at += 601_000;
  expect(await refused()).toBe(5);
  clock.at += 6_000;
  expect(await refused(1, 40)).toBe(40);
});
