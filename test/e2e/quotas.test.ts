import { Agent } from 'node:https';
import { afterEach, describe, expect, it } from 'vitest';
import type { StatusReport } from '../../src/admin/contract.ts';
import { awayFromMidnight } from '../support/clock.ts';
import { eventually } from '../support/eventually.ts';
import { type Content, FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, type Received, type SendOptions, send } from '../support/http-client.ts';

const MIB = 1024 * 1024;
const REPOSITORY = 'library/app';

let upstream: FakeRegistry;
let gateway: TestGateway;
showLogOfFailures(() => gateway);
afterEach(async () => {
  await gateway?.close();
  await upstream?.close();
});

async function start(config: Readonly<Record<string, unknown>>): Promise<void> {
  await awayFromMidnight();
  upstream = await FakeRegistry.start();
  gateway = await startGateway({ config });
  await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
}

const blob = (size: number, seed: string): Content => upstream.repository(REPOSITORY).addBlob(generated(size, seed));

/** From one of this machine's addresses, for a part or for the whole. */
function get(
  { digest }: Content,
  range?: string,
  localAddress = '127.9.0.1',
  more: Partial<SendOptions> = {},
): Promise<Received> {
  const path = `/v2/docker.io/${REPOSITORY}/blobs/${digest}`;
  const headers = range === undefined ? {} : { range };
  return send({ ca: caOf(gateway), port: gateway.httpsPort, path, headers, localAddress, agent: false, ...more });
}

const fetched = (): number => upstream.log.bytes({ kind: 'blob', method: 'GET' });

/** Until the upstream has nothing to send any more. */
const quiet = (): Promise<boolean> =>
  eventually('the upstream is quiet', () => upstream.log.of({ kind: 'blob' }).every(({ done }) => done));

async function usedOfMonth(): Promise<number> {
  const { limits } = JSON.parse(await gateway.ok('status', '--json')) as StatusReport;
  return limits?.bytesPerMonth?.used ?? 0;
}

describe('a quota of 8 MiB a day', () => {
  const LIMIT = 8 * MIB;
  const SIZE = 2 * MIB;

  it('is not gone around by ranges of a byte, whatever they make the gateway fetch', async () => {
    await start({ limits: { bytesPerDay: String(LIMIT) } });
    let refused = 0;
    for (let index = 0; index < 20; index++) {
      const content = blob(SIZE, `byte ${index}`);
      for (const at of [SIZE / 2, 0, SIZE - 1]) {
        const { status } = await get(content, `bytes=${at}-${at}`);
        if (status === 429) refused += 1;
        else expect(status).toBe(206);
      }
      await quiet();
    }
    // What was under way when the limit was reached.
    expect(fetched()).toBeLessThanOrEqual(LIMIT + SIZE);
    expect(refused > 0 || fetched() <= LIMIT).toBe(true);
    // Another client has a quota of its own.
    expect((await get(blob(SIZE, 'another'), undefined, '127.9.0.2')).status).toBe(200);
  });

  it('holds for pulls at the same time, from the registry and from the cache', async () => {
    await start({ limits: { bytesPerDay: String(LIMIT) } });
    const cold = Array.from({ length: 10 }, (_, index) => blob(SIZE, `at once ${index}`));
    const answers = await Promise.all(cold.map((content) => get(content)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 429]));
    expect(answers.filter(({ status }) => status === 200).length).toBeLessThanOrEqual(LIMIT / SIZE);
    for (const { status, whole, text, headers } of answers) {
      expect(whole).toBe(true);
      if (status === 429)
        expect([headers['retry-after'] !== undefined, text]).toEqual([true, expect.stringContaining('a day')]);
    }
    // Ten pulls of what another client has brought: four fit, and nothing was fetched for them.
    await get(cold[0] as Content, undefined, '127.9.0.2');
    const warm = await Promise.all(Array.from({ length: 10 }, () => get(cold[0] as Content, undefined, '127.9.0.3')));
    expect(warm.map(({ status }) => status).toSorted()).toEqual([200, 200, 200, 200, 429, 429, 429, 429, 429, 429]);
  });
});

