import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { stripTypeScriptTypes } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeDataDirectory } from '../support/data-directory.ts';

const MAIN = path.resolve('src/main.ts');
/** Where distributions put theirs; it may be older than what the program needs. */
const SYSTEM_NODE = '/usr/bin/node';

let home: string;

beforeAll(async () => {
  home = await mkdtemp(path.join(tmpdir(), 'gateway-main-'));
});

afterAll(async () => {
  await rm(home, { recursive: true, force: true });
});

function node(args: string[], program = process.execPath): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(
      program,
      args,
      { cwd: home, env: { PATH: process.env.PATH, RUNTIME_DIRECTORY: path.join(home, 'run') } },
      (error, out, err) => {
        resolve({ code: error === null ? 0 : Number(error.code), out, err });
      },
    );
  });
}

/** The program under a Node that says it is of this version. */
function as(version: string) {
  const pretend = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '${version}' } });`;
  return node(['-e', `${pretend} process.argv.push('main', '--version'); import(${JSON.stringify(MAIN)})`]);
}

describe('the version of Node', () => {
  test.each(['18.20.4', '20.20.2', '22.0.0', '22.18.9', '4.0.0'])('%s is refused in one line', async (version) => {
    const { code, out, err } = await as(version);
    expect(code).toBe(1);
    expect(out).toBe('');
    expect(err).toBe(
      `gateway: Node.js 22.19 or newer is needed and this is ${version}; get one from https://nodejs.org\n`,
    );
  });

  test.each(['22.19.0', '22.20.1', '23.0.0', '24.21.0', '100.0.0'])('%s is fine', async (version) => {
    expect(await as(version)).toMatchObject({ code: 0, out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/), err: '' });
  });

  test('is looked at before anything is loaded', async () => {
    const code = await readFile(MAIN, 'utf8');
    expect(code).not.toMatch(/^\s*(import|export) .* from /m);
    // Alone in a directory, with nothing to import.
    const alone = path.join(home, 'main.mjs');
    await writeFile(alone, stripTypeScriptTypes(code));
    const pretend = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.0.0' } });`;
    const { err } = await node(['-e', `${pretend} import(${JSON.stringify(alone)})`]);
    expect(err).toMatch(/^gateway: Node\.js .*\n$/);
  });

  test.runIf(existsSync(SYSTEM_NODE))("the system's own Node runs it or says why not", async () => {
    const { out } = await node(['--version'], SYSTEM_NODE);
    const [major = 0, minor = 0] = out.trim().slice(1).split('.').map(Number);
    const alone = path.join(home, 'main-system.mjs');
    await writeFile(alone, stripTypeScriptTypes(await readFile(MAIN, 'utf8')));
    const { code, err } = await node([alone], SYSTEM_NODE);
    expect(code).toBe(1);
    // A new enough one goes on and then finds nothing to import here.
    if (major > 22 || (major === 22 && minor >= 19)) expect(err).toContain('ERR_MODULE_NOT_FOUND');
    else
      expect(err).toBe(
        `gateway: Node.js 22.19 or newer is needed and this is ${out.trim().slice(1)}; get one from https://nodejs.org\n`,
      );
  });
});

test('a reader that leaves early (| head) ends it quietly', async () => {
  const data = path.join(home, 'data');
  // Far more than a pipe holds, so that the writer meets its end.
  const aliases = Array.from({ length: 3000 }, (_, n) => `a${n}`).join(', ');
  await writeFile(path.join(home, 'many.yaml'), `registries: {quay.io: {aliases: [${aliases}]}}\n`);
  await makeDataDirectory({ GATEWAY_DATA_DIR: data, GATEWAY_TLS_MODE: 'off' });
  const env = `GATEWAY_TLS_MODE=off "${process.execPath}" "${MAIN}" --data-dir "${data}"`;
  expect(await node(['-c', `${env} alias import many.yaml`], '/bin/sh')).toMatchObject({
    code: 0,
    err: expect.stringContaining('when it starts'),
  });
  const { out, err } = await node(['-c', `{ ${env} alias ls --json; echo "exit $?" >&2; } | head -n 1`], '/bin/sh');
  expect(out).toBe('[\n');
  expect(err).toMatch(/^gateway: nothing runs on .*\nexit 0\n$/);
});

