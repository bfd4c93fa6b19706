import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { run } from '../../src/cli/run.ts';
import { type EdgeBed, startEdgeBed } from '../support/edge-bed.ts';

// `gateway client` on a machine without a gateway: everything that it knows of one is from `--gateway`, later from what it has applied.

let bed: EdgeBed;
let home: string;
let root: string;

beforeAll(async () => {
  bed = await startEdgeBed();
});
afterAll(() => bed?.stop());
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'client-remote-'));
  root = join(home, 'root');
  mkdirSync(join(root, 'etc/docker'), { recursive: true });
  writeFileSync(join(root, 'etc/docker/daemon.json'), '{"debug":true}\n');
  writeFileSync(join(home, 'root.pem'), bed.certificates.root);
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

async function client(...words: string[]): Promise<{ code: number; out: string; err: string }> {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const code = await run({
    argv: ['client', ...words, '--root', root],
    stdout,
    stderr,
    stdin: Readable.from([]),
    env: { PATH: process.env.PATH, HOME: home, XDG_RUNTIME_DIR: home, RUNTIME_DIRECTORY: home },
    cwd: home,
    signal: new AbortController().signal,
  });
  return { code, out: String(stdout.read() ?? ''), err: String(stderr.read() ?? '') };
}

const gateway = () => ['--gateway', `https://127.0.0.1:${bed.httpsPort}`, '--ca', join(home, 'root.pem')];

/** As a registry answers, for what `--check` asks. */
function giveManifests(): void {
  bed.registry.answer = () => ({
    status: 200,
    headers: {
      'content-type': 'application/vnd.oci.image.index.v1+json',
      'content-length': '2',
      'docker-content-digest': `sha256:${'a'.repeat(64)}`,
    },
    body: Buffer.from('{}'),
    from: 'cache',
  });
}

test('applies a gateway elsewhere, then checks and undoes it without being told of it again', async () => {
  giveManifests();
  const url = `https://localhost:${bed.httpsPort}`;
  const applied = await client('docker', '--apply', '--yes', ...gateway());
  expect(applied.code, applied.err).toBe(0);
  expect(readFileSync(join(root, 'etc/docker/certs.d/_default/hosts.toml'), 'utf8')).toContain(`[host."${url}"]`);

  const checked = await client('docker', '--check', '--json');
  expect(checked.code, checked.err).toBe(0);
  expect((JSON.parse(checked.out) as { pulled: object[] }).pulled).toMatchObject([
    { file: '/etc/docker/certs.d/_default/hosts.toml', gateway: url },
    { file: '/etc/docker/daemon.json', gateway: url },
  ]);

  const other = await client('docker', '--undo', '--yes', '--gateway', 'https://other.example');
  expect(other).toMatchObject({ code: 0, out: expect.stringContaining(`they have ${url}; there is nothing to undo`) });

  const undone = await client('docker', '--undo', '--yes', '--json');
  expect(undone.code, undone.err).toBe(0);
  expect(JSON.parse(undone.out)).toMatchObject({ done: 'undone', gateway: url });
  expect(readFileSync(join(root, 'etc/docker/daemon.json'), 'utf8')).toBe('{"debug":true}\n');
  expect(existsSync(join(root, 'etc/docker/certs.d'))).toBe(false);
  expect(existsSync(join(root, 'var'))).toBe(false);
});

test('without the authority of its certificate nothing is believed, and nothing written', async () => {
  const refused = await client('podman', '--apply', '--yes', '--gateway', `https://127.0.0.1:${bed.httpsPort}`);
  expect(refused.code).toBe(1);
  expect(refused.err).toContain('--ca FILE');
  expect(existsSync(join(root, 'etc/containers'))).toBe(false);
});

test('prints, rewrites nothing, and asks before it writes', async () => {
  const printed = await client('containerd', ...gateway());
  expect(printed.code, printed.err).toBe(0);
  expect(printed.out).toContain(`[host."https://localhost:${bed.httpsPort}"]`);
  const asked = await client('docker', '--apply', ...gateway());
  expect(asked.code).toBe(2);
  expect(asked.err).toContain('--yes');
  expect(readFileSync(join(root, 'etc/docker/daemon.json'), 'utf8')).toBe('{"debug":true}\n');
});
