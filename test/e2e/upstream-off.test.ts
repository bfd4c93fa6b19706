import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { type Dockerd, startDockerd, writeTrust } from '../support/dockerd.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { GATEWAY_ADDRESS, type Namespace, openNamespace } from '../support/namespace.ts';
import { buildImage } from '../support/oci-image.ts';
import { runOk } from '../support/processes.ts';
import { describeWith } from '../support/programs.ts';
import { digestsOf, skopeoPull } from '../support/skopeo.ts';

const DOMAIN = 'cr.example.com';
const HUB = `docker.${DOMAIN}`;

const known = buildImage('known', [1_200_000, 300_000, 20]);
const unknown = buildImage('unknown', [10_000]);

/** Containerd gives up on response headers after this, ms: what is refused later is refused too late. */
const CLIENT_PATIENCE = 30_000;

describeWith(
  ['linux', 'root', 'docker-registry', 'skopeo', 'dockerd', 'docker', 'unshare', 'nsenter', 'ip', 'mount'],
  'with the upstream switched off',
  () => {
    let etcDocker: string;
    let space: Namespace;
    let upstream: DockerRegistry;
    let gateway: TestGateway;
    let ca: string;
    let daemon: Dockerd;
    showLogOfFailures(() => gateway);

    const skopeo = (image: string) => skopeoPull({ image, ca, within: space });
    const stale = () => gateway.logLines().filter(({ msg }) => String(msg).includes('a kept answer is served'));

    beforeAll(async () => {
      etcDocker = mkdtempSync(join(tmpdir(), 'etc-docker-'));
      space = await openNamespace({
        hosts: { [DOMAIN]: GATEWAY_ADDRESS, [HUB]: GATEWAY_ADDRESS },
        binds: { '/etc/docker': etcDocker },
      });
      upstream = await startDockerRegistry({ within: space });
      await upstream.push(known, 'library/known', '1');
      await upstream.push(unknown, 'library/unknown', '1');
      gateway = await startGateway({
        within: space,
        config: {
          domain: DOMAIN,
          tls: { mode: 'internal' },
          listen: { https: `${GATEWAY_ADDRESS}:443`, http: `${GATEWAY_ADDRESS}:80` },
          // Every answer for a tag is out of date at once.
          cache: { tagTtl: '1ms' },
        },
      });
      await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.endpoint);
      ca = readFileSync(join(gateway.dataDir, 'ca.crt'), 'utf8');
      writeTrust(etcDocker, [DOMAIN, HUB], ca);
      daemon = await startDockerd({ within: space, registryMirrors: [`https://${HUB}`] });

      const first = await skopeo(`${DOMAIN}/docker.io/library/known:1`);
      expect(first.ran.code, first.ran.stderr).toBe(0);
      await upstream.stop();
    });

    afterAll(async () => {
      await daemon?.close();
      await gateway?.close();
      await upstream?.close();
      await space?.close();
      rmSync(etcDocker, { recursive: true, force: true });
    });

    it.each([
      ['tag', `${DOMAIN}/docker.io/library/known:1`],
      ['tag, by another way', `${HUB}/known:1`],
      ['digest', `${DOMAIN}/docker.io/library/known@${known.manifest.digest}`],
    ])('skopeo still pulls what is cached by %s', async (_, image) => {
      const { ran, digests } = await skopeo(image);
      expect(ran.code, ran.stderr).toBe(0);
      expect(digests).toEqual(digestsOf(known));
    });

    it.each([
      ['tag, by registry-mirrors', 'known:1'],
      ['tag, by prefix', `${DOMAIN}/docker.io/library/known:1`],
      ['digest', `${DOMAIN}/docker.io/library/known@${known.manifest.digest}`],
    ])('docker still pulls what is cached by %s', async (_, image) => {
      const pulled = await daemon.docker('pull', image);
      expect(pulled.code, `${pulled.stderr}\n${daemon.log().slice(-4_000)}`).toBe(0);
      expect(pulled.stdout).toContain(known.manifest.digest);
      await daemon.docker('image', 'rm', '--force', known.config.digest);
    });

    it('and after a restart of the gateway', async () => {
      await gateway.stop();
      await gateway.start();
      const { ran, digests } = await skopeo(`${DOMAIN}/docker.io/library/known:1`);
      expect(ran.code, ran.stderr).toBe(0);
      expect(digests).toEqual(digestsOf(known));
    });

    it('says so in its log', () => {
      expect(stale().length).toBeGreaterThan(0);
      expect(stale()[0]).toMatchObject({ level: 'warn', registry: 'docker.io', repository: 'library/known', tag: '1' });
    });

    it('what is not cached is refused in time and in words, to skopeo and to docker', async () => {
      const start = performance.now();
      const { ran } = await skopeo(`${DOMAIN}/docker.io/library/unknown:1`);
      expect(ran.code).not.toBe(0);
      expect(ran.stderr).toMatch(/50[24]/);
      const pulled = await daemon.docker('pull', `${DOMAIN}/docker.io/library/unknown:1`);
      expect(pulled.code).not.toBe(0);
      expect(pulled.stderr).toMatch(/50[24]|docker\.io failed/);
      // Neither client repeats the words, so they are read here.
      const url = `https://${DOMAIN}/v2/docker.io/library/unknown/manifests/1`;
      const asked = await runOk({
        command: process.execPath,
        args: ['-e', `fetch('${url}').then(async (it) => console.log(it.status, await it.text()))`],
        env: { ...process.env, NODE_EXTRA_CA_CERTS: join(gateway.dataDir, 'ca.crt') },
        within: space,
      });
      expect(asked.stdout).toMatch(/^502 .*"UNAVAILABLE".*docker\.io failed: it refuses connections; try again/);
      expect(performance.now() - start).toBeLessThan(3 * CLIENT_PATIENCE);
    });

    it('and comes when the upstream is back', async () => {
      await upstream.start();
      await expect
        .poll(async () => (await skopeo(`${DOMAIN}/docker.io/library/unknown:1`)).digests, {
          timeout: 90_000,
          interval: 500,
        })
        .toEqual(digestsOf(unknown));
    });
  },
);
