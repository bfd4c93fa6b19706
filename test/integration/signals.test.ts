import { readFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { prepareGateway, type TestGateway } from '../support/gateway.ts';
import type { Program } from '../support/processes.ts';

let gateway: TestGateway;
let program: Program | undefined;
afterEach(async () => {
  await program?.end();
  await gateway.close();
});

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);

test.each([
  ['started by scripts/gateway', true],
  ['started by node alone', false],
])('SIGHUP and SIGUSR1 neither end it nor open a debugger (%s)', async (_, byScript) => {
  gateway = await prepareGateway({ config: { listen: { workers: 2 } } });
  let pid: number;
  if (byScript) {
    await gateway.start();
    pid = gateway.pid();
  } else {
    program = gateway.begin('serve');
    await program.waitFor(/"listening on /);
    pid = program.pid;
  }
  const log = () => program?.output() ?? gateway.log();
  await eventually('the worker takes connections', async () => {
    const status = await gateway.cli(['status', '--json']);
    return (JSON.parse(status.stdout) as { workers: number }).workers === 2;
  });
  const workers = childrenOf(pid);
  expect(workers).toHaveLength(1);
  for (const each of [pid, ...workers]) {
    process.kill(each, 'SIGUSR1');
    process.kill(each, 'SIGHUP');
  }
  await eventually('it has seen them', () => /the configuration was read again/.test(log()));
  for (let n = 0; n < 8; n++) expect((await fetch(`http://127.0.0.1:${gateway.httpPort}/healthz`)).status).toBe(200);
  expect(childrenOf(pid)).toEqual(workers);
  expect(log()).not.toMatch(/debugger|inspector|a worker ended/i);
});
