import { expect, test } from 'vitest';
import { checkClock } from '../../../src/admin/doctor/clock.ts';
import { mapInOrder } from '../../../src/admin/doctor/registries.ts';
import { servedProblem } from '../../../src/admin/probe.ts';
import type { CertificateInfo } from '../../../src/certs/service.ts';

test('the clock is judged by the median', () => {
  expect(checkClock([], false).level).toBe('warn');
  expect(checkClock([100, -200, 86_400_000], false).level).toBe('ok');
  expect(checkClock([60_000, 61_000, 0], false)).toMatchObject({
    level: 'warn',
    message: expect.stringContaining('60 s behind'),
  });
  expect(checkClock([-600_000], false)).toMatchObject({
    level: 'fail',
    message: expect.stringContaining('600 s ahead'),
  });
});

test('each runs a few at once and keeps the order', async () => {
  let running = 0;
  let most = 0;
  const seen: number[] = [];
  const gates = Array.from({ length: 5 }, () => Promise.withResolvers<void>());
  // The first ends last.
  const work = mapInOrder([0, 1, 2, 3, 4], 2, async (n) => {
    most = Math.max(most, ++running);
    await gates[n]?.promise;
    running--;
    return n;
  });
  for (const gate of gates.toReversed()) gate.resolve();
  for await (const n of work) seen.push(n);
  expect(seen).toEqual([0, 1, 2, 3, 4]);
  expect(most).toBe(2);
});

test('each passes a failure on in its turn, and leaves none unhandled', async () => {
  const work = mapInOrder(['a', 'b', 'c'], 3, async (item) => {
    if (item !== 'a') throw new Error(item);
    return item;
  });
  expect((await work.next()).value).toBe('a');
  await expect(work.next()).rejects.toThrow('b');
});

const INFO: CertificateInfo = {
  host: 'a.example.com',
  state: 'valid',
  issuer: 'CA',
  serial: '00:AB:cd',
  notBefore: null,
  notAfter: null,
  lastError: null,
  nextAttempt: null,
};

test('an alias is served where the listener answers under the very certificate', () => {
  expect(servedProblem({ status: 200, serial: 'ABCD' }, INFO)).toBeNull();
  expect(servedProblem({ status: 401, serial: 'abcd' }, INFO)).toBeNull();
  expect(servedProblem({ status: 404, serial: 'ABCD' }, INFO)).toContain('404');
  expect(servedProblem({ status: 200, serial: 'ABCE' }, INFO)).toContain('ABCE');
  expect(servedProblem({ status: 200, serial: null }, INFO)).toContain('none');
  expect(servedProblem({ status: 200, serial: null }, null)).toBeNull();
  expect(servedProblem(new Error('refused'), INFO)).toBe('refused');
});
