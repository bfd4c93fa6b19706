import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Containerd, startContainerd } from '../support/containerd.ts';
import { generatedLayer } from '../support/content.ts';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { startDockerd } from '../support/dockerd.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { type Namespace, openNamespace } from '../support/namespace.ts';
import { buildImage, type TestImage, topOf, withAttestation, withPlatforms, withZstd } from '../support/oci-image.ts';
import { type Ran, runOk, runProgram } from '../support/processes.ts';
import { findNewer } from '../support/program-list.ts';
import { describeWith, programPath } from '../support/programs.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

const BED_NEEDS = ['linux', 'root', 'docker-registry', 'skopeo', 'docker', 'unshare', 'nsenter', 'mount'] as const;

const base = buildImage('base', [3_000_000]);
const one = buildImage('one', [50_000], { base });
const two = withAttestation(buildImage('two', [70_000, 2_000], { base }));
const many = withPlatforms({
  amd64: buildImage('many', [30_000], { base }),
  arm64: buildImage('arm', [40_000], { architecture: 'arm64' }),
  s390x: buildImage('s390x', [10_000], { architecture: 's390x' }),
});
const packed = withZstd(buildImage('packed', [30_000]));

/** By their whole names, which all of them are loaded under. */
const IMAGES: Readonly<Record<string, TestImage>> = {
  'docker.io/library/alpine:3.20': one,
  'quay.io/team/two:1': two,
  'ghcr.io/team/many:v1.0': many,
};

/** A registry with these images, and a gateway that has saved them in both forms; the registry is gone since. */
interface SaveBed {
  readonly space: Namespace;
  readonly gateway: TestGateway;
  readonly folder: string;
  readonly archive: string;
  readonly layout: string;
  run(command: string, ...args: string[]): Promise<Ran>;
  close(): Promise<void>;
}

