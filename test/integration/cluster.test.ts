import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:https';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, test } from 'vitest';
import { rankedFor } from '../../src/cluster/rendezvous.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, type FakeRegistryOptions, generated, sha256 } from '../support/fake-registry/index.ts';
import { FleetBed, type FleetNode, type FleetOptions, makeNodeIdentity } from '../support/fleet-bed.ts';
import { digestOf, refusalOf } from '../support/registry-bed.ts';

const REPOSITORY = 'library/app';
const MIB = 1 << 20;
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(fakeOptions: FakeRegistryOptions = {}, options: Partial<FleetOptions> = {}, count = 3) {
  const fake = await FakeRegistry.start(fakeOptions);
  closers.push(() => fake.close());
  const fleet = await FleetBed.start(count, { registries: { 'docker.io': { fake } }, ...options });
  closers.push(() => fleet.stop());
  const repository = fake.repository(REPOSITORY);
  /** The nodes, the one first whose the digest is. */
  const inOrder = (digest: string): FleetNode[] =>
    rankedFor([...fleet.shared.nodes.values()], digestOf(digest)).flatMap(({ id }) =>
      fleet.nodes.filter((node) => node.id === id),
    );
  const three = (digest: string): [FleetNode, FleetNode, FleetNode] => {
    const [leader, second, third] = inOrder(digest);
    if (leader === undefined || second === undefined || third === undefined) throw new Error('fewer than three nodes');
    return [leader, second, third];
  };
  const fetched = () => fake.log.bytes({ kind: 'blob' });
  return { fake, fleet, repository, inOrder, three, fetched };
}

const pull = (node: FleetNode, digest: string, ask: Parameters<FleetNode['bed']['blob']>[3] = {}) =>
  node.bed.blob('docker.io', REPOSITORY, digest, ask);
const received = (node: FleetNode) => node.metrics.total('cluster_received_bytes_total');
const takeovers = (node: FleetNode) => node.metrics.total('cluster_takeovers_total');
/** Bytes of a blob that a node's fills have. */
const held = (node: FleetNode) => node.bed.rig.cache.admin.fills()[0]?.bytes ?? 0;

describe('a blob that all nodes are asked for', () => {
  test('is fetched from its registry once, and kept by each', async () => {
    const { repository, fleet, fetched } = await start({ latency: 20 });
    const blobs = Array.from({ length: 5 }, (_, n) => repository.addBlob(generated(2 * MIB + n)));
    const pulls = fleet.nodes.flatMap((node) =>
      blobs.map(async ({ digest }) => [digest, await pull(node, digest)] as const),
    );
    for (const [digest, { status, body }] of await Promise.all(pulls))
      expect([status, sha256(body)]).toEqual([200, digest]);
    const sum = blobs.reduce((bytes, { size }) => bytes + size, 0);
    expect(fetched()).toBe(sum);
    // Kept, and known: a second pull asks neither the registry nor another node.
    const before = await Promise.all(fleet.nodes.map(received));
    expect(before.reduce((a, b) => a + b)).toBe(2 * sum);
    for (const node of fleet.nodes) {
      for (const { digest } of blobs) expect([(await pull(node, digest)).from, fetched()]).toEqual(['cache', sum]);
    }
    expect(await Promise.all(fleet.nodes.map(received))).toEqual(before);
  });

  test('comes to a follower while it grows at the leader, and whoever has it gives it to who asks later', async () => {
    const { repository, three, fetched, fake } = await start({ bytesPerSecond: 8 * MIB });
    const blob = repository.addBlob(generated(6 * MIB));
    const [leader, follower, later] = three(blob.digest);
    const reply = await follower.bed.open('docker.io', REPOSITORY, { kind: 'blob', digest: digestOf(blob.digest) });
    const { body } = reply;
    if (body === null || body instanceof Uint8Array) throw new Error('no source');
    const buffer = Buffer.alloc(64 * 1024);
    await body.pull(buffer);
    expect(held(leader)).toBeLessThan(blob.size);
    expect(leader.bed.rig.cache.admin.fills()).toMatchObject([{ node: null, readers: 1 }]);
    expect(follower.bed.rig.cache.admin.fills()).toMatchObject([{ node: leader.id }]);
    await body.close();
    expect(sha256((await pull(follower, blob.digest)).body)).toBe(blob.digest);
    expect([(await pull(leader, blob.digest)).from, fetched()]).toEqual(['cache', blob.size]);
    fake.cut();
    expect(sha256((await pull(later, blob.digest)).body)).toBe(blob.digest);
    expect(fetched()).toBe(blob.size);
  });

  test('comes from whichever node keeps it, if that is the last in order', async () => {
    const { repository, three, fetched, fake } = await start();
    const blob = repository.addBlob(generated(2 * MIB));
    const [leader, second, third] = three(blob.digest);
    // It was brought while the others were away.
    third.view.sees = () => false;
    expect(sha256((await pull(third, blob.digest)).body)).toBe(blob.digest);
    third.view.sees = () => true;
    fake.cut();
    for (const node of [leader, second]) expect(sha256((await pull(node, blob.digest)).body)).toBe(blob.digest);
    expect(fetched()).toBe(blob.size);
  });

  test('goes on to come over the same connection while other nodes join and leave', async () => {
    const { repository, fleet, three, fetched } = await start({ bytesPerSecond: 4 * MIB });
    const blob = repository.addBlob(generated(4 * MIB));
    const [leader, follower, third] = three(blob.digest);
    const pulled = pull(follower, blob.digest);
    await eventually('some has come', () => held(follower) > 256 * 1024);
    const before = leader.connections();
    fleet.shared.distrust(third.id);
    fleet.shared.trust(makeNodeIdentity('0123456789abcdef'));
    expect(sha256((await pulled).body)).toBe(blob.digest);
    expect([leader.connections(), await takeovers(follower), fetched()]).toEqual([before, 0, blob.size]);
  });

  test('is fetched once by nodes that see different fleets', async () => {
    const { repository, three, fetched } = await start({ bytesPerSecond: 2 * MIB });
    const blob = repository.addBlob(generated(4 * MIB));
    const [leader, second, third] = three(blob.digest);
    second.view.sees = () => false;
    third.view.sees = ({ id }) => id === second.id;
    const pulls = [leader, second, third].map((node) => pull(node, blob.digest));
    // One of them has the lease; whoever does not see that one waits as long as it has it.
    await eventually('1 MiB has come', () => fetched() > MIB);
    for (const { view } of [second, third]) view.sees = () => true;
    for (const { body } of await Promise.all(pulls)) expect(sha256(body)).toBe(blob.digest);
    expect(fetched()).toBe(blob.size);
  });

  test('comes in parts where parts are asked for, and each byte once', async () => {
    const { repository, fleet, fetched } = await start();
    const blob = repository.addBlob(generated(40 * MIB));
    const range = 'bytes=20000000-20999999';
    for (const node of fleet.nodes) {
      const { status, body } = await pull(node, blob.digest, { range });
      expect([status, sha256(body)]).toEqual([206, sha256(blob.read(20_000_000, 21_000_000))]);
    }
    expect(fetched()).toBeLessThan(4 * MIB);
  });
});

