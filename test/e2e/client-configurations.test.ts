import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { startDockerd } from '../support/dockerd.ts';
import { eventually } from '../support/eventually.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { GATEWAY_ADDRESS, type Namespace, openNamespace } from '../support/namespace.ts';
import { buildImage } from '../support/oci-image.ts';
import { type Program, runProgram, startProgram } from '../support/processes.ts';
import { describeWith, programPath } from '../support/programs.ts';

// What `gateway client` prints is put where it says, and the real client pulls by the image's own name. There is no way out of this
// network, and no such name in it, so what arrives came through the gateway.

const DOMAIN = 'cr.example.com';
const ALIAS = `corp.${DOMAIN}`;
const image = buildImage('configured', [400_000, 3_000]);

describeWith(
  [
    'linux',
    'root',
    'docker-registry',
    'skopeo',
    'containerd',
    'ctr',
    'dockerd',
    'docker',
    'unshare',
    'nsenter',
    'ip',
    'mount',
  ],
  'clients as `gateway client` configures them',
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'clients-'));
    /** Folders of the machine that the clients read, and what they see in their place. */
    const binds = Object.fromEntries(
      ['/etc/containers', '/etc/containerd', '/etc/docker'].map((path) => [path, join(folder, path)]),
    );
    let space: Namespace;
    let upstream: DockerRegistry;
    let gateway: TestGateway;
    showLogOfFailures(() => gateway);

    beforeAll(async () => {
      for (const source of Object.values(binds)) mkdirSync(source, { recursive: true });
      space = await openNamespace({ hosts: { [DOMAIN]: GATEWAY_ADDRESS, [ALIAS]: GATEWAY_ADDRESS }, binds });
      upstream = await startDockerRegistry({ within: space });
      for (const name of ['library/configured', 'team/configured', 'configured']) await upstream.push(image, name, '1');
      gateway = await startGateway({
        within: space,
        config: {
          domain: DOMAIN,
          tls: { mode: 'internal' },
          listen: { https: `${GATEWAY_ADDRESS}:443`, http: `${GATEWAY_ADDRESS}:80` },
        },
      });
      for (const registry of ['docker.io', 'quay.io']) {
        await gateway.ok('registry', 'set', registry, '--endpoint', upstream.endpoint);
      }
      await gateway.ok('alias', 'add', 'corp', 'registry.corp:5000', '--endpoint', upstream.endpoint);
    });

    afterAll(async () => {
      await gateway?.close();
      await upstream?.close();
      await space?.close();
      rmSync(folder, { recursive: true, force: true });
    });

    /** Puts the files where they say; returns them by path. */
    async function configure(client: string): Promise<Map<string, string>> {
      const { files } = JSON.parse(await gateway.ok('client', client, '--json')) as {
        files: { path: string; content: string }[];
      };
      for (const { path, content } of files) {
        const file = join(folder, path);
        mkdirSync(dirname(file), { recursive: true });
        writeFileSync(file, content);
      }
      return new Map(files.map(({ path, content }) => [path, content]));
    }

    it.each([
      ['podman', 'docker.io/configured:1'],
      ['podman', 'quay.io/team/configured:1'],
      ['cri-o', 'registry.corp:5000/configured:1'],
    ])('%s’s files lead skopeo to %s', async (client, name) => {
      await configure(client);
      const target = mkdtempSync(join(folder, 'image-'));
      const ran = await runProgram({
        command: programPath('skopeo'),
        args: ['--insecure-policy', 'copy', '--preserve-digests', `docker://${name}`, `dir:${target}`],
        within: space,
      });
      expect(ran.code, ran.stderr).toBe(0);
      expect(readdirSync(target)).toContain(image.config.digest.slice('sha256:'.length));
    });

    it('containerd pulls from every registry by one file', async () => {
      await configure('containerd');
      const config = join(folder, 'config.toml');
      const socket = join(folder, 'containerd.sock');
      writeFileSync(
        config,
        `version = 2\nroot = "${folder}/root"\nstate = "${folder}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "${socket}"\n`,
      );
      const daemon: Program = startProgram({
        command: programPath('containerd'),
        args: ['--config', config],
        within: space,
      });
      const ctr = (...args: string[]) =>
        runProgram({ command: programPath('ctr'), args: ['--address', socket, ...args], within: space });
      try {
        await eventually('containerd to answer', async () => (await ctr('version')).code === 0);
        for (const name of [
          'docker.io/library/configured:1',
          'quay.io/team/configured:1',
          'registry.corp:5000/configured:1',
        ]) {
          const pulled = await ctr(
            'images',
            'pull',
            '--snapshotter',
            'native',
            '--hosts-dir',
            '/etc/containerd/certs.d',
            name,
          );
          expect(pulled.code, pulled.stderr + daemon.output().slice(-2_000)).toBe(0);
          expect((await ctr('images', 'ls', `name==${name}`)).stdout).toContain(image.manifest.digest);
        }
      } finally {
        await daemon.end();
      }
    });

    it('docker pulls docker.io through the bare domain', async () => {
      const files = await configure('docker');
      const daemonJson = JSON.parse(files.get('/etc/docker/daemon.json') ?? '') as { 'registry-mirrors': string[] };
      const daemon = await startDockerd({ within: space, registryMirrors: daemonJson['registry-mirrors'] });
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