async function openBed(): Promise<SaveBed> {
  const folder = mkdtempSync(join(tmpdir(), 'saved-'));
  const closers: (() => Promise<void>)[] = [async () => rmSync(folder, { recursive: true, force: true })];
  const close = async (): Promise<void> => {
    for (const one of closers.splice(0).reverse()) await one();
  };
  try {
    // Daemons mount what the machine is not to see.
    const space = await openNamespace({ hosts: {}, network: false });
    closers.push(() => space.close());
    const upstream: DockerRegistry = await startDockerRegistry();
    closers.push(() => upstream.close());
    await upstream.push(one, 'library/alpine', '3.20');
    await upstream.push(two, 'team/two', '1');
    await upstream.push(many, 'team/many', 'v1.0');
    await upstream.push(packed, 'team/packed', '1');
    const gateway = await startGateway();
    closers.push(() => gateway.close());
    for (const registry of ['docker.io', 'quay.io', 'ghcr.io'])
      await gateway.ok('registry', 'set', registry, '--endpoint', upstream.endpoint);
    const [archive, layout] = [join(folder, 'images.tar'), join(folder, 'layout.tar')];
    const names = ['alpine:3.20', 'quay.io/team/two:1', 'ghcr.io/team/many:v1.0'];
    await gateway.ok('save', ...names, '-o', archive);
    await gateway.ok('save', ...names, '-o', layout, '--format', 'oci');
    await gateway.ok('save', 'quay.io/team/packed:1', '-o', join(folder, 'packed.tar'));
    await upstream.stop();
    const run = (command: string, ...args: string[]) => runProgram({ command, args, within: space, ms: 120_000 });
    return { space, gateway, folder, archive, layout, run, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** `ctr images import`, into the snapshotter that wants nothing of the kernel. */
async function importInto(engine: Containerd, archive: string): Promise<string> {
  // From 2.0 on the daemon would do it, with a snapshotter of its own choice.
  const local = (await engine.ctr('images', 'import', '--help')).stdout.includes('--local') ? ['--local'] : [];
  const imported = await engine.ctr('images', 'import', ...local, '--snapshotter', 'native', archive);
  expect(imported.code, imported.stderr).toBe(0);
  return (await engine.ctr('images', 'ls')).stdout;
}

describeWith([...BED_NEEDS, 'dockerd', 'podman', 'containerd', 'ctr', 'bash'], 'what `gateway save` writes', () => {
  let bed: SaveBed;
  showLogOfFailures(() => bed?.gateway);
  beforeAll(async () => {
    bed = await openBed();
  });
  afterAll(() => bed?.close());

  it('has the layer that all three share once, and is made again from the cache while the registry is gone', async () => {
    const { stdout } = await runOk({ command: 'tar', args: ['tf', bed.archive] });
    const shared = base.layers[0]?.digest.slice('sha256:'.length) ?? '';
    expect(stdout.split('\n').filter((name) => name.endsWith(shared))).toHaveLength(1);
    const again = join(bed.folder, 'again.tar');
    await bed.gateway.ok('save', 'alpine:3.20', 'quay.io/team/two:1', 'ghcr.io/team/many:v1.0', '-o', again);
    expect(readFileSync(again).equals(readFileSync(bed.archive))).toBe(true);
  });

  it('is taken by docker load, also from a pipe; the images have their own identities', async () => {
    const daemon = await startDockerd({ within: bed.space });
    try {
      const loaded = await daemon.docker('load', '-i', bed.archive);
      expect(loaded.code, loaded.stderr).toBe(0);
      for (const [name, image] of Object.entries(IMAGES)) {
        const { stdout } = await daemon.docker('image', 'inspect', '--format', '{{.Id}}', name);
        expect(stdout.trim(), name).toBe(image.config.digest);
      }
      await daemon.docker('image', 'rm', '--force', ...Object.keys(IMAGES));
      expect((await daemon.docker('image', 'ls', '--quiet')).stdout).toBe('');
      const save = `'${process.execPath}' '${MAIN}' --config '${bed.gateway.configFile}' save ${Object.keys(IMAGES).join(' ')} -o -`;
      const left = await bed.run('bash', '-c', `${save} | head -c 1000 > /dev/null; exit "\${PIPESTATUS[0]}"`);
      expect(left.code, left.stderr).toBe(1);
      expect(left.stderr).not.toMatch(/EPIPE|unexpected/);
      const script = `${save} | '${programPath('docker')}' --host '${daemon.host}' load`;
      const piped = await bed.run('bash', '-o', 'pipefail', '-c', script);
      expect(piped.code, piped.stderr).toBe(0);
      expect(piped.stdout).toContain('Loaded image: alpine:3.20');
      const { stdout } = await daemon.docker('image', 'inspect', '--format', '{{.Id}}', ...Object.keys(IMAGES));
      expect(stdout.trim().split('\n')).toEqual(Object.values(IMAGES).map(({ config }) => config.digest));
    } finally {
      await daemon.close();
    }
  }, 120_000);

  it('is read by skopeo, as an archive and as a layout, and copied whole', async () => {
    const skopeo = programPath('skopeo');
    for (const [name, image] of Object.entries(IMAGES)) {
      const inspected = await bed.run(skopeo, 'inspect', `docker-archive:${bed.archive}:${name}`);
      expect(inspected.code, inspected.stderr).toBe(0);
      expect((JSON.parse(inspected.stdout) as { Layers: string[] }).Layers).toHaveLength(image.layers.length);
      const config = await bed.run(skopeo, 'inspect', '--config', '--raw', `docker-archive:${bed.archive}:${name}`);
      expect(config.stdout).toBe(image.config.bytes.toString());
      const raw = await bed.run(skopeo, 'inspect', '--raw', `oci-archive:${bed.layout}:${name}`);
      expect(raw.stdout, raw.stderr).toBe(topOf(image).bytes.toString());
    }
    const target = `oci:${join(bed.folder, 'copied')}:1`;
    const whole = `oci-archive:${bed.layout}:ghcr.io/team/many:v1.0`;
    const copied = await bed.run(skopeo, '--insecure-policy', 'copy', '--all', '--preserve-digests', whole, target);
    expect(copied.code, copied.stderr).toBe(0);
  });

  it('is taken by podman load under whole names', async () => {
    const place = [
      '--root',
      join(bed.folder, 'podman'),
      '--runroot',
      join(bed.folder, 'run'),
      '--storage-driver',
      'vfs',
    ];
    const podman = (...args: string[]) => bed.run(programPath('podman'), ...place, ...args);
    const loaded = await podman('load', '-i', bed.archive);
    expect(loaded.code, loaded.stderr).toBe(0);
    for (const [name, image] of Object.entries(IMAGES)) {
      const { stdout } = await podman('image', 'inspect', '--format', '{{.Id}}', name);
      expect(`sha256:${stdout.trim()}`, name).toBe(image.config.digest);
    }
    const zstd = await podman('load', '-i', join(bed.folder, 'packed.tar'));
    expect(zstd.code, zstd.stderr).toBe(0);
  });

  it('is imported by ctr, each name standing for what it stands for in the archive', async () => {
    const engine = await startContainerd({
      containerd: programPath('containerd'),
      ctr: programPath('ctr'),
      within: bed.space,
    });
    try {
      const listed = await importInto(engine, bed.archive);
      for (const [name, { manifest }] of Object.entries(IMAGES))
        expect(listed).toMatch(new RegExp(`^${name} .*${manifest.digest}`, 'm'));
      const whole = await importInto(engine, bed.layout);
      for (const [name, image] of Object.entries(IMAGES))
        expect(whole).toMatch(new RegExp(`^${name} .*${topOf(image).digest}`, 'm'));
    } finally {
      await engine.close();
    }
  });

  it('is made of what a data directory has while no gateway runs on it', async () => {
    await bed.gateway.stop();
    try {
      const file = join(bed.folder, 'at-rest.tar');
      const saved = await bed.gateway.cli(['save', 'alpine:3.20', 'quay.io/team/two:1', '-o', file, '--json']);
      expect(saved, saved.stderr).toMatchObject({ code: 0, stderr: expect.stringContaining('nothing runs on') });
      expect((JSON.parse(saved.stdout) as { images: object[] }).images).toMatchObject([{ layers: 2 }, { layers: 3 }]);
    } finally {
      await bed.gateway.start();
    }
  });

  it('on a disk that is full is told in words, and made whole once there is room', async () => {
    const small = join(bed.folder, 'small');
    mkdirSync(small);
    await runOk({
      command: programPath('mount'),
      args: ['-t', 'tmpfs', '-o', 'size=2m', 'none', small],
      within: bed.space,
    });
    const save = [
      'sh',
      '-c',
      `'${process.execPath}' '${MAIN}' --config '${bed.gateway.configFile}' save alpine:3.20 -o small/a.tar`,
    ];
    const within = (script: readonly string[]) =>
      bed.run('sh', '-c', `cd '${bed.folder}' && exec "$@"`, 'sh', ...script);
    const full = await within(save);
    expect(full).toMatchObject({ code: 1, stderr: expect.stringContaining('the disk is full') });
    expect(full.stderr).toContain('goes on where it stopped');
    expect((await bed.run('ls', small)).stdout).toBe('a.tar.partial\n');
    await runOk({ command: programPath('mount'), args: ['-o', 'remount,size=20m', small], within: bed.space });
    const whole = await within(save);
    expect(whole).toMatchObject({ code: 0, stderr: expect.stringContaining('are there from an earlier run') });
    expect((await bed.run('ls', small)).stdout).toBe('a.tar\n');
  });

  it('says what Docker 20.10 cannot unpack', async () => {
    const saved = await bed.gateway.cli([
      'save',
      'quay.io/team/packed:1',
      '-o',
      join(bed.folder, 'packed.tar'),
      '--force',
    ]);
    expect(saved).toMatchObject({ code: 0, stderr: expect.stringContaining('compressed by zstd') });
  });

  it('killed half-way and run again, it takes from the registry only what it lacks', async () => {
    const fake = await FakeRegistry.start();
    const gateway = await startGateway({ config: { cache: { maxSize: 0 } } });
    try {
      const layers = [generatedLayer(20_000_000, 'first'), generatedLayer(30_000_000, 'second')];
      fake.repository('team/large').addImage('1', layers);
      // Slow enough to be killed within it.
      fake.faults = ({ kind }) => (kind === 'blob' ? { bytesPerSecond: 8_000_000 } : undefined);
      await gateway.ok('registry', 'set', 'quay.io', '--endpoint', fake.url);
      const file = join(bed.folder, 'large.tar');
      const killed = gateway.begin('save', 'quay.io/team/large:1', '-o', file);
      const written = (): number => statSync(`${file}.partial`, { throwIfNoEntry: false })?.size ?? 0;
      await eventually('more than half to be written', () => written() > 28_000_000);
      await killed.kill();
      const kept = written();
      await eventually('the registry to see it leave', () => fake.log.of({ kind: 'blob' }).every(({ done }) => done));
      fake.faults = () => undefined;
      fake.log.clear();
      const again = await gateway.cli(['save', 'quay.io/team/large:1', '-o', file]);
      expect(again).toMatchObject({ code: 0, stderr: expect.stringContaining('are there from an earlier run') });
      const whole = statSync(file).size;
      const fetched = fake.log.bytes({ kind: 'blob' });
      // The configuration is read again, to plan; of the rest what was not there.
      expect(fetched).toBeGreaterThan(whole - kept - 20_000);
      expect(fetched).toBeLessThan(whole - kept + 20_000);
      const intact = join(bed.folder, 'intact.tar');
      await gateway.ok('save', 'quay.io/team/large:1', '-o', intact);
      expect(readFileSync(file).equals(readFileSync(intact))).toBe(true);
    } finally {
      await gateway.close();
      await fake.close();
    }
  }, 120_000);
});

const [dockerd, containerd, ctr] = [findNewer('dockerd'), findNewer('containerd'), findNewer('ctr')];
const missing = [dockerd, containerd, ctr].includes(null)
  ? ['dockerd 29, containerd and ctr 2.2 in GATEWAY_TEST_CLIENTS (CONTRIBUTING.md, Tests)']
  : [];

describeWith(
  BED_NEEDS,
  'what `gateway save` writes, with programs of today',
  () => {
    let bed: SaveBed;
    showLogOfFailures(() => bed?.gateway);
    beforeAll(async () => {
      bed = await openBed();
    });
    afterAll(() => bed?.close());

    it('is taken by docker load of 29, in both forms, under the digests that registries have', async () => {
      const folder = dirname(containerd ?? '');
      const daemon = await startDockerd({ within: bed.space, release: { dockerd: dockerd ?? '', folder } });
      try {
        for (const file of [bed.archive, bed.layout]) {
          const loaded = await daemon.docker('load', '-i', file);
          expect(loaded.code, loaded.stderr).toBe(0);
          for (const [name, image] of Object.entries(IMAGES)) {
            const { stdout } = await daemon.docker('image', 'inspect', '--format', '{{.Id}}', name);
            expect(stdout.trim(), name).toBe((file === bed.layout ? topOf(image) : image.manifest).digest);
          }
        }
        const zstd = await daemon.docker('load', '-i', join(bed.folder, 'packed.tar'));
        expect(zstd.code, zstd.stderr).toBe(0);
      } finally {
        await daemon.close();
      }
    }, 120_000);

    it('is imported by ctr of 2.2, also an index without some of its platforms', async () => {
      const some = join(bed.folder, 'some.tar');
      const platforms = ['--format', 'oci', '--platform', 'linux/amd64,linux/arm64'];
      await bed.gateway.ok('save', 'ghcr.io/team/many:v1.0', '-o', some, ...platforms);
      const engine = await startContainerd({ containerd: containerd ?? '', ctr: ctr ?? '', within: bed.space });
      try {
        expect(await importInto(engine, some)).toContain(`ghcr.io/team/many:v1.0`);
        for (const file of [bed.archive, bed.layout]) await importInto(engine, file);
      } finally {
        await engine.close();
      }
    });
  },
  missing,
);