describe('what a registry refuses', () => {
  test('is told by the leader as what it is, and asked once', async () => {
    const { three, fake } = await start();
    const missing = `sha256:${createHash('sha256').update('missing').digest('hex')}`;
    const [, second, third] = three(missing);
    const refusals = await Promise.all([second, third].map((node) => refusalOf(pull(node, missing))));
    expect(refusals).toEqual(['blobUnknown', 'blobUnknown']);
    expect(fake.log.count({ kind: 'blob', method: 'GET' })).toBe(1);
  });

  test('of one repository says nothing of another', async () => {
    const { fake, three, repository } = await start({
      auth: { scheme: 'bearer', private: ['library/secret'], users: {} },
    });
    const content = generated(2 * MIB);
    const blob = repository.addBlob(content);
    fake.repository('library/secret').addBlob(content);
    const [leader, second, third] = three(blob.digest);
    const secret = (node: FleetNode) => refusalOf(node.bed.blob('docker.io', 'library/secret', blob.digest));
    expect(await secret(second)).toMatch(/^upstream(Unauthorized|Denied)$/);
    expect(sha256((await pull(second, blob.digest)).body)).toBe(blob.digest);
    for (const node of [leader, second, third]) expect(await secret(node)).toMatch(/^upstream(Unauthorized|Denied)$/);
    expect(sha256((await pull(third, blob.digest)).body)).toBe(blob.digest);
  });
});