describe('serve', () => {
  /** Runs it; once it listens, `look`s and ends it by SIGTERM. */
  async function served(look: (pid: number) => void) {
    const env = {
      PATH: process.env.PATH,
      RUNTIME_DIRECTORY: path.join(home, 'run'),
      GATEWAY_LISTEN_HTTPS: '127.0.0.1:0',
      GATEWAY_LISTEN_HTTP: '127.0.0.1:0',
      GATEWAY_METRICS_LISTEN: 'off',
      GATEWAY_LISTEN_WORKERS: '2',
      GATEWAY_UPSTREAM_PROXY: 'http://user:hunter2@127.0.0.1:1',
    };
    const args = [MAIN, 'serve', '--data-dir', 'served'];
    const child = spawn(process.execPath, args, { cwd: home, env, stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let err = '';
    child.stderr.on('data', (text) => (err += text));
    child.stdout.on('data', (text) => {
      const before = out;
      out += text;
      if (before.includes('listening on') || !out.includes('listening on')) return;
      look(child.pid ?? 0);
      child.kill('SIGTERM');
    });
    const [code, signal] = await once(child, 'close');
    return { code, signal, out, err };
  }

  test.runIf(process.platform === 'linux')(
    'shows no secret in the list of processes, and starts its workers with the flags and variables of scripts/gateway',
    async () => {
      let argumentsOfAll = '';
      const workers: { readonly flags: string[]; readonly variables: string[] }[] = [];
      const { code, out, err } = await served((pid) => {
        const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
        for (const one of [pid, ...children]) argumentsOfAll += readFileSync(`/proc/${one}/cmdline`, 'utf8');
        for (const one of children) {
          workers.push({
            flags: readFileSync(`/proc/${one}/cmdline`, 'utf8').split('\0'),
            variables: readFileSync(`/proc/${one}/environ`, 'utf8').split('\0'),
          });
        }
      });
      expect({ code, out, err }).toMatchObject({ code: 0, out: expect.stringContaining('"msg":"ended"'), err: '' });
      expect(argumentsOfAll).toMatch(/main\.ts\0serve\0--data-dir\0served\0/);
      expect(argumentsOfAll).not.toContain('hunter2');
      expect(workers).toHaveLength(1);
      const script = readFileSync(path.resolve('scripts/gateway'), 'utf8');
      const flags = /^exec "\$node" (.*) "\$root/m.exec(script)?.[1]?.split(' ') ?? [];
      const variables = [...script.matchAll(/^(MALLOC_\w+)=\$\{MALLOC_\w+:-(\d+)\}$/gm)].map(
        ([, name, value]) => `${name}=${value}`,
      );
      expect([flags.length, variables.length]).toEqual([4, 3]);
      expect(workers[0]?.flags).toEqual(expect.arrayContaining(flags));
      expect(workers[0]?.variables).toEqual(expect.arrayContaining(variables));
      const image = readFileSync(path.resolve('deploy/Dockerfile'), 'utf8');
      for (const part of [...flags.map((flag) => `"${flag}"`), ...variables]) expect(image).toContain(part);
    },
  );

  test('says what is wrong with its configuration, and with its data directory, by the same codes', async () => {
    const unknown = await node([MAIN, 'serve', '--config', 'nowhere.yaml']);
    expect(unknown).toMatchObject({
      code: 2,
      out: '',
      err: expect.stringMatching(/^gateway: .*nowhere\.yaml.*\n {2}check/),
    });
    await writeFile(path.join(home, 'file'), '');
    const taken = await node([MAIN, 'serve', '--data-dir', 'file/data']);
    expect(taken).toMatchObject({ code: 1, err: expect.stringMatching(/^gateway: .*file\/data.*\n {2}\S/) });
  });

  test.runIf(process.platform === 'linux')('leaves a pipe that it shares as it was', async () => {
    await writeFile(path.join(home, 'file'), '');
    const serve = `"${process.execPath}" "${MAIN}" serve --data-dir file/data 2>/dev/null`;
    const { out } = await node(['-c', `{ ${serve}; cat /proc/self/fdinfo/1; } | cat`], '/bin/sh');
    // Without O_NONBLOCK.
    expect(out).toMatch(/^flags:\s+01$/m);
  });
});
