import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Verified } from '../../src/cache/admin.ts';
import { eventually } from '../support/eventually.ts';
import { type FakeBed, startFakeBed } from '../support/fake-bed.ts';
import { generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures } from '../support/gateway.ts';

const MIB = 1024 * 1024;
/** A long run asks for 50 and more: GATEWAY_TEST_KILLS=50. */
const ROUNDS = Number(process.env.GATEWAY_TEST_KILLS ?? 12);
const FILLS = 10;
/** One of them is large enough to be recorded, and so taken up, before it is whole. */
const sizeOf = (number: number): number => (number === 0 ? 16 * MIB : 2 * MIB);
const ALL = Array.from({ length: FILLS }, (_, number) => sizeOf(number)).reduce((sum, size) => sum + size);

describe('a gateway that is killed in the middle of ten fills', () => {
  let bed: FakeBed;
  showLogOfFailures(() => bed?.gateway);

  beforeAll(async () => {
    bed = await startFakeBed({ maxSize: '150MiB', minFree: '0' });
  });
  afterAll(() => bed?.close());

  it(`${ROUNDS} times over: serves right bytes only after each start, and verify finds nothing wrong`, async () => {
    const repository = bed.upstream.repository('library/app');
    const pull = (digest: string) => bed.client.get(`/v2/docker.io/library/app/blobs/${digest}`);
    let broken = 0;
    let resumed = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const blobs = Array.from({ length: FILLS }, (_, number) =>
        repository.addBlob(generated(sizeOf(number), `${round}/${number}`)),
      );
      bed.upstream.log.clear();
      const large = blobs[0]?.digest;
      bed.upstream.faults = ({ reference }) => ({ bytesPerSecond: (reference === large ? 24 : 3) * MIB });
      // Early, late, and anywhere in between.
      const until = ((round * 7) % 20) / 20;
      const pulls = Promise.all(blobs.map(({ digest }) => pull(digest)));
      await eventually('the fills to be under way', () => bed.upstream.log.bytes({ kind: 'blob' }) >= until * ALL);
      await bed.gateway.kill();
      for (const [number, received] of (await pulls).entries()) {
        // Whole ones are right, the others are visibly not whole.
        if (received.whole) expect(received.digest).toBe(blobs[number]?.digest);
        else broken++;
      }

      await bed.gateway.start();
      const verified = JSON.parse(await bed.gateway.ok('cache', 'verify', '--json')) as Verified;
      expect(verified).toMatchObject({ dropped: [], removed: 0 });
      bed.upstream.log.clear();
      bed.upstream.faults = () => undefined;
      for (const received of await Promise.all(blobs.map(({ digest }) => pull(digest)))) {
        expect(received).toMatchObject({ status: 200, whole: true });
        expect(blobs.map(({ digest }) => digest)).toContain(received.digest);
      }
      resumed += bed.upstream.log.of({ kind: 'blob' }).filter(({ range }) => (range?.from ?? 0) > 0).length;
    }
    // Else nothing was put to the test.
    expect(broken).toBeGreaterThan(ROUNDS * 3);
    expect(resumed).toBeGreaterThan(0);
    await eventually('nothing to be under way', async () => (await bed.stats()).fills === 0);
    expect(JSON.parse(await bed.gateway.ok('cache', 'verify', '--json'))).toMatchObject({ dropped: [], removed: 0 });
  }, 600_000);
});