describe('when the leader is gone in the middle', () => {
  /** So slow that its followers are in the middle of a blob when the leader is, however busy the machine is. */
  const slow = (fake: FakeRegistry) => {
    fake.faults = ({ kind }) => (kind === 'blob' ? { bytesPerSecond: MIB } : undefined);
  };

  test('the follower that holds most goes on, and nothing is fetched twice that one of them has', async () => {
    const { repository, three, fetched, fake } = await start();
    slow(fake);
    const blob = repository.addBlob(generated(8 * MIB));
    const [leader, second, third] = three(blob.digest);
    const pulls = [second, third].map((node) => pull(node, blob.digest));
    await eventually('the followers have 2 MiB', () => Math.min(held(second), held(third)) > 2 * MIB);
    const before = fake.log.count({ kind: 'blob', method: 'GET' });
    await leader.kill();
    fake.faults = () => undefined;
    const most = Math.max(held(second), held(third));
    for (const { body, truncated } of await Promise.all(pulls)) {
      expect([truncated, sha256(body)]).toEqual([false, blob.digest]);
    }
    expect(fake.log.count({ kind: 'blob', method: 'GET' })).toBe(before + 1);
    expect((await takeovers(second)) + (await takeovers(third))).toBe(1);
    // What the leader had, and no follower, is fetched again; a socket's buffers are as much as that.
    const lost = fetched() - blob.size;
    expect(lost).toBeLessThan(4 * MIB);
    expect(most).toBeGreaterThan(2 * MIB);
  });

  test('because it ends, its lease is free at once, and what it had is with the others', async () => {
    const { repository, three, fetched, fake } = await start({}, { limits: { lease: 60_000 } });
    slow(fake);
    const blob = repository.addBlob(generated(8 * MIB));
    const [leader, second, third] = three(blob.digest);
    const pulls = [second, third].map((node) => pull(node, blob.digest));
    await eventually('the followers have 2 MiB', () => Math.min(held(second), held(third)) > 2 * MIB);
    const stopped = leader.stop();
    fake.faults = () => undefined;
    await stopped;
    for (const { body } of await Promise.all(pulls)) expect(sha256(body)).toBe(blob.digest);
    expect((await takeovers(second)) + (await takeovers(third))).toBe(1);
    // What was on its way from the registry when it was told to end.
    expect(fetched() - blob.size).toBeLessThan(MIB);
  });

  test('because it ends, after all of the blob has come to it: it gives it to their end to those that read it more slowly', async () => {
    const { repository, fleet, three, fetched } = await start({ bytesPerSecond: 24 * MIB });
    const blob = repository.addBlob(generated(32 * MIB));
    const [leader, second, third] = three(blob.digest);
    const pulls = [second, third].map((node) => pull(node, blob.digest));
    await eventually('the followers have some of it', () => Math.min(held(second), held(third)) > 0);
    const goOn = leader.hold();
    await eventually('the leader has all of it', () => leader.bed.core.forNodes.keeps(digestOf(blob.digest)));
    const stopped = leader.stop();
    await eventually('it is ending', () => !fleet.shared.nodes.has(leader.id));
    goOn();
    for (const { body } of await Promise.all(pulls)) expect(sha256(body)).toBe(blob.digest);
    await stopped;
    expect([fetched(), await takeovers(second), await takeovers(third)]).toEqual([blob.size, 0, 0]);
  });

  test('a node that is ending is asked for nothing new, and a node that joins takes its share', async () => {
    const { repository, fleet, three, fetched } = await start();
    const blob = repository.addBlob(generated(MIB));
    const [leader, second] = three(blob.digest);
    await leader.cluster.drain();
    expect(sha256((await pull(second, blob.digest)).body)).toBe(blob.digest);
    expect(await received(second)).toBe(0);
    const joined = await fleet.join('another');
    expect(sha256((await pull(joined, blob.digest)).body)).toBe(blob.digest);
    expect(fetched()).toBe(blob.size);
  });
});

describe('nodes that cannot speak to each other', () => {
  test('fetch for themselves', async () => {
    const { repository, three, fetched } = await start({}, { limits: { lease: 5_000, look: 20 } });
    const blob = repository.addBlob(generated(MIB));
    const [leader, second, third] = three(blob.digest);
    for (const node of [leader, second, third]) node.cut();
    const replies = await Promise.all([leader, second, third].map((node) => pull(node, blob.digest)));
    for (const { body } of replies) expect(sha256(body)).toBe(blob.digest);
    // One after the other, as the lease passes on.
    expect(fetched()).toBe(3 * blob.size);
  });

  test('a stranger does not come past the handshake, and neither does a node that is trusted no longer', async () => {
    const { fleet } = await start({}, {}, 2);
    const [node, other] = fleet.nodes;
    if (node === undefined || other === undefined) throw new Error('no nodes');
    const ping = async ({ key, certificate: cert }: { key?: string; certificate?: string }) => {
      const [host = '', port] = node.address.split(':');
      const asking = request({ host, port, path: '/v1/ping', key, cert, rejectUnauthorized: false, agent: false });
      asking.end();
      const [response] = await once(asking, 'response');
      response.resume();
      return response.statusCode;
    };
    const known = makeNodeIdentity('known');
    fleet.shared.trust(known);
    expect(await ping(known)).toBe(204);
    await expect(ping(makeNodeIdentity('known'))).rejects.toThrow();
    await expect(ping({})).rejects.toThrow();
    fleet.shared.distrust('known');
    await expect(ping(known)).rejects.toThrow();
  });

  test.each(['POST', 'PUT', 'DELETE', 'OPTIONS'])('a %s is answered 405 as on every other port', async (method) => {
    const { fleet } = await start({}, {}, 1);
    const known = makeNodeIdentity('known');
    fleet.shared.trust(known);
    const [host = '', port] = (fleet.nodes[0]?.address ?? '').split(':');
    const { key, certificate: cert } = known;
    const asking = request({
      host,
      port,
      method,
      path: '/v1/ping',
      key,
      cert,
      rejectUnauthorized: false,
      agent: false,
    });
    asking.end();
    const [response] = await once(asking, 'response');
    expect([response.statusCode, response.headers.allow]).toEqual([405, 'GET, HEAD']);
    expect(JSON.parse(await text(response)).errors[0].code).toBe('UNSUPPORTED');
  });
});
