import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type AdminServer, startAdminServer } from '../../src/admin/socket.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { runOk, runProgram } from '../support/processes.ts';
import { describeWith, programPath } from '../support/programs.ts';

// What real shells make of what `gateway completion` prints, against the names that a gateway tells.

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

let home: string;
let gateway: AdminServer;

beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), 'completion-'));
  writeFileSync(join(home, 'gateway'), `#!/bin/sh\nexec '${process.execPath}' '${MAIN}' "$@"\n`);
  chmodSync(join(home, 'gateway'), 0o755);
  writeFileSync(join(home, 'table.yaml'), '');
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { stdout } = await runOk({ command: join(home, 'gateway'), args: ['completion', shell] });
    writeFileSync(join(home, `completion.${shell}`), stdout);
  }
  const answers: Record<string, unknown> = {
    'alias.ls': [
      { name: 'quay', registry: 'quay.io' },
      { name: 'hub', registry: 'docker.io' },
    ],
    'registry.ls': [{ host: 'quay.io' }, { host: 'localhost:5000' }, { host: 'localhost:5001' }],
    'user.ls': [{ name: 'ci' }],
    'cert.ls': [{ host: 'quay.localhost', state: 'valid' }],
  };
  const operations = new Map(Object.entries(answers).map(([name, answer]) => [name, async () => answer]));
  gateway = await startAdminServer({ dataDir: home, operations, log: silentLog() });
});

afterAll(async () => {
  await gateway.close();
  rmSync(home, { recursive: true, force: true });
});

interface Case {
  readonly line: string;
  readonly data?: string;
  /** What is offered, sorted. */
  readonly offers: readonly string[];
}

const CASES: readonly Case[] = [
  { line: 'gateway ali', offers: ['alias'] },
  { line: 'gateway alias show ', offers: ['hub', 'quay'] },
  { line: 'gateway --data-dir . alias rm q', offers: ['quay'], data: 'nowhere' },
  { line: 'gateway registry set q', offers: ['quay.io'] },
  { line: 'gateway user rotate ', offers: ['ci'] },
  { line: 'gateway cert renew hub.localhost q', offers: ['quay.localhost'] },
  { line: 'gateway client pod', offers: ['podman'] },
  { line: 'gateway alias add x quay.io --no-c', offers: ['--no-cert', '--no-check'] },
  // Neither a gateway nor a data directory: silence.
  { line: 'gateway alias show ', offers: [], data: 'nowhere' },
];

/** The lines that a shell printed for a command line. */
async function offered(program: 'bash' | 'zsh' | 'fish', script: string, { data = home }: Partial<Case>) {
  const ran = await runProgram({
    command: programPath(program),
    args: program === 'zsh' ? ['-f', '-c', script] : ['-c', script],
    cwd: home,
    env: {
      PATH: `${home}${delimiter}${process.env.PATH}`,
      HOME: home,
      GATEWAY_DATA_DIR: data,
      RUNTIME_DIRECTORY: join(home, 'run'),
    },
  });
  expect(ran).toMatchObject({ stderr: '' });
  return ran.stdout.split('\n').filter((line) => line !== '');
}

const words = (line: string) => line.split(' ');

/** What differs between shells; the rest is the program's, and seen in one of them. */
const FEW = CASES.filter(({ line }) => /show|client|ali$/.test(line));

describeWith(['bash'], 'bash', () => {
  const complete = (line: string, given: Partial<Case> = {}) =>
    offered(
      'bash',
      `. ./completion.bash
       COMP_LINE='${line}' COMP_POINT=${line.length}
       COMP_WORDS=(${words(line)
         .map((word) => `'${word}'`)
         .join(' ')}) COMP_CWORD=${words(line).length - 1}
       compopt() { :; }
       _gateway
       printf '%s\\n' "\${COMPREPLY[@]}"`,
      given,
    );

  test.each(CASES)('$line', async (one) => {
    expect((await complete(one.line, one)).sort()).toEqual(one.offers);
  });

  test('a word ends at a colon and at an equals sign', async () => {
    expect(await complete('gateway registry show localhost:50')).toEqual(['5000', '5001']);
    expect(await complete('gateway cache prune --registry=qu')).toEqual(['quay.io']);
  });

  test('nothing that was typed is run', async () => {
    expect(await complete('gateway alias show $(>ran) ')).toEqual([]);
    expect(await offered('bash', 'ls', {})).not.toContain('ran');
  });

  test('files are the shell’s own to complete', async () => {
    // An empty answer makes readline look for files, as `-o default` has it.
    expect(await complete('gateway alias import ta')).toEqual([]);
    const asked = await offered('bash', "gateway __complete bash -- 'gateway alias import ta'", {});
    expect(asked).toEqual(['files']);
  });
});

describeWith(['zsh'], 'zsh', () => {
  const complete = (line: string, given: Partial<Case> = {}) =>
    offered(
      'zsh',
      `autoload -Uz compinit; compinit -u -d ${home}/zcompdump
       source ./completion.zsh
       _describe() { print -rl -- "\${(@P)3}" }
       _files() { print -r files }
       words=(${words(line)
         .map((word) => `'${word}'`)
         .join(' ')}) CURRENT=${words(line).length}
       _gateway`,
      given,
    );

  test.each(FEW)('$line', async (one) => {
    const lines = await complete(one.line, one);
    expect(lines.map((line) => line.split(/(?<!\\):/)[0]).sort()).toEqual(one.offers);
  });

  test('a colon of a name is no end of it, and files are the shell’s own', async () => {
    expect(await complete('gateway registry show localhost:5000')).toEqual(['localhost\\:5000:']);
    expect(await complete('gateway alias show q')).toEqual(['quay:quay.io']);
    expect(await complete('gateway --config ')).toEqual(['files']);
  });
});

describeWith(['fish'], 'fish', () => {
  const complete = (line: string, given: Partial<Case> = {}) =>
    offered('fish', `source completion.fish; complete -C '${line}'`, given);

  test.each(FEW)('$line', async (one) => {
    expect((await complete(one.line, one)).map((line) => line.split('\t')[0]).sort()).toEqual(one.offers);
  });

  test('files are the shell’s own', async () => {
    expect(await complete('gateway alias import ta')).toEqual(['table.yaml']);
  });
});
