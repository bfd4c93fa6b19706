import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { RebindingFound, RebindingProgram } from '../support/changing-names/main.ts';
import { GATEWAY_ADDRESS, type Namespace, openNamespace } from '../support/namespace.ts';
import { runOk } from '../support/processes.ts';
import { describeWith, programPath } from '../support/programs.ts';

const PROGRAM = fileURLToPath(new URL('../support/changing-names/main.ts', import.meta.url));
/** Counts as public, and is nowhere but on the namespace's own loopback. */
const PUBLIC = '11.0.0.1';

describeWith(['linux', 'root', 'unshare', 'nsenter', 'ip', 'mount'], 'a name that changes its address', () => {
  let folder: string;
  let space: Namespace;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'names-'));
    writeFileSync(join(folder, 'resolv.conf'), `nameserver ${GATEWAY_ADDRESS}\n`);
    space = await openNamespace({ hosts: {}, binds: { '/etc/resolv.conf': join(folder, 'resolv.conf') } });
    await runOk({ command: programPath('ip'), args: ['addr', 'add', `${PUBLIC}/32`, 'dev', 'lo'], within: space });
  });

  afterAll(async () => {
    await space?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('from a public one to one of ours leads a redirect and a token realm nowhere', async () => {
    const pulls = 4;
    const program: RebindingProgram = {
      dns: GATEWAY_ADDRESS,
      publicAddress: PUBLIC,
      insideAddress: '127.0.0.1',
      pulls,
    };
    const ran = await runOk({ command: process.execPath, args: [PROGRAM, JSON.stringify(program)], within: space });
    const found = JSON.parse(ran.stdout) as RebindingFound;
    // Each pull looks it up once, and the address that was looked at is the one that is connected to.
    expect(found.answers).toEqual(Array.from({ length: pulls * 2 }, (_, i) => (i % 2 === 0 ? PUBLIC : '127.0.0.1')));
    expect(found.arrived).toEqual({ publicly: pulls, inside: 0 });
    expect(found.refusals).toEqual(
      ['redirect', 'redirect', 'realm', 'realm'].map((pointed) => `${pointed}: upstreamWrong`),
    );
  });
});
