import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { eventually } from '../support/eventually.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { buildImage, type TestImage, topOf, withAttestation } from '../support/oci-image.ts';
import { runOk } from '../support/processes.ts';
import { findProgram } from '../support/program-list.ts';
import { describeWith, itWithClients, programPath } from '../support/programs.ts';
import { PushMeter } from '../support/push-meter.ts';

const MIB = 1024 * 1024;
const app = withAttestation(buildImage('app', [3_000_000, 200_000, 20]));
const tool = buildImage('tool', [100_000, 20]);
/** Its second layer takes several chunks. */
const large = withAttestation(buildImage('large', [1_000_000, 42 * MIB]));
const SOURCE = 'upstream.example';

/** `htpasswd -nbB relay relay-password` */
const LOGIN = { username: 'relay', password: 'relay-password' };
const HTPASSWD = 'relay:$2b$05$abcdefghijklmnopqrstuuHLgE8YgoMZHUcT9bP6dbINYz4/ZK93u\n';

interface Row {
  readonly source: string;
  readonly digest: string | null;
  readonly pushed: number;
  readonly pushedBytes: number;
  readonly skipped: number;
  readonly error: { readonly code: string; readonly message: string } | null;
}

const sizesOf = ({ config, layers, index }: TestImage) =>
  [config, ...layers, ...(index?.others.slice(1) ?? [])].reduce((sum, { bytes }) => sum + bytes.length, 0);

