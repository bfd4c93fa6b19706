import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { CLIENT_KINDS, type ClientFacts } from '../../src/clients/facts.ts';
import { clientScript } from '../../src/clients/script.ts';
import { CLIENTS_BED_NEEDS, type ClientsBed, DOMAIN, openClientsBed } from '../support/clients-bed.ts';
import { startContainerd } from '../support/containerd.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { buildImage } from '../support/oci-image.ts';
import { type Ran, runProgram } from '../support/processes.ts';
import { describeWith, programPath } from '../support/programs.ts';

// `/client/KIND.sh`: the script by which a machine without the command is set up, in the shells that machines have.

const EVIL = "x'; touch pwned; '$(touch pwned)`touch pwned`";
const facts: ClientFacts = {
  scheme: 'https',
  domain: DOMAIN,
  port: null,
  ownNames: [],
  ca: { pem: '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n', file: 'ca.crt' },
  registries: ['docker.io', 'quay.io'],
  patterns: [],
  aliases: [{ name: 'quay', host: `quay.${DOMAIN}`, registry: 'quay.io', certificate: true }],
  credentials: false,
};
const HOSTS = '/etc/containerd/certs.d/_default/hosts.toml';

describeWith(['dash', 'busybox', 'shellcheck'], 'the script that sets a client up', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'script-'));
    for (const kind of CLIENT_KINDS) writeFileSync(join(folder, `${kind}.sh`), clientScript(kind, facts));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('has nothing that shellcheck finds, of any client', async () => {
    const files = CLIENT_KINDS.map((kind) => join(folder, `${kind}.sh`));
    const ran = await runProgram({ command: programPath('shellcheck'), args: files });
    expect([ran.code, ran.stdout]).toEqual([0, '']);
  });

  /** Every file below a folder with its content. */
  function tree(root: string): Record<string, string> {
    const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    return Object.fromEntries(
      files.map(({ parentPath, name }) => {
        const path = join(parentPath, name);
        return [path.slice(root.length), readFileSync(path, 'utf8')];
      }),
    );
  }

  describe.each([
    ['dash', []],
    ['busybox', ['sh']],
  ] as const)('in %s', (shell, words) => {
    const run = (script: string, root: string, ...options: string[]): Promise<Ran> =>
      runProgram({
        command: programPath(shell),
        args: [...words, join(folder, script), '--root', root, ...options],
        env: { PATH: process.env.PATH, HOME: '/home/ada' },
        cwd: folder,
      });

    function scratch(files: Readonly<Record<string, string>> = {}): string {
      const root = mkdtempSync(join(folder, 'root-'));
      for (const [path, content] of Object.entries(files)) {
        mkdirSync(dirname(join(root, path)), { recursive: true });
        writeFileSync(join(root, path), content);
      }
      return root;
    }

    it.each(CLIENT_KINDS)('%s: shows, writes, is done, and takes all of it back', async (kind) => {
      const before = { '/etc/containers/registries.conf': 'mine\n', '/etc/docker/daemon.json': '{"mine": true}\n' };
      const root = scratch(before);
      const shown = await run(`${kind}.sh`, root);
      expect([shown.code, tree(root)]).toEqual([1, before]);
      expect(shown.stdout).toMatch(/^\+\+\+ /m);
      expect(shown.stderr).toContain('--yes');
      const done = await run(`${kind}.sh`, root, '--yes');
      // Where only files of its own are needed, nothing is left to do.
      expect(done.code, done.stderr).toBe(['podman', 'cri-o', 'minikube'].includes(kind) ? 0 : 1);
      const written = tree(root);
      expect(Object.keys(written).filter((path) => /certs\.d\/|gateway/.test(path))).not.toEqual([]);
      expect(written).toMatchObject(before);
      const again = await run(`${kind}.sh`, root, '--yes');
      expect([again.code, tree(root)]).toEqual([done.code, written]);
      expect(again.stdout).toContain('in place already');
      expect((await run(`${kind}.sh`, root, '--undo', '--yes')).code).toBe(0);
      expect(tree(root)).toEqual(before);
    });

    it('keeps what was there, and what was changed since', async () => {
      const root = scratch({ [HOSTS]: 'of before\n' });
      const first = await run('containerd.sh', root, '--yes');
      expect(first.stdout).toContain('-of before');
      writeFileSync(join(root, HOSTS), `${readFileSync(join(root, HOSTS), 'utf8')}# a login\n`);
      await run('containerd.sh', root, '--yes', '--undo');
      expect(tree(root)).toEqual({ [HOSTS]: 'of before\n', [`${HOSTS}.kept`]: expect.stringContaining('# a login') });
    });

    it('says of files that others write too what they need, until they have it', async () => {
      const root = scratch();
      const left = await run('containerd.sh', root, '--yes');
      expect([left.code, left.stdout]).toEqual([1, expect.stringContaining('config_path = "/etc/containerd/certs.d"')]);
      expect(existsSync(join(root, '/etc/containerd/config.toml'))).toBe(false);
      writeFileSync(join(root, '/etc/containerd/config.toml'), 'config_path = "/etc/containerd/certs.d"\n');
      expect((await run('containerd.sh', root)).code).toBe(0);
    });

    it('follows no link, and refuses what it does not know', async () => {
      const root = scratch({ '/elsewhere': 'mine\n' });
      mkdirSync(join(root, dirname(HOSTS)), { recursive: true });
      await runProgram({ command: 'ln', args: ['-s', join(root, 'elsewhere'), join(root, HOSTS)] });
      expect((await run('containerd.sh', root, '--yes')).code).toBe(1);
      expect(readFileSync(join(root, 'elsewhere'), 'utf8')).toBe('mine\n');
      expect((await run('containerd.sh', root, '--force')).code).toBe(2);
    });

    it('does nothing where its download broke off', async () => {
      const whole = readFileSync(join(folder, 'podman.sh'), 'utf8');
      const ends = [whole.length - 2, whole.length - 7, whole.length - 12, whole.length >> 1, 400];
      for (const end of ends) {
        writeFileSync(join(folder, 'half.sh'), whole.slice(0, end));
        const root = scratch();
        await run('half.sh', root, '--yes');
        expect(tree(root), `${end} of ${whole.length}`).toEqual({});
      }
    });

    it('runs nothing of a name that it is given', async () => {
      const aliases = [{ name: EVIL, host: `${EVIL}.${DOMAIN}`, registry: EVIL, certificate: true }];
      const evil = { ...facts, registries: [EVIL], aliases, domain: `a.${DOMAIN}` };
      for (const kind of ['docker', 'podman', 'k3s'] as const) {
        writeFileSync(join(folder, 'evil.sh'), clientScript(kind, evil));
        await run('evil.sh', scratch(), '--yes');
      }
      expect(existsSync(join(folder, 'pwned'))).toBe(false);
    });
  });
});

