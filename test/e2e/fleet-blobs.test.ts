import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { StatusReport } from '../../src/admin/contract.ts';
import { rankedFor } from '../../src/cluster/rendezvous.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';
import { POSTGRES, PostgresServer } from '../support/postgres.ts';
import { freePorts } from '../support/processes.ts';
import { describeWith } from '../support/programs.ts';
import { digestOf } from '../support/registry-bed.ts';

const MIB = 1 << 20;
const REPOSITORY = 'library/app';

describeWith([...POSTGRES], 'blobs through three gateways with one PostgreSQL', () => {
  let server: PostgresServer;
  let upstream: FakeRegistry;
  let folder: string;
  const gateways: TestGateway[] = [];
  for (const n of [0, 1, 2]) showLogOfFailures(() => gateways[n]);

  beforeAll(async () => {
    [server, upstream] = await Promise.all([PostgresServer.start(), FakeRegistry.start()]);
    folder = mkdtempSync(join(tmpdir(), 'fleet-'));
    const [secretFile, passwordFile] = [join(folder, 'keys'), join(folder, 'password')];
    writeFileSync(secretFile, randomBytes(32).toString('base64'), { mode: 0o600 });
    writeFileSync(passwordFile, server.password, { mode: 0o600 });
    const url = new URL(await server.createDatabase());
    url.password = '';
    for (const port of await freePorts(3)) {
      const cluster = { listen: `127.0.0.1:${port}` };
      // One connection to the upstream, so that every byte that it sends is counted once.
      const common = { tls: { mode: 'off' }, upstream: { connections: 1 }, listen: { workers: 1 } };
      gateways.push(
        await prepareGateway({
          config: { ...common, cluster, database: url.href, secretFile },
          env: { GATEWAY_DATABASE_PASSWORD_FILE: passwordFile },
        }),
      );
    }
    await Promise.all(gateways.map((gateway) => gateway.start()));
    await gateways[0]?.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
    await together(3);
  });
  afterEach(() => {
    upstream.faults = () => undefined;
    upstream.log.clear();
  });
  afterAll(async () => {
    await Promise.all(gateways.map((gateway) => gateway.kill().then(() => gateway.close())));
    await Promise.all([server?.stop(), upstream?.close()]);
    rmSync(folder, { recursive: true, force: true });
  });

  const status = async (gateway: TestGateway) => JSON.parse(await gateway.ok('status', '--json')) as StatusReport;
  /** Every gateway that runs knows of so many. */
  const together = (count: number) =>
    eventually('all to know of each other', async () => {
      const reports = await Promise.all(gateways.filter((gateway) => gateway.running()).map(status));
      return reports.every(({ nodes }) => nodes.length === count);
    });
  const add = (size: number) =>
    upstream.repository(REPOSITORY).addBlob(generated(size, randomBytes(8).toString('hex')));
  const fetched = () => upstream.log.bytes({ kind: 'blob', method: 'GET' });
  const pull = async (gateway: TestGateway, digest: string) => {
    const answer = await fetch(`http://127.0.0.1:${gateway.httpPort}/v2/docker.io/${REPOSITORY}/blobs/${digest}`);
    const hash = createHash('sha256');
    for await (const chunk of answer.body ?? []) hash.update(chunk);
    return [answer.status, `sha256:${hash.digest('hex')}`];
  };
  /** The gateways, the one first whose the digest is. */
  const inOrder = async (digest: string) => {
    const nodes = await Promise.all(
      gateways.map(async (gateway) => {
        const id = (await status(gateway)).nodes.find(({ self }) => self)?.id ?? '';
        return { id, address: '', version: '', draining: false, gateway };
      }),
    );
    const [leader, second, third] = rankedFor(nodes, digestOf(digest)).map(({ gateway }) => gateway);
    if (leader === undefined || second === undefined || third === undefined) throw new Error('fewer than three');
    return [leader, second, third] as const;
  };

  it('are fetched once, whoever is asked, and kept by each', async () => {
    const blobs = [add(5 * MIB), add(3 * MIB + 7), add(20_000)];
    const pulls = gateways.flatMap((gateway) => blobs.map(async ({ digest }) => [digest, await pull(gateway, digest)]));
    for (const [digest, answer] of await Promise.all(pulls)) expect(answer).toEqual([200, digest]);
    expect(fetched()).toBe(blobs.reduce((sum, { size }) => sum + size, 0));
  });

  it('go on from what a follower holds when the gateway that fetches is killed, and when it is told to end', async () => {
    upstream.faults = ({ kind }) => (kind === 'blob' ? { bytesPerSecond: 2 * MIB } : undefined);
    const blob = add(12 * MIB);
    const [leader, second, third] = await inOrder(blob.digest);
    const pulls = [second, third].map((gateway) => pull(gateway, blob.digest));
    await eventually('3 MiB to have come', () => fetched() > 3 * MIB);
    const requests = upstream.log.count({ kind: 'blob', method: 'GET' });
    await leader.kill();
    for (const answer of await Promise.all(pulls)) expect(answer).toEqual([200, blob.digest]);
    // By one of them, from where the leader's bytes ended that had reached it.
    expect(upstream.log.count({ kind: 'blob', method: 'GET' })).toBe(requests + 1);
    expect(fetched() - blob.size).toBeLessThan(3 * MIB);

    await leader.start();
    await together(3);
    upstream.log.clear();
    const other = add(24 * MIB);
    const [ends, follower] = await inOrder(other.digest);
    const answer = pull(follower, other.digest);
    await eventually('2 MiB to have come', () => fetched() > 2 * MIB);
    const ended = ends.stop();
    await eventually('its balancer to be told, and nobody else', async () => {
      const ask = (path: string) => fetch(`http://127.0.0.1:${ends.httpPort}${path}`);
      const [node, whole] = await Promise.all([ask('/readyz?node'), ask('/readyz')]);
      return node.status === 503 && whole.status === 200;
    });
    expect(await answer).toEqual([200, other.digest]);
    await ended;
    expect(fetched() - other.size).toBeLessThan(MIB);
  });

  it('are given by none of them any more once the registry has denied the repository to one, also not by one that was away', async () => {
    await Promise.all(gateways.filter((gateway) => !gateway.running()).map((gateway) => gateway.start()));
    await together(3);
    const blob = add(300_000);
    for (const gateway of gateways) expect(await pull(gateway, blob.digest)).toEqual([200, blob.digest]);
    const [one, other, away] = gateways as [TestGateway, TestGateway, TestGateway];
    await away.stop();
    upstream.faults = () => ({ status: 403 });
    const path = `/v2/docker.io/${REPOSITORY}/manifests/new`;
    expect((await fetch(`http://127.0.0.1:${one.httpPort}${path}`)).status).toBeGreaterThan(400);
    const refused = async (gateway: TestGateway) => ((await pull(gateway, blob.digest))[0] as number) > 400;
    expect(await refused(one)).toBe(true);
    await eventually('the other to hear of it', () => refused(other));
    await Promise.all([other.stop().then(() => other.start()), away.start()]);
    await eventually('the one that was away to hear of it', () => refused(away));
    expect(await Promise.all([one, other, away].map(refused))).toEqual([true, true, true]);
  });
});
