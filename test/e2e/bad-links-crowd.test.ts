import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { type Content, FakeRegistry, generated, QUIRKS } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, sendWhole } from '../support/http-client.ts';

const MIB = 1024 * 1024;
const BLOBS = 50;
const CLIENTS = 500;
/** Of all its processes together: as many as it starts by itself on this machine. */
const MOST_RESIDENT = 400 * MIB;

describe('500 clients at once on 50 cold blobs', () => {
  let fake: FakeRegistry;
  let gateway: TestGateway;
  let contents: Content[];
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    fake = await FakeRegistry.start({
      ...QUIRKS.docker,
      // Slow enough that all are there at the same time, and one in ten breaks off.
      bytesPerSecond: MIB,
      faults: ({ kind, nth }) => (kind === 'cdn' && nth % 10 === 3 ? { resetAfter: 300_000 } : undefined),
    });
    contents = Array.from({ length: BLOBS }, (_, i) => generated(5 * MIB + i, `crowd ${i}`));
    for (const content of contents) fake.repository('library/app').addBlob(content);
    // Made once, before anything is measured.
    for (const content of contents) expect(content.digest).toContain('sha256:');
    // All of it runs on one machine, in turn: a wait for that is no stall.
    gateway = await startGateway({ config: { upstream: { stallTimeout: '5m' } } });
    await gateway.ok('registry', 'set', 'crowd.test', '--endpoint', fake.url);
  });

  afterAll(async () => {
    await gateway?.close();
    await fake?.close();
  });

  it('get every byte right, in bounded memory, and leave no descriptor behind', async () => {
    const ca = caOf(gateway);
    const before = gateway.descriptors();
    const idle = gateway.resident();
    let resident = 0;
    let descriptors = 0;
    const timer = setInterval(() => {
      resident = Math.max(resident, gateway.resident());
      descriptors = Math.max(descriptors, gateway.descriptors());
    }, 100);
    const pulls = Array.from({ length: CLIENTS }, async (_, i) => {
      const content = contents[i % BLOBS] as Content;
      const path = `/v2/crowd.test/library/app/blobs/${content.digest}`;
      const pulled = await sendWhole({ port: gateway.httpsPort, path, ca, agent: false });
      expect(pulled.status).toBe(200);
      expect(pulled.digest).toBe(content.digest);
    });
    await Promise.all(pulls);
    clearInterval(timer);
    console.log(
      `idle ${Math.round(idle / MIB)} MiB; at most ${Math.round(resident / MIB)} MiB resident and ${descriptors} descriptors`,
    );
    expect(resident).toBeGreaterThan(0);
    expect(resident).toBeLessThan(MOST_RESIDENT);
    // All of them were there at once, and each blob came over the link once.
    expect(descriptors).toBeGreaterThan(CLIENTS);
    expect(fake.log.bytes({ kind: 'cdn' })).toBeLessThan(1.2 * BLOBS * 5 * MIB);
    await eventually('the descriptors to be given back', () => gateway.descriptors() <= before + 8);
  });
});