describe('a worker that is killed', () => {
  it('gives back what was set aside for its replies, less what it had sent', async () => {
    await start({ limits: { bytesPerDay: String(64 * MIB) }, listen: { workers: 2 } });
    const content = blob(48 * MIB, 'killed');
    expect((await get(content, undefined, '127.9.0.2')).status).toBe(200);
    const { agent, worker } = await connectionToWorker();
    const { promise: goOn, resolve: end } = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const pause = (): Promise<void> => {
      begun.resolve();
      return goOn;
    };
    const cut = get(content, undefined, '127.9.0.1', { agent, pause });
    await begun.promise;
    const refused = await get(content);
    expect([refused.status, refused.text]).toEqual([429, expect.stringContaining('of them are left')]);
    process.kill(worker, 'SIGKILL');
    end();
    expect((await cut).whole).toBe(false);
    agent.destroy();
    await eventually('it is given back', async () => (await get(content, 'bytes=0-10')).status === 206);
    // Sockets between the two hold far less than 16 MiB.
    await eventually('all of it is', async () => (await get(content)).status === 200);
  });

  /** A kept connection that a worker has accepted, not the owner: the kernel gives each to one that is idle. */
  async function connectionToWorker(): Promise<{ agent: Agent; worker: number }> {
    for (let turn = 0; ; turn++) {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const mark = `mark/${turn}`;
      await send({
        ca: caOf(gateway),
        port: gateway.httpsPort,
        path: '/',
        method: 'DELETE',
        agent,
        localAddress: '127.9.0.1',
        headers: { 'user-agent': mark },
      });
      const line = () => gateway.logLines().find(({ userAgent }) => userAgent === mark);
      await eventually('its line in the log', () => line() !== undefined);
      const worker = line()?.worker;
      if (typeof worker === 'number') return { agent, worker };
      agent.destroy();
    }
  }
});

describe('a quota of 8 MiB a month', () => {
  it('counts what passes through both as sent and as fetched, and is everybody’s', async () => {
    await start({ limits: { bytesPerMonth: String(8 * MIB) }, cache: { maxSize: '0' } });
    const content = blob(2 * MIB, 'passes');
    expect((await get(content)).status).toBe(200);
    expect((await get(content, undefined, '127.9.0.2')).status).toBe(200);
    // A client has the last bytes before the gateway has counted them.
    await eventually('all of it is counted', async () => (await usedOfMonth()) === 8 * MIB);
    const refused = await get(content, undefined, '127.9.0.3');
    expect(refused.status).toBe(429);
    expect(refused.text).toContain('a month');
    expect(fetched()).toBe(4 * MIB);
  });

  it('counts what was fetched once and sent twice three times', async () => {
    await start({ limits: { bytesPerMonth: String(8 * MIB) } });
    const content = blob(2 * MIB, 'kept');
    expect((await get(content)).status).toBe(200);
    await quiet();
    expect((await get(content, undefined, '127.9.0.2')).status).toBe(200);
    expect((await get(content, undefined, '127.9.0.3')).status).toBe(200);
    expect((await get(content, undefined, '127.9.0.4')).status).toBe(429);
  });

  it('is kept to by cold pulls at the same time: what does not fit is refused at once, and hardly anything is fetched for it', async () => {
    await start({ limits: { bytesPerMonth: String(8 * MIB) } });
    const cold = Array.from({ length: 10 }, (_, index) => blob(2 * MIB, `at once ${index}`));
    const answers = await Promise.all(cold.map((content, index) => get(content, undefined, `127.9.1.${index + 1}`)));
    const served = answers.filter(({ status }) => status === 200);
    // Each is fetched and sent.
    expect([served.length, served.every(({ whole }) => whole)]).toEqual([2, true]);
    for (const { status, text } of answers)
      if (status !== 200) expect([status, text]).toEqual([429, expect.stringContaining('a month')]);
    await quiet();
    expect(JSON.parse(await gateway.ok('cache', 'stats', '--json')).bytesFetched).toBe(4 * MIB);
  });

  it('is not touched by a blob that its manifest says is too large: nobody is asked for it', async () => {
    await start({ limits: { bytesPerMonth: String(8 * MIB) } });
    const image = upstream.repository(REPOSITORY).addImage('1', [Buffer.alloc(9 * MIB, 'large')]);
    const agent = new Agent();
    const ask = (path: string) =>
      send({ ca: caOf(gateway), port: gateway.httpsPort, path, agent, localAddress: '127.9.0.1' });
    expect((await ask(`/v2/docker.io/${REPOSITORY}/manifests/1`)).status).toBe(200);
    const refused = await ask(`/v2/docker.io/${REPOSITORY}/blobs/${image.layers[0]?.digest}`);
    expect([refused.status, refused.text]).toEqual([429, expect.stringContaining('a month')]);
    expect(upstream.log.count({ kind: 'blob' })).toBe(0);
    agent.destroy();
  });
});
