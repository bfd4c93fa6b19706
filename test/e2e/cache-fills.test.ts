import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { type FakeBed, startFakeBed } from '../support/fake-bed.ts';
import { type Content, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures } from '../support/gateway.ts';

const MIB = 1024 * 1024;
/** Bytes of the blob that forty want. A long run asks for more: GATEWAY_TEST_BLOB_MIB=512. */
const LARGE = Number(process.env.GATEWAY_TEST_BLOB_MIB ?? 256) * MIB;
const REPOSITORY = 'library/app';

describe('blobs through the running gateway', () => {
  let bed: FakeBed;
  showLogOfFailures(() => bed?.gateway);

  beforeAll(async () => {
    // One connection to the upstream, so that every byte it sends is counted once: with more, what is on its way to one that is given up counts too.
    bed = await startFakeBed({}, { connections: 1 });
  });
  afterEach(() => {
    bed.upstream.faults = () => undefined;
    bed.upstream.log.clear();
  });
  afterAll(() => bed?.close());

  const add = (content: Content): Content => bed.upstream.repository(REPOSITORY).addBlob(content);
  const pathOf = ({ digest }: Content): string => `/v2/docker.io/${REPOSITORY}/blobs/${digest}`;
  const kept = (blobs: number) =>
    eventually(`${blobs} blobs to be kept`, async () => (await bed.stats()).blobs === blobs);

  it(`40 clients at once get one cold blob of ${LARGE / MIB} MiB: it is fetched once, and everybody’s first byte comes early`, async () => {
    const content = add(generated(LARGE, 'forty'));
    const before = (await bed.stats()).blobs ?? 0;
    const quarter = content.size / 4;
    // Slow enough for forty handshakes on a busy machine to be over before a quarter of it has come.
    bed.upstream.faults = ({ kind }) => (kind === 'blob' ? { bytesPerSecond: 16 * MIB } : undefined);
    const fetchedAtFirstByte: number[] = [];
    let resident = 0;
    const watching = setInterval(() => {
      resident = Math.max(resident, bed.gateway.resident());
    }, 100);
    const pulls = Array.from({ length: 40 }, () => {
      let first = true;
      return bed.client.get(pathOf(content), {
        onBytes: (bytes) => {
          if (!first || bytes === 0) return;
          first = false;
          fetchedAtFirstByte.push(bed.upstream.log.bytes({ kind: 'blob', method: 'GET' }));
        },
      });
    });
    const all = await Promise.all(pulls);
    clearInterval(watching);
    for (const received of all) {
      expect(received).toMatchObject({ status: 200, bytes: content.size, whole: true, digest: content.digest });
    }
    expect(bed.upstream.log.bytes({ kind: 'blob', method: 'GET' })).toBe(content.size);
    expect(fetchedAtFirstByte).toHaveLength(40);
    expect(Math.max(...fetchedAtFirstByte)).toBeLessThan(quarter);
    // Memory does not grow with the blob, or with the clients times the blob.
    expect(resident).toBeLessThan(256 * MIB);
    await kept(before + 1);
    await bed.gateway.ok('cache', 'prune', '--yes');
    // All of it 40 times through TLS, both ends on this machine.
  }, 600_000);

  it('a fill outlives the client that started it, and the next client gets it from here', async () => {
    const content = add(generated(32 * MIB, 'left'));
    const before = (await bed.stats()).blobs ?? 0;
    bed.upstream.faults = () => ({ bytesPerSecond: 16 * MIB });
    const left = await bed.client.get(pathOf(content), {
      onBytes: (bytes, leave) => void (bytes >= content.size / 10 && leave()),
    });
    expect(left.whole).toBe(false);
    expect(bed.upstream.log.bytes({ kind: 'blob', method: 'GET' })).toBeLessThan(content.size / 2);
    await kept(before + 1);
    expect(bed.upstream.log.bytes({ kind: 'blob', method: 'GET' })).toBe(content.size);
    bed.upstream.faults = () => ({ status: 500 });
    expect(await bed.client.get(pathOf(content))).toMatchObject({ whole: true, digest: content.digest });
  });

  it.each([
    ['one wrong byte in the middle', { wrongByteAt: 3 * MIB }],
    ['one wrong byte at the end', { wrongByteAt: 6 * MIB - 1 }],
    ['a length that is too small', { sizeOff: -1000 }],
    ['a length that is too large', { sizeOff: 1000 }],
  ])('%s from the upstream: no client sees a whole body, nothing stays, the next one is right', async (_, fault) => {
    const content = add(generated(6 * MIB, `wrong ${JSON.stringify(fault)}`));
    const before = await bed.stats();
    bed.upstream.faults = (request) => (request.kind === 'blob' ? fault : undefined);
    for (const received of await Promise.all([bed.client.get(pathOf(content)), bed.client.get(pathOf(content))])) {
      expect(received.status === 200 && received.whole, JSON.stringify(received)).toBe(false);
      expect(received.digest).not.toBe(content.digest);
    }
    await eventually('the fill to end', async () => (await bed.stats()).fills === 0);
    expect(await bed.stats()).toMatchObject({ blobs: before.blobs, bytes: before.bytes });
    bed.upstream.faults = () => undefined;
    expect(await bed.client.get(pathOf(content))).toMatchObject({ whole: true, digest: content.digest });
    // A client has the last byte before the blob is kept.
    await kept((before.blobs ?? 0) + 1);
  });
});