const image = buildImage('by-script', [40_000, 3_000]);

describeWith([...CLIENTS_BED_NEEDS, 'containerd', 'ctr', 'dash'], 'clients as the script sets them up', () => {
  let bed: ClientsBed;
  showLogOfFailures(() => bed?.gateway);
  beforeAll(async () => {
    bed = await openClientsBed({ image, names: ['library/by-script', 'team/by-script', 'by-script'] });
  });
  afterAll(() => bed?.close());

  /** As people do it: fetched by curl, and run by the shell that reads it. */
  async function setUp(kind: string, expected: number): Promise<void> {
    const line = `curl -fsSk https://${DOMAIN}/client/${kind}.sh | dash -s -- --yes`;
    const ran = await runProgram({ command: 'sh', args: ['-c', line], within: bed.space });
    expect(ran.code, `${ran.stdout}\n${ran.stderr}`).toBe(expected);
    onTestFinished(async () => {
      const undo = await runProgram({
        command: 'sh',
        args: ['-c', line.replace('--yes', '--undo --yes')],
        within: bed.space,
      });
      expect(undo.code, undo.stderr).toBe(0);
    });
  }

  it('skopeo pulls by an unchanged name', async () => {
    await setUp('podman', 0);
    // Nobody said who asks: a registry of a private network is not told to strangers.
    const conf = readFileSync(join(bed.folder, '/etc/containers/registries.conf.d/50-gateway.conf'), 'utf8');
    expect(conf).not.toContain('registry.corp');
    const target = mkdtempSync(join(bed.folder, 'image-'));
    const ran = await runProgram({
      command: programPath('skopeo'),
      args: ['--insecure-policy', 'copy', '--preserve-digests', 'docker://quay.io/team/by-script:1', `dir:${target}`],
      within: bed.space,
    });
    expect(ran.code, ran.stderr).toBe(0);
    expect(readdirSync(target)).toContain(image.config.digest.slice('sha256:'.length));
  });

  it('containerd pulls by an unchanged name', async () => {
    await setUp('containerd', 1);
    const containerd = await startContainerd({
      containerd: programPath('containerd'),
      ctr: programPath('ctr'),
      within: bed.space,
    });
    try {
      const pulled = await containerd.pull('/etc/containerd/certs.d', 'quay.io/team/by-script:1');
      expect(pulled.code, pulled.stderr).toBe(0);
    } finally {
      await containerd.close();
    }
  });
});
