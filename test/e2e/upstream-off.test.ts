import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { DOCKER_BED_NEEDS, type DockerBed, startDockerBed } from '../support/docker-bed.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { buildImage } from '../support/oci-image.ts';
import { runOk } from '../support/processes.ts';
import { describeWith } from '../support/programs.ts';
import { digestsOf } from '../support/skopeo.ts';

const DOMAIN = 'cr.example.com';
const HUB = `docker.${DOMAIN}`;

const known = buildImage('known', [1_200_000, 300_000, 20]);
const unknown = buildImage('unknown', [10_000]);

/** Containerd gives up on response headers after this, ms: what is refused later is refused too late. */
const CLIENT_PATIENCE = 30_000;

describeWith(DOCKER_BED_NEEDS, 'with the upstream switched off', () => {
  let bed: DockerBed;
  showLogOfFailures(() => bed?.gateway);

  const stale = () => bed.gateway.logLines().filter(({ msg }) => String(msg).includes('a kept answer was served'));

  beforeAll(async () => {
    bed = await startDockerBed({
      domain: DOMAIN,
      hosts: [HUB],
      mirror: HUB,
      images: [
        [known, 'library/known', '1'],
        [unknown, 'library/unknown', '1'],
      ],
      registries: ['docker.io'],
      // Every answer for a tag is out of date at once.
      config: { cache: { tagTtl: '1ms' } },
    });
    const first = await bed.pull(`${DOMAIN}/docker.io/library/known:1`);
    expect(first.ran.code, first.ran.stderr).toBe(0);
    await bed.upstream.stop();
  });
  afterAll(() => bed?.close());

  it.each([
    ['tag', `${DOMAIN}/docker.io/library/known:1`],
    ['tag, by another way', `${HUB}/known:1`],
    ['digest', `${DOMAIN}/docker.io/library/known@${known.manifest.digest}`],
  ])('skopeo still pulls what is cached by %s', async (_, image) => {
    const { ran, digests } = await bed.pull(image);
    expect(ran.code, ran.stderr).toBe(0);
    expect(digests).toEqual(digestsOf(known));
  });

  it.each([
    ['tag, by registry-mirrors', 'known:1'],
    ['tag, by prefix', `${DOMAIN}/docker.io/library/known:1`],
    ['digest', `${DOMAIN}/docker.io/library/known@${known.manifest.digest}`],
  ])('docker still pulls what is cached by %s', async (_, image) => {
    const pulled = await bed.daemon.docker('pull', image);
    expect(pulled.code, `${pulled.stderr}\n${bed.daemon.log().slice(-4_000)}`).toBe(0);
    expect(pulled.stdout).toContain(known.manifest.digest);
    await bed.daemon.docker('image', 'rm', '--force', known.config.digest);
  });

  it('and after a restart of the gateway', async () => {
    await bed.gateway.stop();
    await bed.gateway.start();
    const { ran, digests } = await bed.pull(`${DOMAIN}/docker.io/library/known:1`);
    expect(ran.code, ran.stderr).toBe(0);
    expect(digests).toEqual(digestsOf(known));
  });

  it('says so in its log', () => {
    expect(stale().length).toBeGreaterThan(0);
    expect(stale()[0]).toMatchObject({
      level: 'warn',
      registry: 'docker.io',
      what: expect.stringContaining('library/known'),
    });
  });

  it('what is not cached is refused in time and in words, to skopeo and to docker', async () => {
    const start = performance.now();
    const { ran } = await bed.pull(`${DOMAIN}/docker.io/library/unknown:1`);
    expect(ran.code).not.toBe(0);
    expect(ran.stderr).toMatch(/50[24]/);
    const pulled = await bed.daemon.docker('pull', `${DOMAIN}/docker.io/library/unknown:1`);
    expect(pulled.code).not.toBe(0);
    expect(pulled.stderr).toMatch(/50[24]|docker\.io failed/);
    // Neither client repeats the words, so they are read here.
    const url = `https://${DOMAIN}/v2/docker.io/library/unknown/manifests/1`;
    const asked = await runOk({
      command: process.execPath,
      args: ['-e', `fetch('${url}').then(async (it) => console.log(it.status, await it.text()))`],
      env: { ...process.env, NODE_EXTRA_CA_CERTS: join(bed.gateway.dataDir, 'ca.crt') },
      within: bed.space,
    });
    expect(asked.stdout).toMatch(/^502 .*"UNAVAILABLE".*docker\.io failed: it refuses connections; try again/);
    expect(performance.now() - start).toBeLessThan(3 * CLIENT_PATIENCE);
  });

  it('and comes when the upstream is back', async () => {
    await bed.upstream.start();
    await expect
      .poll(async () => (await bed.pull(`${DOMAIN}/docker.io/library/unknown:1`)).digests, {
        timeout: 90_000,
        interval: 500,
      })
      .toEqual(digestsOf(unknown));
  });
});
