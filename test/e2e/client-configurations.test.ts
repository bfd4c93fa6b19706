import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { CLIENTS_BED_NEEDS, type ClientsBed, DOMAIN, openClientsBed, pullAll } from '../support/clients-bed.ts';
import { type Containerd, startContainerd } from '../support/containerd.ts';
import { startDockerd } from '../support/dockerd.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { buildImage, topOf } from '../support/oci-image.ts';
import { runProgram } from '../support/processes.ts';
import { describeWith, programPath } from '../support/programs.ts';

// What `gateway client` prints is put where it says, and the real client pulls by the image's own name. There is no way out of this
// network, and no such name in it, so what arrives came through the gateway.

const image = buildImage('configured', [400_000, 3_000]);
const CERTS = '/etc/containerd/certs.d';

describeWith(
  [...CLIENTS_BED_NEEDS, 'containerd', 'ctr', 'dockerd', 'docker'],
  'clients as `gateway client` configures them',
  () => {
    let bed: ClientsBed;
    showLogOfFailures(() => bed?.gateway);

    beforeAll(async () => {
      bed = await openClientsBed({ image, names: ['library/configured', 'team/configured', 'configured'] });
    });

    afterAll(() => bed?.close());

    it.each([
      ['podman', 'docker.io/configured:1'],
      ['podman', 'quay.io/team/configured:1'],
      ['cri-o', 'registry.corp:5000/configured:1'],
    ])('%s’s files lead skopeo to %s', async (client, name) => {
      await bed.configure(client);
      const target = mkdtempSync(join(bed.folder, 'image-'));
      const ran = await runProgram({
        command: programPath('skopeo'),
        args: ['--insecure-policy', 'copy', '--preserve-digests', `docker://${name}`, `dir:${target}`],
        within: bed.space,
      });
      expect(ran.code, ran.stderr).toBe(0);
      expect(readdirSync(target)).toContain(image.config.digest.slice('sha256:'.length));
    });

    it('podman’s files as --apply merges them lead skopeo and --check to the gateway, and are undone byte by byte', async () => {
      const path = join(bed.folder, '/etc/containers/registries.conf');
      const before =
        '# the company\'s\r\n[[registry]]\r\nlocation = "docker.io"\r\n\r\n[[registry.mirror]]\r\nlocation = "nowhere.invalid"';
      writeFileSync(path, before);
      const place = ['--root', bed.folder];
      await bed.gateway.ok('client', 'podman', '--apply', '--yes', ...place);
      try {
        expect(readFileSync(path, 'utf8')).toContain('location = "nowhere.invalid"');
        const checked = [
          'client',
          'podman',
          '--check',
          '--image',
          'docker.io/library/configured:1',
          '--json',
          ...place,
        ];
        expect(await bed.gateway.ok(...checked)).toContain(image.manifest.digest);
        for (const name of ['docker.io/configured:1', 'registry.corp:5000/configured:1']) {
          const target = mkdtempSync(join(bed.folder, 'image-'));
          const ran = await runProgram({
            command: programPath('skopeo'),
            args: ['--insecure-policy', 'copy', '--preserve-digests', `docker://${name}`, `dir:${target}`],
            within: bed.space,
          });
          expect(ran.code, ran.stderr).toBe(0);
        }
      } finally {
        await bed.gateway.ok('client', 'podman', '--undo', '--yes', ...place);
      }
      expect(readFileSync(path, 'utf8')).toBe(before);
      rmSync(path);
    });

    async function withContainerd(work: (containerd: Containerd) => Promise<void>): Promise<void> {
      const programs = { containerd: programPath('containerd'), ctr: programPath('ctr') };
      const containerd = await startContainerd({ ...programs, within: bed.space });
      try {
        await work(containerd);
      } finally {
        await containerd.close();
      }
    }

    it('containerd pulls sixty unchanged names of six registries by one file', async () => {
      await bed.configure('containerd');
      await withContainerd(async (containerd) => {
        const { unchanged } = bed;
        expect(unchanged.size).toBe(60);
        expect(
          await pullAll(unchanged.keys(), (name) => containerd.pull(CERTS, name)),
          containerd.log().slice(-2_000),
        ).toEqual([]);
        const listed = (await containerd.ctr('images', 'ls')).stdout;
        for (const [name, wanted] of unchanged) {
          expect(listed.split('\n').find((line) => line.startsWith(`${name} `)) ?? name).toContain(
            topOf(wanted).digest,
          );
        }
      });
    });

    it('containerd pulls from a registry with a port, and goes past a gateway that is gone', async () => {
      await bed.configure('containerd');
      const { port } = bed.upstream;
      await withContainerd(async (containerd) => {
        const throughGateway = await containerd.pull(CERTS, 'registry.corp:5000/configured:1');
        expect(throughGateway.code, throughGateway.stderr).toBe(0);
        await bed.gateway.stop();
        try {
          const past = await containerd.pull(CERTS, `localhost:${port}/team/configured:1`);
          expect(past.code, past.stderr).toBe(0);
        } finally {
          await bed.gateway.start();
        }
      });
    });

    it('docker with its classic store pulls docker.io through the bare domain', async () => {
      const files = await bed.configure('docker');
      const daemonJson = JSON.parse(files.get('/etc/docker/daemon.json') ?? '') as { 'registry-mirrors': string[] };
      expect(daemonJson['registry-mirrors']).toEqual([`https://${DOMAIN}`]);
      const daemon = await startDockerd({ within: bed.space, registryMirrors: daemonJson['registry-mirrors'] });
      try {
        const pulled = await daemon.docker('pull', 'configured:1');
        expect(pulled.code, `${pulled.stderr}\n${daemon.log().slice(-2_000)}`).toBe(0);
        expect(pulled.stdout).toContain(`Digest: ${image.manifest.digest}`);
      } finally {
        await daemon.close();
      }
    });
  },
);
