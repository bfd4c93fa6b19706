import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, sendWhole } from '../support/http-client.ts';
import { type SlowLink, slowLink } from '../support/slow-link.ts';

const MIB = 1024 * 1024;
const content = generated(24 * MIB, 'slow link');

describe('a link of 100 ms round trip and 2 MiB/s a connection', () => {
  let fake: FakeRegistry;
  let link: SlowLink;
  let gateway: TestGateway;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    fake = await FakeRegistry.start({ auth: { scheme: 'bearer' }, redirect: { to: 'relative' } });
    fake.repository('library/app').addBlob(content);
    link = await slowLink({ to: fake.port, roundTripMs: 100, bytesPerSecond: 2 * MIB });
    gateway = await startGateway();
    await gateway.ok('registry', 'set', 'slow.test', '--endpoint', link.url);
  });

  afterAll(async () => {
    await gateway?.close();
    await link?.close();
    await fake?.close();
  });

  // How much faster that is, the benchmark shows (scripts/bench, `slow`).
  it('several connections bring a cold blob: one plain request first, and no part of it twice', async () => {
    const pulled = await sendWhole({
      port: gateway.httpsPort,
      path: `/v2/slow.test/library/app/blobs/${content.digest}`,
      ca: caOf(gateway),
    });
    expect(pulled.digest).toBe(content.digest);
    const bodies = fake.log.all.filter(({ kind, sent }) => (kind === 'cdn' || kind === 'blob') && sent > 0);
    expect(bodies[0]?.range).toBeUndefined();
    // One whose body went on behind what was wanted of it is closed, and another takes its place.
    expect(new Set(bodies.map(({ connection }) => connection)).size).toBeGreaterThanOrEqual(4);
    const { traffic } = JSON.parse(await gateway.ok('status', '--json')) as { traffic: { bytesFetched: number } };
    expect(traffic.bytesFetched).toBeLessThan(1.05 * content.size);
  });
});
