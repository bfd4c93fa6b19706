import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { seedRows } from '../../src/aliases/yaml.ts';
import type { CertificateInfo } from '../../src/certs/service.ts';
import { sha256 } from '../support/content.ts';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { readDocument, shellLines, withoutComment } from '../support/documents.ts';
import { eventually } from '../support/eventually.ts';
import { GATEWAY_ADDRESS, type Namespace, openNamespace } from '../support/namespace.ts';
import { buildImage } from '../support/oci-image.ts';
import { ofParts } from '../support/parts.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { type Program, type Ran, runOk, runProgram, startProgram } from '../support/processes.ts';
import { describeWith } from '../support/programs.ts';

// The lines of the READMEs' `sh` blocks, as they stand there and in their order, by a shell in a folder that has a checkout's scripts. All is in
// a network of its own, where the ports that they name are free, every registry is a real one on loopback, and the public CA is pebble.

const SCRIPTS = fileURLToPath(new URL('../../scripts', import.meta.url));
const CORP = 'registry.corp.example:5000';

/** Lines that are not run here, without their comments, and why. */
const NOT_RUN: Readonly<Record<string, string>> = {
  'docker pull localhost:8443/quay.io/prometheus/busybox':
    'needs a Docker daemon beside it; three-ways-to-pull.test.ts has one',
  'GATEWAY_DOMAIN=203.0.113.10 ./scripts/gateway serve':
    'in place of the gateway with a domain, which the lines below go on with; certificates-address.test.ts starts one',
  'docker pull 203.0.113.10/quay.io/prometheus/busybox:latest': 'needs that gateway, and a Docker daemon beside it',
  'gateway client docker --gateway https://cr.example.com --apply':
    'asks on a terminal, and writes to /etc/docker; client-apply.test.ts answers it',
  'npm test': 'this is one of those tests',
  'npm run check': 'it runs the tests',
  './scripts/test': 'it runs this test',
  'npm run fix': 'it writes to the checkout',
  'systemctl stop registry-gateway': 'needs systemd and the unit',
  'systemctl start registry-gateway': 'needs systemd and the unit',
  'sudo -u registry-gateway /opt/registry-gateway/scripts/gateway --config /etc/registry-gateway/gateway.yaml restore /var/backups/gateway.tar --force':
    "needs the unit's user and installation; backup.test.ts restores with --force",
  'cd /opt/registry-gateway && git checkout VERSION && ./scripts/gateway --version': 'needs an earlier version',
  'sudo -u registry-gateway ./scripts/gateway --config /etc/registry-gateway/gateway.yaml restore /var/lib/registry-gateway/backup-8-20261127T210000000Z.db --force':
    'needs the copy that an upgrade made; backup.test.ts restores one',
};

interface Bed {
  readonly folder: string;
  readonly space: Namespace;
  readonly registry: DockerRegistry;
  readonly pebble: Pebble;
}

const alpine = buildImage('alpine', [40_000, 300]);

