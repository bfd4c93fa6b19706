import { chmod, chown, link, lstat, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { startAdminServer } from '../../src/admin/socket.ts';
import { announceGateway } from '../../src/admin/well-known.ts';
import { run } from '../../src/cli/run.ts';
import type { Logger } from '../../src/telemetry/log.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { makeDataDirectory } from '../support/data-directory.ts';
import { eventually } from '../support/eventually.ts';

// Which gateway a command acts on. What stands in for one has its admin socket, and an answer by which it is known.

let home: string;
let ends: (() => Promise<void>)[];

beforeEach(async () => {
  home = await mkdtemp(path.join(tmpdir(), 'gateway-reach-'));
  ends = [];
});

afterEach(async () => {
  for (const end of ends.toReversed()) await end();
  await rm(home, { recursive: true, force: true });
});

const at = (...names: string[]) => path.join(home, ...names);
/** The well-known socket, of this test. */
const place = () => at('run', 'registry-gateway', 'admin.sock');

interface Running {
  /** What it logged. */
  readonly said: string[];
  end(): Promise<void>;
}

/** A gateway on `home/<name>`, whose users are called as it is. */
async function gateway(name: string, directory = at('run', 'registry-gateway')): Promise<Running> {
  await mkdir(at('run'), { recursive: true, mode: 0o700 });
  await mkdir(at(name), { recursive: true });
  const said: string[] = [];
  const say = (line: unknown) => void said.push(String(line));
  const log: Logger = Object.assign(silentLog(), { info: say, warn: say });
  const users = [{ name, createdAt: '2026-01-01T00:00:00.000Z' }];
  const operations = new Map([['user.ls', async () => users]]);
  const admin = await startAdminServer({ dataDir: at(name), operations, log });
  const announced = await announceGateway({
    directories: [directory],
    dataDir: at(name),
    accept: admin.accept,
    log,
    lookEvery: 20,
  });
  let ended = false;
  const end = async () => {
    if (ended) return;
    ended = true;
    await announced.close();
    await admin.close();
  };
  ends.push(end);
  return { said, end };
}

async function cli(line: string, env: NodeJS.ProcessEnv = {}) {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  await mkdir(at('here'), { recursive: true });
  const code = await run({
    argv: line.split(' '),
    stdout,
    stderr,
    stdin: Readable.from([]),
    env: { RUNTIME_DIRECTORY: at('run', 'registry-gateway'), ...env },
    cwd: at('here'),
    signal: new AbortController().signal,
  });
  return { code, out: String(stdout.read() ?? ''), err: String(stderr.read() ?? '') };
}

/** Whose users a command listed, and what it said. */
async function reached(line = '', env: NodeJS.ProcessEnv = {}): Promise<{ users: string[]; err: string }> {
  const { out, err, code } = await cli(`user ls --json${line === '' ? '' : ` ${line}`}`, env);
  expect({ code, err }).toMatchObject({ code: 0 });
  return { users: (JSON.parse(out) as { name: string }[]).map(({ name }) => name), err };
}

describe('where nothing runs and there is no data directory', () => {
  test.each([
    'alias ls',
    'alias add one quay.io',
    'user add ci',
    'registry ls',
    'cert ls',
    'cache stats',
    'status',
    'client docker',
  ])('gateway %s fails in words and makes nothing', async (line) => {
    const { code, out, err } = await cli(line, { RUNTIME_DIRECTORY: at('none') });
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toContain(`there is no data directory ${at('here', 'data')}`);
    expect(err).toContain(at('none', 'admin.sock'));
    expect(err).toMatch(/--data-dir.*gateway serve\n$/);
    expect(await readdir(at('here'))).toEqual([]);
  });

  test('a directory on which no gateway has run is none, and is left as it is', async () => {
    await mkdir(at('here', 'data'), { recursive: true });
    const { code, err } = await cli('alias ls', { RUNTIME_DIRECTORY: at('none') });
    expect(code).toBe(1);
    expect(err).toContain(`no gateway has ever run on ${at('here', 'data')}`);
    expect(await readdir(at('here', 'data'))).toEqual([]);
  });
});

describe('a gateway that runs', () => {
  test('is found by its data directory without a word, from elsewhere by its well-known socket, which is said', async () => {
    await gateway('one');
    expect(await reached(`--data-dir ${at('one')}`)).toEqual({ users: ['one'], err: '' });
    expect(await reached('', { GATEWAY_DATA_DIR: at('one') })).toEqual({ users: ['one'], err: '' });
    const { users, err } = await reached();
    expect(users).toEqual(['one']);
    expect(err).toBe(
      `gateway: this acts on the gateway on ${at('one')} (process ${process.pid}), found at ${place()}; there is no ${at('here', 'data')}\n`,
    );
    expect(await readdir(at('here'))).toEqual([]);
  });

  test('goes before ./data, which nobody has named, but not before a directory that was named', async () => {
    await gateway('one');
    await makeDataDirectory({ GATEWAY_DATA_DIR: at('here', 'data') });
    expect((await reached()).err).toContain(`nothing runs on ${at('here', 'data')}`);
    expect((await reached()).users).toEqual(['one']);
    const stored = `nothing runs on ${at('here', 'data')}: this acts on what is stored there`;
    for (const [line, env] of [
      ['--data-dir data', {}],
      ['', { GATEWAY_DATA_DIR: 'data' }],
    ] as const) {
      const { users, err } = await reached(line, env);
      expect({ users, err }).toEqual({ users: [], err: expect.stringContaining(stored) });
    }
    await writeFile(at('here', 'gateway.yaml'), 'dataDir: data\n');
    expect((await reached()).users).toEqual([]);
  });

  test('is not taken for the one of --data-dir; it is where what the environment names does not exist', async () => {
    await gateway('one');
    const refused = await cli(`--data-dir ${at('two')} user ls`);
    expect(refused).toMatchObject({ code: 1, err: expect.stringContaining(`there is no data directory ${at('two')}`) });
    expect((await reached('', { GATEWAY_DATA_DIR: at('two') })).users).toEqual(['one']);
  });

  test('has a socket for its user alone, takes it along when it ends, and its directory', async () => {
    const one = await gateway('one');
    expect((await lstat(place())).mode & 0o777).toBe(0o600);
    await one.end();
    expect(await readdir(at('run'))).toEqual([]);
  });

  test('leaves the place to the gateway that has it, says so, and takes it when that one has ended', async () => {
    const one = await gateway('one');
    const two = await gateway('two');
    expect(two.said.join()).toMatch(/another gateway is at .*admin\.sock: .*--data-dir .*two/);
    expect((await reached()).users).toEqual(['one']);
    await one.end();
    await eventually('the second gateway is found', async () => {
      const { code, out } = await cli('user ls --json');
      return code === 0 && out.includes('"two"');
    });
    // The first one's end takes nothing of the second's.
    await rm(at('run', 'registry-gateway'), { recursive: true });
    await eventually('its place is made again', async () => (await cli('user ls --json')).code === 0);
  });

  test('replaces what a gateway that was killed has left', async () => {
    await mkdir(path.dirname(place()), { recursive: true });
    const killed = net.createServer().listen(`${place()}.old`);
    await new Promise((resolve) => killed.once('listening', resolve));
    await link(`${place()}.old`, place());
    await new Promise((resolve) => killed.close(resolve));
    await gateway('one');
    expect((await reached()).users).toEqual(['one']);
  });

  test('is found where the path of the place is longer than a socket’s may be', async () => {
    const deep = at('run', 'd'.repeat(120));
    await mkdir(deep, { recursive: true });
    await gateway('one', path.join(deep, 'registry-gateway'));
    expect((await reached('', { RUNTIME_DIRECTORY: path.join(deep, 'registry-gateway') })).users).toEqual(['one']);
  });
});

describe('what is not trusted', () => {
  const spoil: [string, () => Promise<unknown>, RegExp][] = [
    ['a directory that others can write to', () => chmod(path.dirname(place()), 0o777), /written by others/],
    [
      'a link in place of the directory',
      async () => {
        await rm(path.dirname(place()), { recursive: true });
        await symlink(at('one'), path.dirname(place()));
      },
      /is no directory/,
    ],
    [
      'a file in place of the socket',
      async () => {
        await rm(place());
        await writeFile(place(), '');
      },
      /something else/,
    ],
  ];
  const byRoot: typeof spoil = [
    [
      'a directory that somebody else has made',
      async () => {
        for (const directory of [at('run'), path.dirname(place())]) await chown(directory, 4242, 4242);
      },
      /belongs to user 4242/,
    ],
    ['a socket of somebody else', () => chown(place(), 4242, 4242), /the gateway of user 4242/],
  ];

  test.each(process.geteuid?.() === 0 ? [...spoil, ...byRoot] : spoil)('%s', async (_, break_, why) => {
    const one = await gateway('one');
    await one.end();
    // Nothing mends it, but a gateway answers there all the same.
    await mkdir(path.dirname(place()), { recursive: true });
    const admin = await startAdminServer({ dataDir: path.dirname(place()), operations: new Map(), log: silentLog() });
    ends.push(() => admin.close());
    await break_();
    const { code, err } = await cli('user ls --json');
    expect(code).toBe(1);
    expect(err).toMatch(why);
    expect(err).toContain('there is no data directory');
  });

  test.runIf(process.geteuid?.() === 0)('unlike a directory that root has given to the gateway’s user', async () => {
    await gateway('one');
    for (const path_ of [path.dirname(place()), place()]) await chown(path_, 4242, 4242);
    expect((await reached()).users).toEqual(['one']);
  });

  test('is no place for a gateway either, which then says where commands find it', async () => {
    await mkdir(path.dirname(place()), { recursive: true });
    await chmod(path.dirname(place()), 0o777);
    const one = await gateway('one');
    expect(one.said.join()).toMatch(/no well-known socket was made .*written by others.*--data-dir .*one/);
    expect(await readdir(path.dirname(place()))).toEqual([]);
  });
});
