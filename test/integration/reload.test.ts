import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ReloadReport } from '../../src/admin/contract.ts';
import { eventually } from '../support/eventually.ts';
import { allServe, everywhere, PROCESSES, statuses } from '../support/every-process.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';

const KEPT = { log: { level: 'info' }, listen: { workers: PROCESSES } };

let upstream: FakeRegistry;
let gateway: TestGateway;
beforeAll(async () => {
  upstream = await FakeRegistry.start();
  gateway = await startGateway({ config: KEPT });
  await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
  await allServe(gateway);
});
afterAll(async () => {
  await gateway.close();
  await upstream.close();
});
showLogOfFailures(() => gateway);

/** Writes the configuration as it was at the start, with this laid over it, and has it read again. */
async function reload(more: Readonly<Record<string, unknown>> = {}): Promise<ReloadReport> {
  gateway.configure({ ...more, listen: listening() });
  return JSON.parse(await gateway.ok('reload', '--json')) as ReloadReport;
}

const listening = () => ({
  https: `127.0.0.1:${gateway.httpsPort}`,
  http: `127.0.0.1:${gateway.httpPort}`,
  workers: PROCESSES,
});

const keysOf = (changes: ReloadReport['changed']) => changes.map(({ key }) => key);

describe('a configuration that is read again', () => {
  test('changes nothing where it is the same', async () => {
    expect(await reload()).toEqual({ changed: [], restart: [], warnings: [] });
  });

  test('is in force in every process when the command has ended', async () => {
    const { changed } = await reload({ access: { anonymous: false } });
    expect(changed).toEqual([{ key: 'access.anonymous', from: 'none', to: 'false' }]);
    expect(statuses(await everywhere(gateway, '/v2/'))).toEqual([401]);
    await reload({ access: { deny: ['127.0.0.0/8'] } });
    expect(statuses(await everywhere(gateway, '/v2/'))).toEqual([403]);
    await reload();
    expect(statuses(await everywhere(gateway, '/v2/'))).toEqual([200]);
  });

  test('limits requests from then on, of all processes together', async () => {
    await reload({ limits: { requestsPerMinute: 1 } });
    expect(statuses(await everywhere(gateway, '/v2/'))).toContain(429);
    await reload();
    expect(statuses(await everywhere(gateway, '/v2/'))).toEqual([200]);
  });

  test('changes what is logged', async () => {
    await reload({ log: { level: 'warn' } });
    await Promise.all(
      Array.from({ length: 5 }, () => fetch(`http://127.0.0.1:${gateway.httpPort}/quiet`, { redirect: 'manual' })),
    );
    await reload({ log: { level: 'info' } });
    await everywhere(gateway, '/v2/');
    expect(gateway.logLines().filter(({ path }) => path === '/quiet')).toEqual([]);
  });

  test('says what waits for a restart, and goes on without it', async () => {
    const { changed, restart } = await reload({ domain: 'other.test', cache: { tagTtl: '2m' } });
    expect(keysOf(changed)).toEqual(['cache.tagTtl']);
    expect(restart).toEqual([{ key: 'domain', from: 'localhost', to: 'other.test' }]);
    expect(statuses(await everywhere(gateway, '/v2/'))).toEqual([200]);
    expect(keysOf((await reload()).restart)).toEqual([]);
  });

  test('with problems is told of whole, and changes nothing', async () => {
    const before = readFileSync(gateway.configFile, 'utf8');
    writeFileSync(gateway.configFile, JSON.stringify({ ...JSON.parse(before), cahce: {}, log: { level: 'loud' } }));
    const { code, stderr } = await gateway.cli(['reload']);
    expect(code).toBe(2);
    expect(stderr).toMatch(/cahce: there is no such key; did you mean cache\?/);
    expect(stderr).toMatch(/log\.level: "loud" is none of/);
    process.kill(gateway.pid(), 'SIGHUP');
    await eventually('the log has both', () => /not read again.*log\.level.*cahce/.test(gateway.log()));
    expect(statuses(await everywhere(gateway, '/v2/'))).toEqual([200]);
    writeFileSync(gateway.configFile, before);
  });

  test('is read by SIGHUP too, however many come', async () => {
    gateway.configure({ listen: listening(), access: { anonymous: false } });
    for (let n = 0; n < 20; n++) process.kill(gateway.pid(), 'SIGHUP');
    await eventually('clients are refused', async () => statuses(await everywhere(gateway, '/v2/')).join() === '401');
    await reload();
  });
});