describeWith(
  ['linux', 'root', 'docker-registry', 'skopeo', 'pebble', 'pebble-challtestsrv', 'unshare', 'nsenter', 'ip', 'mount'],
  'what the READMEs have one type',
  () => {
    let bed: Bed & { close(): Promise<void> };
    let gateway: Program | undefined;
    let cwd: string;

    const environment = (): NodeJS.ProcessEnv => ({
      PATH: `${join(bed.folder, 'bin')}${delimiter}${process.env.PATH}`,
      HOME: join(bed.folder, 'home'),
      // Not a gateway of this machine.
      RUNTIME_DIRECTORY: join(bed.folder, 'run'),
      // Of an account at a registry; the one here asks nobody.
      TOKEN: 'team-a-token',
      // In place of Let's Encrypt, and of the world's DNS.
      GATEWAY_ACME_DIRECTORY: bed.pebble.directory,
      GATEWAY_ACME_CA_FILE: bed.pebble.caFile,
      GATEWAY_ACME_RESOLVERS: bed.pebble.dns,
    });
    const shell = (line: string) => ({
      command: 'sh',
      // Entering a namespace of mounts leads to its root.
      args: ['-c', `cd '${cwd}' || exit\n${line}`],
      env: environment(),
      within: bed.space,
    });
    /** Ctrl-C, which a terminal sends to the shell and what it runs. */
    const stop = async (): Promise<void> => {
      if (gateway?.running() === true) process.kill(-gateway.pid, 'SIGINT');
      await gateway?.exited;
    };

    beforeAll(async () => {
      bed = await ofParts(async ({ keep, defer }) => {
        const folder = mkdtempSync(join(tmpdir(), 'readme-'));
        defer(() => rmSync(folder, { recursive: true, force: true }));
        for (const name of ['bin', 'home', 'run', 'backups', 'checkout']) mkdirSync(join(folder, name));
        symlinkSync(SCRIPTS, join(folder, 'checkout', 'scripts'));
        // As an installed package has it.
        symlinkSync(join(SCRIPTS, 'gateway'), join(folder, 'bin', 'gateway'));
        // Another machine: its shell.
        writeFileSync(join(folder, 'bin', 'ssh'), '#!/bin/sh\ncd "$HOME" && exec sh -c "$2"\n', { mode: 0o755 });
        const space = await keep(
          openNamespace({
            hosts: { 'cr.example.com': GATEWAY_ADDRESS },
            binds: { '/var/backups': join(folder, 'backups') },
          }),
        );
        const registry = await keep(startDockerRegistry({ within: space }));
        await registry.push(alpine, 'library/alpine', 'latest');
        const pebble = await startPebble({ within: space, httpPort: 80, tlsPort: 443 });
        defer(() => pebble.stop());
        return { folder, space, registry, pebble };
      });
      cwd = join(bed.folder, 'checkout');
    });
    afterAll(async () => {
      await stop();
      await bed?.close();
    });

    /** Everything that the table leads to is the one registry here. */
    async function leadTheTableHere(): Promise<void> {
      const endpoints = [bed.registry.endpoint];
      const hosts = [
        ...seedRows()
          .map(({ host }) => host)
          .filter((host) => !host.includes('*')),
        CORP,
      ];
      const registries = Object.fromEntries(hosts.map((host) => [host, { endpoints }]));
      // JSON is YAML.
      writeFileSync(join(bed.folder, 'table.yaml'), JSON.stringify({ registries }));
      await runOk(shell(`gateway alias import ${join(bed.folder, 'table.yaml')}`));
    }

    /** What a line needs to be true before it, beside the lines before it; by how it begins. */
    const before: Readonly<Record<string, () => Promise<unknown>>> = {
      // Whoever goes from one to the other ends the first.
      'GATEWAY_DOMAIN=cr.example.com GATEWAY_ACME_EMAIL': stop,
      // The domain at once, and the names of the first table when somebody asks for them.
      './scripts/gateway doctor': () =>
        eventually('the domain to have a certificate', async () => {
          const { stdout } = await runOk(shell('gateway cert ls --json'));
          const rows = JSON.parse(stdout) as CertificateInfo[];
          return rows.some(({ state, host }) => state === 'valid' && host === 'cr.example.com');
        }),
      // Looking at a name orders nothing for it.
      './scripts/gateway alias add': async () => {
        const quay = JSON.parse(
          (await runOk(shell('gateway cert show quay.cr.example.com --json'))).stdout,
        ) as CertificateInfo;
        expect(quay.state).toBe('on demand');
      },
      'gateway restore': async () => {
        await stop();
        cwd = join(bed.folder, 'home');
      },
    };

    /** What a line has done where it did what it says. */
    const outcomes: Readonly<Record<string, (ran: Ran) => void>> = {
      'curl --cacert data/ca.crt https://localhost:8443/v2/': ({ stdout }) => expect(stdout.trim()).toBe('{}'),
      'skopeo copy': () =>
        expect(sha256(readFileSync(join(cwd, 'alpine', 'manifest.json')))).toBe(alpine.manifest.digest),
      './scripts/gateway doctor': ({ stdout }) => {
        expect(stdout).toContain('ok   gateway: runs as process');
        expect(stdout).toMatch(/^ok {3}certificate: .*quay\.cr\.example\.com/m);
        expect(stdout).not.toMatch(/^fail/m);
      },
      './scripts/gateway alias add': ({ stdout }) => expect(stdout).toContain('corp.cr.example.com'),
      './scripts/gateway client docker': ({ stdout }) => expect(stdout).toContain('https://cr.example.com'),
      './scripts/gateway user add': ({ stdout }) => expect(stdout).toMatch(/^rgw_\S{20}/),
      'gateway backup /var': () => expect(statSync(join(bed.folder, 'backups/gateway.tar')).mode & 0o777).toBe(0o600),
      'gateway backup -': () =>
        expect(readFileSync(join(bed.folder, 'home/gateway.tar')).byteLength).toBeGreaterThan(10_000),
      'gateway restore': () => expect(existsSync(join(cwd, 'data/gateway.db'))).toBe(true),
    };

    const of = <T>(table: Readonly<Record<string, T>>, line: string): T | undefined =>
      Object.entries(table).find(([begin]) => line.startsWith(begin))?.[1];

    describe.each(['README.md', 'deploy/README.md'])('%s', (name) => {
      const lines = shellLines(readDocument(name));
      it.each(lines.filter(({ line }) => !(withoutComment(line) in NOT_RUN)))('$line', async ({ block, line }) => {
        await of(before, line)?.();
        if (/gateway serve\b/.test(line)) {
          gateway = startProgram(shell(line));
          await gateway.waitFor(/"listening on /);
          await leadTheTableHere();
          return;
        }
        // What a block exports goes for its later lines.
        const index = lines.findIndex((one) => one.block === block && one.line === line);
        const exported = lines.slice(0, index).filter((one) => one.block === block && one.line.startsWith('export '));
        const ran = await runProgram(shell([...exported.map((one) => one.line), line].join('\n')));
        expect(ran.code, `${ran.stdout}\n${ran.stderr}`).toBe(0);
        of(outcomes, line)?.(ran);
      });
    });

    it('leaves out no line but those that it has a reason for', () => {
      const all = ['README.md', 'deploy/README.md'].flatMap((name) => shellLines(readDocument(name)));
      const shown = new Set(all.map(({ line }) => withoutComment(line)));
      expect(Object.keys(NOT_RUN).filter((line) => !shown.has(line))).toEqual([]);
    });
  },
);
