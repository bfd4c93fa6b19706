import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { type Dockerd, startDockerd, writeTrust } from '../support/dockerd.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { GATEWAY_ADDRESS, type Namespace, openNamespace } from '../support/namespace.ts';
import { buildImage } from '../support/oci-image.ts';
import { describeWith } from '../support/programs.ts';
import { digestsOf, skopeoPull } from '../support/skopeo.ts';

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

describeWith(
  ['linux', 'root', 'docker-registry', 'skopeo', 'dockerd', 'docker', 'unshare', 'nsenter', 'ip', 'mount'],
  'three ways to pull, over a network of their own',
  () => {
    let etcDocker: string;
    let space: Namespace;
    let upstream: DockerRegistry;
    let gateway: TestGateway;
    let ca: string;
    let daemon: Dockerd;
    showLogOfFailures(() => gateway);

    beforeAll(async () => {
      etcDocker = mkdtempSync(join(tmpdir(), 'etc-docker-'));
      space = await openNamespace({
        hosts: Object.fromEntries([DOMAIN, ALIAS, HUB].map((host) => [host, GATEWAY_ADDRESS])),
        binds: { '/etc/docker': etcDocker },
      });
      upstream = await startDockerRegistry({ within: space });
      await upstream.push(pause, 'pause', '3.9');
      await upstream.push(hubImage, 'library/hub', '1');
      await upstream.push(prefixed, 'prefixed', '1');
      await upstream.push(aliased, 'aliased', '1');
      await upstream.push(mirrored, 'library/mirrored', '1');
      await upstream.push(slashed, 'someone/slashed', '2');
      gateway = await startGateway({
        within: space,
        config: {
          domain: DOMAIN,
          tls: { mode: 'internal' },
          listen: { https: `${GATEWAY_ADDRESS}:443`, http: `${GATEWAY_ADDRESS}:80` },
        },
      });
      await gateway.ok('registry', 'set', 'k8s.gcr.io', '--endpoint', upstream.endpoint);
      await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.endpoint);
      ca = readFileSync(join(gateway.dataDir, 'ca.crt'), 'utf8');
      writeTrust(etcDocker, [DOMAIN, ALIAS, HUB], ca);
      daemon = await startDockerd({ within: space, registryMirrors: [`https://${HUB}`] });
    });

    afterAll(async () => {
      await daemon?.close();
      await gateway?.close();
      await upstream?.close();
      await space?.close();
      rmSync(etcDocker, { recursive: true, force: true });
    });

    it.each([
      ['by prefix', `${DOMAIN}/k8s.gcr.io/pause:3.9`],
      ['by alias host', `${ALIAS}/pause:3.9`],
      ['by digest', `${ALIAS}/pause@${pause.manifest.digest}`],
    ])('skopeo gets identical bytes %s', async (_, image) => {
      const { ran, digests } = await skopeoPull({ image, ca, within: space });
      expect(ran.code, ran.stderr).toBe(0);
      expect(digests).toEqual(digestsOf(pause));
    });

    it('skopeo gets identical bytes through the bare domain, which serves docker.io', async () => {
      const { ran, digests } = await skopeoPull({ image: `${DOMAIN}/hub:1`, ca, within: space });
      expect(ran.code, ran.stderr).toBe(0);
      expect(digests).toEqual(digestsOf(hubImage));
    });

    it.each([
      ['by prefix', `${DOMAIN}/k8s.gcr.io/prefixed:1`, prefixed],
      ['by alias host', `${ALIAS}/aliased:1`, aliased],
      ['with nothing but registry-mirrors', 'mirrored:1', mirrored],
      ['with nothing but registry-mirrors, a name with a slash', 'someone/slashed:2', slashed],
    ])('docker gets identical bytes %s', async (_, image, expected) => {
      const pulled = await daemon.docker('pull', image);
      expect(pulled.code, `${pulled.stderr}\n${daemon.log().slice(-4_000)}`).toBe(0);
      expect(pulled.stdout).toContain(`Digest: ${expected.manifest.digest}`);
      const inspected = await daemon.docker('image', 'inspect', image);
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
        gateway
          .logLines()
          .filter(({ userAgent, status }) => String(userAgent).startsWith('docker/') && status === 200)
          .map(({ reference }) => reference),
      );
      expect([...digestsOf(expected)].filter((digest) => !served.has(digest))).toEqual([]);
    });

    it('docker trusts the gateway by its certificate, and nothing else: without the CA the pull fails', async () => {
      rmSync(join(etcDocker, 'certs.d', ALIAS), { recursive: true });
      const pulled = await daemon.docker('pull', `${ALIAS}/pause:3.9`);
      writeTrust(etcDocker, [ALIAS], ca);
      expect(pulled.code).not.toBe(0);
      expect(pulled.stderr).toMatch(/certificate/);
    });

    it('docker cannot push: 405, and nothing but reads reaches the upstream', async () => {
      const before = upstream.requests().length;
      await daemon.docker('tag', 'mirrored:1', `${ALIAS}/mirrored:1`);
      const pushed = await daemon.docker('push', `${ALIAS}/mirrored:1`);
      expect(pushed.code).not.toBe(0);
      expect(pushed.stderr).toContain('only serves pulls');
      // It asks by HEAD what is there already.
      expect(
        upstream
          .requests()
          .slice(before)
          .filter((line) => !/"(HEAD|GET) /.test(line)),
      ).toEqual([]);
    });
  },
);
