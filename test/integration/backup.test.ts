import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { BackupMade, Restored } from '../../src/admin/contract.ts';
import { run } from '../../src/cli/run.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';

let home: string;
let gateway: TestGateway;

beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), 'gateway-backups-'));
  gateway = await startGateway();
  await gateway.ok(
    'alias',
    'add',
    'corp',
    'registry.corp.example:5000',
    '--endpoint',
    'http://127.0.0.1:9',
    '--no-cert',
  );
  await gateway.ok('user', 'add', 'ci');
});

afterAll(async () => {
  await gateway?.close();
  rmSync(home, { recursive: true, force: true });
});

interface Surroundings {
  readonly dataDir?: string;
  readonly stdin?: Uint8Array;
  /** Standard output is one. */
  readonly terminal?: boolean;
}

/** A command in this process, on the gateway that runs unless it says otherwise. */
async function cli(args: readonly string[], options: Surroundings = {}) {
  const { dataDir = gateway.dataDir, stdin = new Uint8Array(), terminal = false } = options;
  const stdout = Object.assign(new PassThrough({ highWaterMark: 1024 * 1024 }), { isTTY: terminal });
  const stderr = new PassThrough();
  const code = await run({
    argv: [...args, '--data-dir', dataDir],
    stdout,
    stderr,
    stdin: Readable.from([stdin]),
    env: {},
    cwd: home,
    signal: new AbortController().signal,
  });
  return { code, out: (stdout.read() as Buffer | null) ?? Buffer.alloc(0), err: String(stderr.read() ?? '') };
}

describe('gateway backup', () => {
  test('of a gateway that runs writes one file, readable by its owner alone, and says what is in it', async () => {
    const file = join(home, 'one.tar');
    const made = await cli(['backup', file]);
    expect(made).toMatchObject({ code: 0, err: '' });
    expect(String(made.out)).toMatch(/one\.tar: .* \(gateway\.db, ca\.crt, ca-key\.pem\); it holds private keys/);
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  test('never replaces a file unless it is told to', async () => {
    const file = join(home, 'there.tar');
    writeFileSync(file, 'something else');
    const refused = await cli(['backup', file]);
    expect(refused.code).toBe(1);
    expect(refused.err).toMatch(
      /there\.tar is there already, and was left as it is\n {2}give another name, or replace it/,
    );
    expect(readFileSync(file, 'utf8')).toBe('something else');
    const { code, out } = await cli(['backup', file, '--force', '--json']);
    const { bytes, members, schemas } = JSON.parse(String(out)) as BackupMade;
    expect({ code, bytes }).toEqual({ code: 0, bytes: statSync(file).size });
    expect(members.map(({ name }) => name)).toEqual(['gateway.db', 'ca.crt', 'ca-key.pem']);
    expect(Object.keys(schemas)).toEqual(['gateway.db']);
  });

  test.each([
    ['a directory that is not there', () => join(home, 'nowhere', 'x.tar'), /cannot be written: ENOENT/],
    ['a directory', () => home, /is there and is no file/],
  ])('to %s fails in words and leaves nothing', async (_, file, reason) => {
    const before = readdirSync(home).sort();
    const { code, err } = await cli(['backup', file()]);
    expect(code).toBe(1);
    expect(err).toMatch(reason);
    expect(readdirSync(home).sort()).toEqual(before);
  });

  test('goes to standard output, and never to a terminal', async () => {
    const { code, out, err } = await cli(['backup', '-']);
    expect(code).toBe(0);
    expect(out.subarray(0, 'manifest.json'.length).toString()).toBe('manifest.json');
    expect(err).toMatch(/wrote .* it holds private keys/);
    expect((await cli(['backup', '-'], { terminal: true })).code).toBe(2);
    expect((await cli(['backup', '-', '--json'])).code).toBe(2);
  });

  test('leaves nothing in the data directory, where every file is one that it knows', async () => {
    await cli(['backup', join(home, 'again.tar')]);
    const inBackup = ['gateway.db', 'ca.crt', 'ca-key.pem'];
    // Made by the process that runs, or held by the cache, and of no use to another.
    const other = [
      'admin.sock',
      'blobs',
      'cache.db',
      'cache.db-wal',
      'gateway.db-wal',
      'instance.json',
      'instance.lock',
    ];
    const known = [...inBackup, ...other, 'instance.lock-journal', 'partial'];
    expect(readdirSync(gateway.dataDir).filter((name) => !known.includes(name))).toEqual([]);
  });
});

describe('gateway restore', () => {
  test('gives another machine the table, the users and the CA', async () => {
    const file = join(home, 'move.tar');
    await cli(['backup', file]);
    const dataDir = join(home, 'deep', 'restored');
    const { code, out } = await cli(['restore', file, '--json'], { dataDir });
    const restored = JSON.parse(String(out)) as Restored;
    expect(code).toBe(0);
    expect(restored).toMatchObject({ dataDir, aside: null, files: ['ca-key.pem', 'ca.crt', 'gateway.db'] });
    const aliases = JSON.parse(String((await cli(['alias', 'ls', '--json'], { dataDir })).out)) as { name: string }[];
    expect(aliases.map(({ name }) => name)).toContain('corp');
    expect(readFileSync(join(dataDir, 'ca.crt'), 'utf8')).toBe(readFileSync(join(gateway.dataDir, 'ca.crt'), 'utf8'));

    await gateway.stop();
    const second = await startGateway({ dataDir });
    try {
      expect(JSON.parse(await second.ok('user', 'ls', '--json'))).toMatchObject([{ name: 'ci' }]);
    } finally {
      await second.close();
      await gateway.start();
    }
  });

  test('is refused where a gateway runs, and where there is something', async () => {
    const file = join(home, 'refused.tar');
    await cli(['backup', file]);
    const running = await cli(['restore', file, '--force']);
    expect(running.code).toBe(1);
    expect(running.err).toMatch(/is in use by process \d+ \(serve, since/);
    const dataDir = join(home, 'used');
    await cli(['restore', file], { dataDir });
    const again = await cli(['restore', file], { dataDir });
    expect(again.code).toBe(1);
    expect(again.err).toMatch(/is not empty \(ca-key\.pem, ca\.crt, gateway\.db\), and was left as it is/);
  });

  test('takes standard input, and refuses what is not whole in words, with nothing made', async () => {
    const { out } = await cli(['backup', '-']);
    const dataDir = join(home, 'piped');
    const half = await cli(['restore', '-'], { dataDir, stdin: out.subarray(0, out.length / 2) });
    expect(half.code).toBe(1);
    expect(half.err).toMatch(/this is no backup that can be restored/);
    expect(existsSync(dataDir)).toBe(false);
    expect((await cli(['restore', '-'], { dataDir, stdin: out })).code).toBe(0);
    expect((await cli(['restore', join(home, 'none.tar')], { dataDir })).code).toBe(2);
  });
});
