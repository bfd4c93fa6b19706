import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { CLIENTS_BED_NEEDS, type ClientsBed, DOMAIN, openClientsBed, pullAll } from '../support/clients-bed.ts';
import { startContainerd } from '../support/containerd.ts';
import { type Dockerd, startDockerd } from '../support/dockerd.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { buildImage, topOf } from '../support/oci-image.ts';
import { runOk } from '../support/processes.ts';
import { findNewer } from '../support/program-list.ts';
import { describeWith, programPath } from '../support/programs.ts';

// Docker 29 keeps images in containerd's store and reads hosts.toml. It is built by hand (CONTRIBUTING.md, Tests).

const image = buildImage('engine', [200_000, 3_000]);
const HOSTS_TOML = '/etc/docker/certs.d/_default/hosts.toml';
/** A name whose address swallows packets. */
const SILENT = { name: 'silent.example.com', address: '198.18.1.2' };

const [dockerd, containerd, ctr] = [findNewer('dockerd'), findNewer('containerd'), findNewer('ctr')];
const missing = [dockerd, containerd, ctr].includes(null)
  ? ['dockerd 29, containerd and ctr 2.2 in GATEWAY_TEST_CLIENTS (CONTRIBUTING.md, Tests)']
  : [];

describeWith(
  [...CLIENTS_BED_NEEDS, 'docker'],
  'Docker 29 as `gateway client docker` configures it',
  () => {
    let bed: ClientsBed;
    let daemon: Dockerd;
    showLogOfFailures(() => bed?.gateway);

    beforeAll(async () => {
      bed = await openClientsBed({ image, names: ['team/engine'], hosts: { [SILENT.name]: SILENT.address } });
      // What is sent there comes back in by the loopback, and is dropped as not for this machine.
      const args = ['route', 'add', SILENT.address, 'dev', 'lo'];
      await runOk({ command: programPath('ip'), args, within: bed.space });
      await bed.configure('docker');
      daemon = await startDockerd({
        within: bed.space,
        release: { dockerd: dockerd ?? '', folder: dirname(containerd ?? '') },
      });
    });

    afterAll(async () => {
      await daemon?.close();
      await bed?.close();
    });

    const pull = (name: string) => daemon.docker('pull', '--quiet', name);

    it('pulls sixty unchanged names of six registries, none of which it can reach itself', async () => {
      expect((await daemon.docker('info')).stdout).toContain('io.containerd.snapshotter');
      expect(bed.unchanged.size).toBe(60);
      expect(await pullAll(bed.unchanged.keys(), pull), daemon.log().slice(-4_000)).toEqual([]);
      const { stdout } = await daemon.docker(
        'image',
        'ls',
        '--no-trunc',
        '--format',
        '{{.Repository}}:{{.Tag}} {{.ID}}',
      );
      const listed = stdout.split('\n').sort();
      for (const [name, wanted] of bed.unchanged) {
        expect(listed).toContain(`${name.replace('docker.io/', '')} ${topOf(wanted).digest}`);
      }
    });

    it('pulls by prefix, by alias host, and by the mirror of an alias host', async () => {
      for (const name of [
        `${DOMAIN}/quay.io/team/engine:1`,
        `corp.${DOMAIN}/team/engine:1`,
        'registry.corp:5000/team/engine:1',
      ]) {
        const pulled = await pull(name);
        expect(pulled.code, pulled.stderr).toBe(0);
      }
    });

    it('pulls what the gateway has kept while the registry behind it is gone, too', async () => {
      const name = 'quay.io/team/app-2:1';
      expect((await pull(name)).code).toBe(0);
      expect((await daemon.docker('image', 'rm', '--force', name)).code).toBe(0);
      await bed.upstream.stop();
      try {
        const pulled = await pull(name);
        expect(pulled.code, pulled.stderr).toBe(0);
      } finally {
        await bed.upstream.start();
      }
    });

    it('goes to the registry itself where the gateway is gone', async () => {
      const name = `localhost:${bed.upstream.port}/team/engine:1`;
      await bed.gateway.stop();
      try {
        const pulled = await pull(name);
        expect(pulled.code, pulled.stderr).toBe(0);
      } finally {
        await bed.gateway.start();
      }
    });

    it('does not wait long for a gateway that swallows what it is sent', async () => {
      const file = join(bed.folder, HOSTS_TOML);
      const written = readFileSync(file, 'utf8');
      writeFileSync(file, written.replaceAll(DOMAIN, SILENT.name));
      try {
        // Without a bound of its own each of a pull's four and more requests would wait for half a minute.
        const pulled = await daemon.docker('pull', '--quiet', `localhost:${bed.upstream.port}/team/app-1:1`);
        expect(pulled.code, pulled.stderr).toBe(0);
      } finally {
        writeFileSync(file, written);
      }
    }, 90_000);

    it('containerd of 2.2 and later takes the file with the word that earlier ones reject', async () => {
      const engine = await startContainerd({ containerd: containerd ?? '', ctr: ctr ?? '', within: bed.space });
      try {
        expect(readFileSync(join(bed.folder, HOSTS_TOML), 'utf8')).toContain('"referrers"');
        const pulled = await engine.pull('/etc/docker/certs.d', 'quay.io/team/engine:1');
        expect(pulled.code, pulled.stderr).toBe(0);
      } finally {
        await engine.close();
      }
    });

    it('logs in where the gateway asks for credentials, by the header that its configuration shows', async () => {
      const token = (await bed.gateway.ok('user', 'add', 'ci')).trim();
      const name = 'ghcr.io/team/engine:1';
      // From the first user on, who is not logged in gets nothing through the gateway; and there is no other way.
      expect((await pull(name)).code).not.toBe(0);
      const { files } = JSON.parse(await bed.gateway.ok('client', 'docker', '--json')) as {
        files: { path: string; content: string }[];
      };
      const printed = files.find(({ path }) => path === HOSTS_TOML)?.content ?? '';
      // As its note says: take the # away, put the credentials there.
      const credentials = Buffer.from(`ci:${token}`).toString('base64');
      const filledIn = printed.replace(/^# /gm, '').replace('<base64 of USER:TOKEN>', credentials);
      expect(filledIn).toContain(`authorization = "Basic ${credentials}"`);
      writeFileSync(join(bed.folder, HOSTS_TOML), filledIn);
      const pulled = await pull(name);
      expect(pulled.code, pulled.stderr).toBe(0);
    });
  },
  missing,
);