describeWith(['docker-registry', 'skopeo'], 'relay', () => {
  const folder = mkdtempSync(join(tmpdir(), 'relay-'));
  let source: DockerRegistry;
  let gateway: TestGateway;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    source = await startDockerRegistry();
    await source.push(app, 'org/app', '1.0');
    await source.push(tool, 'org/app', '1.1');
    await source.push(tool, 'org/app', '2.0');
    await source.push(large, 'org/large', '1');
    gateway = await startGateway({
      env: {
        HOME: folder,
        XDG_STATE_HOME: join(folder, 'state'),
        DOCKER_CONFIG: join(folder, 'docker'),
        PATH: `${join(folder, 'bin')}:${process.env.PATH}`,
      },
    });
    await gateway.ok('registry', 'set', SOURCE, '--endpoint', source.endpoint);
  });
  afterAll(async () => {
    await gateway?.close();
    await source?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const relay = async (...args: string[]) => {
    const ran = await gateway.cli(['relay', ...args, '--json']);
    return { ...ran, rows: ran.stdout.startsWith('[') ? (JSON.parse(ran.stdout) as Row[]) : [] };
  };
  /** The bytes under a tag, as another client gets them. */
  const raw = async (image: string) =>
    (
      await runOk({
        command: programPath('skopeo'),
        args: ['inspect', '--tls-verify=false', '--raw', `docker://${image}`],
      })
    ).stdout;

  const newer = findProgram('registry');
  const lacks = newer === null ? ' [skipped: this machine lacks registry]' : '';
  describe('into distribution 2.8', () => pushes(undefined));
  (newer === null ? describe.skip : describe)(`into distribution 3${lacks}`, () => pushes(newer ?? ''));

  function pushes(program: string | undefined): void {
    let registry: DockerRegistry;
    let meter: PushMeter;
    beforeAll(async () => {
      registry = await startDockerRegistry(program === undefined ? {} : { program });
      meter = await PushMeter.start(registry.port);
    });
    afterAll(async () => {
      await meter?.close();
      await registry?.close();
    });

    it('an index arrives byte for byte, and again nothing is sent', async () => {
      const to = `localhost:${meter.port}/mirror/app`;
      const first = await relay(`${SOURCE}/org/app:1.0`, to);
      expect(first.stderr).toContain('speaks no TLS');
      expect(first.rows).toMatchObject([
        { digest: topOf(app).digest, pushed: 6, pushedBytes: sizesOf(app), skipped: 0, error: null },
      ]);
      expect(meter.bytes).toBe(sizesOf(app));
      expect(await raw(`${to}:1.0`)).toBe(String(topOf(app).bytes));
      expect(await raw(`${to}@${app.manifest.digest}`)).toBe(String(app.manifest.bytes));
      const again = await relay(`${SOURCE}/org/app:1.0`, to);
      expect(again.rows).toMatchObject([{ pushed: 0, pushedBytes: 0, skipped: 6 }]);
      expect(meter.bytes).toBe(sizesOf(app));
    });

    it('tags of a glob arrive, and one that cannot be had stops no other', async () => {
      const to = `localhost:${meter.port}/mirror/tags`;
      const { code, rows } = await relay(`${SOURCE}/org/app`, to, '--tags', '1.*');
      expect(code).toBe(0);
      expect(rows.map(({ source: name }) => name).sort()).toEqual([`${SOURCE}/org/app:1.0`, `${SOURCE}/org/app:1.1`]);
      expect(await raw(`${to}:1.1`)).toBe(String(tool.manifest.bytes));
    });

    it('killed half-way, and again: nothing is pushed twice', async () => {
      const to = `localhost:${meter.port}/mirror/large`;
      const before = meter.bytes;
      // The second chunk of the large layer: 2.8 forgets an upload one of whose chunks breaks off.
      meter.holds = ({ headers }) => headers['content-range']?.startsWith(`${16 * MIB}-`) === true;
      const running = gateway.begin('relay', `${SOURCE}/org/large:1`, to);
      const puts = () =>
        meter.requests.filter(({ method, path }) => method === 'PUT' && path.includes('/mirror/large/'));
      const small = () => puts().filter(({ status }) => status === 201).length;
      await eventually('all before the second chunk to arrive', () => meter.held === 1 && small() === 4);
      await running.kill();
      meter.holds = () => false;
      const { rows, stderr } = await relay(`${SOURCE}/org/large:1`, to);
      expect(rows, stderr).toMatchObject([{ digest: topOf(large).digest, error: null }]);
      expect(meter.bytes - before).toBe(sizesOf(large));
      expect(await raw(`${to}:1`)).toBe(String(topOf(large).bytes));
      const left = readdirSync(join(folder, 'state', 'registry-gateway', 'relay'));
      expect(left.filter((name) => name.endsWith('.json'))).toEqual([]);
    });
  }

  it('of several tags, one whose registry has it no more is told, and the others arrive', async () => {
    const registry = await startDockerRegistry();
    try {
      const { manifest } = tool;
      const hex = manifest.digest.slice('sha256:'.length);
      const revision = join(source.root, 'docker/registry/v2/repositories/org/broken/_manifests/revisions/sha256', hex);
      await source.push(app, 'org/broken', 'good');
      await source.push(tool, 'org/broken', 'bad');
      rmSync(revision, { recursive: true });
      const { code, rows } = await relay(`${SOURCE}/org/broken`, `localhost:${registry.port}/broken`, '--all-tags');
      expect(code).toBe(1);
      const byTag = new Map(rows.map((row) => [row.source.slice(-4), row]));
      expect(byTag.get('good')?.error).toBeNull();
      expect(byTag.get(':bad')?.error).toMatchObject({ code: 'IMAGE_UNAVAILABLE' });
      expect(await raw(`localhost:${registry.port}/broken:good`)).toBe(String(topOf(app).bytes));
    } finally {
      await registry.close();
    }
  });

  describe('with a login', () => {
    let registry: DockerRegistry;
    beforeAll(async () => {
      writeFileSync(join(folder, 'htpasswd'), HTPASSWD);
      registry = await startDockerRegistry({
        auth: { htpasswd: { realm: 'of this test', path: join(folder, 'htpasswd') } },
      });
      mkdirSync(join(folder, 'docker'), { recursive: true });
    });
    afterAll(() => registry?.close());
    const config = (value: object) => writeFileSync(join(folder, 'docker', 'config.json'), JSON.stringify(value));
    const host = () => `localhost:${registry.port}`;

    it('nobody in particular is refused, and told how to log in', async () => {
      config({});
      const { code, stderr } = await gateway.cli(['relay', `${SOURCE}/org/app:1.1`, `${host()}/app`]);
      expect(code).toBe(1);
      expect(stderr).toContain(`docker login ${host()}`);
    });

    it('by the file of docker login', async () => {
      config({ auths: { [host()]: { auth: Buffer.from(`${LOGIN.username}:${LOGIN.password}`).toString('base64') } } });
      const { rows, stdout, stderr } = await relay(`${SOURCE}/org/app:1.1`, `${host()}/by-file`);
      expect(rows).toMatchObject([{ error: null, pushed: 3 }]);
      expect(stdout + stderr).not.toContain(LOGIN.password);
    });

    it('by a credential helper', async () => {
      const helper = join(folder, 'bin', 'docker-credential-of-this-test');
      mkdirSync(join(folder, 'bin'), { recursive: true });
      writeFileSync(
        helper,
        `#!/bin/sh\nread server; test "$server" = ${host()} && echo '{"Username":"${LOGIN.username}","Secret":"${LOGIN.password}"}'\n`,
      );
      chmodSync(helper, 0o755);
      config({ credHelpers: { [host()]: 'of-this-test' } });
      const { rows, stderr } = await relay(`${SOURCE}/org/app:1.1`, `${host()}/by-helper`);
      expect(rows, stderr).toMatchObject([{ error: null, pushed: 3 }]);
    });

    it('by standard input', async () => {
      config({});
      const args = [
        'relay',
        `${SOURCE}/org/app:1.1`,
        `${host()}/by-input`,
        '--username',
        LOGIN.username,
        '--password-stdin',
        '--json',
      ];
      const { code, stdout } = await gateway.cli(args, { input: `${LOGIN.password}\n` });
      expect(code, stdout).toBe(0);
    });
  });

  it('refuses the gateway itself in words, and bad usage', async () => {
    const own = await gateway.cli(['relay', `${SOURCE}/org/app:1.0`, `localhost:${gateway.httpsPort}/mirror/app`]);
    expect(own).toMatchObject({ code: 1, stderr: expect.stringContaining('is this gateway itself') });
    const tag = await gateway.cli(['relay', `${SOURCE}/org/app`, 'localhost:1/app:1', '--all-tags']);
    expect(tag).toMatchObject({ code: 2, stderr: expect.stringContaining('names a tag') });
  });

  itWithClients(['cosign', 'crane', 'oras'], 'finds the signature and the SBOM where the image went', async () => {
    const registry = await startDockerRegistry();
    const env = { PATH: process.env.PATH, HOME: folder, COSIGN_PASSWORD: '' };
    const client = (name: 'cosign' | 'crane' | 'oras', ...args: string[]) =>
      runOk({ command: programPath(name), args, env, cwd: folder });
    try {
      const origin = `localhost:${source.port}/org/signed`;
      await source.push(app, 'org/signed', '1');
      await client('cosign', 'generate-key-pair');
      await client(
        'cosign',
        'sign',
        '--key',
        'cosign.key',
        '--tlog-upload=false',
        '--use-signing-config=false',
        '--new-bundle-format=false',
        '-y',
        `${origin}@${topOf(app).digest}`,
      );
      writeFileSync(join(folder, 'sbom.json'), '{"sbom":true}');
      await client(
        'oras',
        'attach',
        '--plain-http',
        '--artifact-type',
        'application/x-sbom',
        `${origin}:1`,
        'sbom.json',
      );
      const to = `localhost:${registry.port}/signed`;
      const { rows, stderr } = await relay(`${SOURCE}/org/signed:1`, to, '--referrers');
      expect(rows, stderr).toMatchObject([{ error: null }]);
      expect((await client('crane', 'digest', `${to}:1`)).stdout.trim()).toBe(topOf(app).digest);
      await client(
        'cosign',
        'verify',
        '--key',
        'cosign.pub',
        '--insecure-ignore-tlog',
        '--new-bundle-format=false',
        `${to}@${topOf(app).digest}`,
      );
      expect((await client('oras', 'discover', '--plain-http', '--format', 'json', `${to}:1`)).stdout).toContain(
        'application/x-sbom',
      );
    } finally {
      await registry.close();
    }
  });

  // The last one: its registry is gone.
  it('what the gateway keeps is copied when its registry is gone', async () => {
    const registry = await startDockerRegistry();
    try {
      await source.stop();
      const to = `localhost:${registry.port}/kept`;
      const { rows, stderr } = await relay(`${SOURCE}/org/app:1.0`, to);
      expect(rows, stderr).toMatchObject([{ digest: topOf(app).digest, pushed: 6, error: null }]);
      expect(await raw(`${to}:1.0`)).toBe(String(topOf(app).bytes));
    } finally {
      await registry.close();
    }
  });
});
