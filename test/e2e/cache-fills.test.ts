import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type BlobClient, openBlobClient } from '../support/blob-client.ts';
import { type Content, FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { eventually } from '../support/processes.ts';

const MIB = 1024 * 1024;
const REPOSITORY = 'library/app';

describe('blobs through the running gateway', () => {
  let upstream: FakeRegistry;
  let gateway: TestGateway;
  let client: BlobClient;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    upstream = await FakeRegistry.start();
    gateway = await startGateway({ config: { listen: { workers: 1 } } });
    await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
    client = openBlobClient(gateway);
  });
  afterEach(() => {
    upstream.faults = () => undefined;
    upstream.log.clear();
  });
  afterAll(async () => {
    client?.close();
    await gateway?.close();
    await upstream?.close();
  });

  const add = (content: Content): Content => upstream.repository(REPOSITORY).addBlob(content);
  const pathOf = ({ digest }: Content): string => `/v2/docker.io/${REPOSITORY}/blobs/${digest}`;
  const stats = async (): Promise<Record<string, number>> => JSON.parse(await gateway.ok('cache', 'stats', '--json'));
  const kept = (blobs: number) => eventually(`${blobs} blobs to be kept`, async () => (await stats()).blobs === blobs);

  it('40 clients at once get one cold blob of 512 MiB: it is fetched once, and everybody’s first byte comes early', async () => {
    const content = add(generated(512 * MIB, 'forty'));
    const before = (await stats()).blobs ?? 0;
    const quarter = content.size / 4;
    const fetchedAtFirstByte: number[] = [];
    let resident = 0;
    const watching = setInterval(() => {
      resident = Math.max(resident, gateway.resident());
    }, 100);
    const pulls = Array.from({ length: 40 }, () => {
      let first = true;
      return client.get(pathOf(content), {
        onBytes: (bytes) => {
          if (!first || bytes === 0) return;
          first = false;
          fetchedAtFirstByte.push(upstream.log.bytes({ kind: 'blob', method: 'GET' }));
        },
      });
    });
    const all = await Promise.all(pulls);
    clearInterval(watching);
    for (const received of all) {
      expect(received).toMatchObject({ status: 200, bytes: content.size, whole: true, digest: content.digest });
    }
    expect(upstream.log.bytes({ kind: 'blob', method: 'GET' })).toBe(content.size);
    expect(fetchedAtFirstByte).toHaveLength(40);
    expect(Math.max(...fetchedAtFirstByte)).toBeLessThan(quarter);
    // Memory does not grow with the blob, or with the clients times the blob.
    expect(resident).toBeLessThan(content.size / 2);
    await kept(before + 1);
    await gateway.ok('cache', 'prune');
    // 20 GiB through TLS, both ends on this machine.
  }, 600_000);

  it('a fill outlives the client that started it, and the next client gets it from here', async () => {
    const content = add(generated(32 * MIB, 'left'));
    const before = (await stats()).blobs ?? 0;
    upstream.faults = () => ({ bytesPerSecond: 16 * MIB });
    const left = await client.get(pathOf(content), {
      onBytes: (bytes, leave) => void (bytes >= content.size / 10 && leave()),
    });
    expect(left.whole).toBe(false);
    expect(upstream.log.bytes({ kind: 'blob', method: 'GET' })).toBeLessThan(content.size / 2);
    await kept(before + 1);
    expect(upstream.log.bytes({ kind: 'blob', method: 'GET' })).toBe(content.size);
    upstream.faults = () => ({ status: 500 });
    expect(await client.get(pathOf(content))).toMatchObject({ whole: true, digest: content.digest });
  });

  it.each([
    ['one wrong byte in the middle', { wrongByteAt: 3 * MIB }],
    ['one wrong byte at the end', { wrongByteAt: 6 * MIB - 1 }],
    ['a length that is too small', { sizeOff: -1000 }],
    ['a length that is too large', { sizeOff: 1000 }],
  ])('%s from the upstream: no client sees a whole body, nothing stays, the next one is right', async (_, fault) => {
    const content = add(generated(6 * MIB, `wrong ${JSON.stringify(fault)}`));
    const before = await stats();
    upstream.faults = (request) => (request.kind === 'blob' ? fault : undefined);
    for (const received of await Promise.all([client.get(pathOf(content)), client.get(pathOf(content))])) {
      expect(received.status === 200 && received.whole, JSON.stringify(received)).toBe(false);
      expect(received.digest).not.toBe(content.digest);
    }
    await eventually('the fill to end', async () => (await stats()).fills === 0);
    expect(await stats()).toMatchObject({ blobs: before.blobs, bytes: before.bytes });
    upstream.faults = () => undefined;
    expect(await client.get(pathOf(content))).toMatchObject({ whole: true, digest: content.digest });
  });
});
