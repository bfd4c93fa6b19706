import { afterAll, beforeAll, expect, it } from 'vitest';
import { DOCKER_BED_NEEDS, type DockerBed, startDockerBed } from '../support/docker-bed.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { buildImage } from '../support/oci-image.ts';
import { describeWith } from '../support/programs.ts';
import { digestsOf } from '../support/skopeo.ts';

const DOMAIN = 'cr.example.com';
const ALIAS = `k8s-gcr.${DOMAIN}`;
const HUB = `docker.${DOMAIN}`;

const pause = buildImage('pause', [2_000_000, 700_000, 30]);
const hubImage = buildImage('hub', [1_500_000, 300]);
// Docker fetches no layer twice: each of its ways gets an image of its own.
const prefixed = buildImage('prefixed', [900_000, 40_000]);
const aliased = buildImage('aliased', [900_000, 50_000]);
const mirrored = buildImage('mirrored', [900_000, 60_000]);
const slashed = buildImage('slashed', [900_000, 70_000]);

describeWith(DOCKER_BED_NEEDS, 'three ways to pull, over a network of their own', () => {
  let bed: DockerBed;
  showLogOfFailures(() => bed?.gateway);

  beforeAll(async () => {
    bed = await startDockerBed({
      domain: DOMAIN,
      hosts: [ALIAS, HUB],
      mirror: HUB,
      images: [
        [pause, 'pause', '3.9'],
        [hubImage, 'library/hub', '1'],
        [prefixed, 'prefixed', '1'],
        [aliased, 'aliased', '1'],
        [mirrored, 'library/mirrored', '1'],
        [slashed, 'someone/slashed', '2'],
      ],
      registries: ['k8s.gcr.io', 'docker.io'],
    });
  });
  afterAll(() => bed?.close());

  it.each([
    ['by prefix', `${DOMAIN}/k8s.gcr.io/pause:3.9`],
    ['by alias host', `${ALIAS}/pause:3.9`],
    ['by digest', `${ALIAS}/pause@${pause.manifest.digest}`],
  ])('skopeo gets identical bytes %s', async (_, image) => {
    const { ran, digests } = await bed.pull(image);
    expect(ran.code, ran.stderr).toBe(0);
    expect(digests).toEqual(digestsOf(pause));
  });

  it('skopeo gets identical bytes through the bare domain, which serves docker.io', async () => {
    const { ran, digests } = await bed.pull(`${DOMAIN}/hub:1`);
    expect(ran.code, ran.stderr).toBe(0);
    expect(digests).toEqual(digestsOf(hubImage));
  });

  it.each([
    ['by prefix', `${DOMAIN}/k8s.gcr.io/prefixed:1`, prefixed],
    ['by alias host', `${ALIAS}/aliased:1`, aliased],
    ['with nothing but registry-mirrors', 'mirrored:1', mirrored],
    ['with nothing but registry-mirrors, a name with a slash', 'someone/slashed:2', slashed],
  ])('docker gets identical bytes %s', async (_, image, expected) => {
    const pulled = await bed.daemon.docker('pull', image);
    expect(pulled.code, `${pulled.stderr}\n${bed.daemon.log().slice(-4_000)}`).toBe(0);
    expect(pulled.stdout).toContain(`Digest: ${expected.manifest.digest}`);
    const inspected = await bed.daemon.docker('image', 'inspect', image);
    const [found] = JSON.parse(inspected.stdout) as [
      { Id: string; RepoDigests: string[]; RootFS: { Layers: string[] } },
    ];
    // The daemon unpacked what it had checked by digest; its name for an image is the digest of the configuration.
    expect(found.Id).toBe(expected.config.digest);
    expect(found.RepoDigests[0]).toContain(expected.manifest.digest);
    const config = JSON.parse(expected.config.bytes.toString()) as { rootfs: { diff_ids: string[] } };
    expect(found.RootFS.Layers).toEqual(config.rootfs.diff_ids);
    // It really came through the gateway: there is no other way out of this network, and the gateway says so.
    const served = new Set(
      bed.gateway
        .logLines()
        .filter(({ userAgent, status }) => String(userAgent).startsWith('docker/') && status === 200)
        .map(({ reference }) => reference),
    );
    expect([...digestsOf(expected)].filter((digest) => !served.has(digest))).toEqual([]);
  });

  it('docker trusts the gateway by its certificate, and nothing else: without the CA the pull fails', async () => {
    bed.distrust(ALIAS);
    const pulled = await bed.daemon.docker('pull', `${ALIAS}/pause:3.9`);
    bed.trust(ALIAS);
    expect(pulled.code).not.toBe(0);
    expect(pulled.stderr).toMatch(/certificate/);
  });

  it('docker cannot push: 405, and nothing but reads reaches the upstream', async () => {
    const before = bed.upstream.requests().length;
    await bed.daemon.docker('tag', 'mirrored:1', `${ALIAS}/mirrored:1`);
    const pushed = await bed.daemon.docker('push', `${ALIAS}/mirrored:1`);
    expect(pushed.code).not.toBe(0);
    expect(pushed.stderr).toContain('only serves pulls');
    // It asks by HEAD what is there already.
    expect(
      bed.upstream
        .requests()
        .slice(before)
        .filter((line) => !/"(HEAD|GET) /.test(line)),
    ).toEqual([]);
  });
});
