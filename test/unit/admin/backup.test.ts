import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import Sqlite from 'better-sqlite3';
import { packTar } from 'modern-tar';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type BackupManifest, describeFiles, MANIFEST, writeArchive } from '../../../src/admin/backup/archive.ts';
import { OperatorError } from '../../../src/kit/operator-error.ts';
import { restoreState } from '../../../src/server/restore.ts';
import { holdDataDirectory } from '../../../src/server/stores.ts';
import { closeDatabase, openDatabase } from '../../../src/sqlite/database.ts';
import { gatewayMigrations } from '../../../src/sqlite/migrations/gateway.ts';
import { snapshotDatabase } from '../../../src/sqlite/snapshot.ts';

const SCHEMA = gatewayMigrations.length;

let dir: string;
/** A data directory with state of its own. */
let dataDir: string;
/** The files of a backup, and the archive of them. */
let files: ReadonlyMap<string, string>;
let manifest: BackupManifest;
let archive: Buffer;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'gateway-backup-'));
  dataDir = join(dir, 'data');
  const source = join(dir, 'source');
  makeState(source, 'of the backup');
  files = new Map(['gateway.db', 'ca.crt', 'ca-key.pem'].map((name) => [name, join(source, name)]));
  manifest = await describeFiles(files, { version: '0.1.0', schemas: { 'gateway.db': SCHEMA } });
  const chunks: Uint8Array[] = [];
  for await (const chunk of writeArchive(manifest, files)) chunks.push(chunk);
  archive = Buffer.concat(chunks);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** A data directory in which one alias and the CA say whose it is. */
function makeState(directory: string, whose: string): void {
  const database = openDatabase(join(directory, 'gateway.db'), gatewayMigrations, { durability: 'normal' });
  const host = `${whose.replaceAll(' ', '-')}.example`;
  database.prepare('INSERT INTO registries (host, endpoints) VALUES (?, \'["https://x"]\')').run(host);
  database.prepare("INSERT INTO aliases (name, registry) VALUES ('who', ?)").run(host);
  closeDatabase(database);
  writeFileSync(join(directory, 'ca.crt'), `certificate ${whose}`);
  writeFileSync(join(directory, 'ca-key.pem'), `key ${whose}`, { mode: 0o600 });
}

/** Whose state it is, by each of its files. */
function whoseIs(directory: string): readonly string[] {
  const database = new Sqlite(join(directory, 'gateway.db'));
  try {
    expect(database.pragma('integrity_check', { simple: true })).toBe('ok');
    const registry = String(database.prepare("SELECT registry FROM aliases WHERE name = 'who'").pluck().get());
    const whose = (name: string) => readFileSync(join(directory, name), 'utf8').replace(/^(certificate|key) /, '');
    return [registry.replace('.example', '').replaceAll('-', ' '), whose('ca.crt'), whose('ca-key.pem')];
  } finally {
    database.close();
  }
}

const allOf = (whose: string) => [whose, whose, whose];

async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 1_000) yield bytes.subarray(at, at + 1_000);
}

function restoring(bytes: Uint8Array, force = false) {
  return restoreState({ dataDir, source: pieces(bytes), force, signal: new AbortController().signal });
}

/** Every file of a directory with its bytes. */
function contents(directory: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => {
        const path = join(entry.parentPath, entry.name);
        return [path.slice(directory.length + 1), createHash('sha256').update(readFileSync(path)).digest('hex')];
      }),
  );
}

async function refusal(run: Promise<unknown>): Promise<OperatorError> {
  const error = await run.then(
    () => null,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(OperatorError);
  return error as OperatorError;
}

describe('restore', () => {
  test('makes the data directory, with the modes that a gateway gives its files', async () => {
    const restored = await restoring(archive);
    expect(restored).toMatchObject({ dataDir, version: '0.1.0', schema: SCHEMA, aside: null });
    expect(whoseIs(dataDir)).toEqual(allOf('of the backup'));
    const mode = (name: string) => statSync(join(dataDir, name)).mode & 0o777;
    expect([statSync(dataDir).mode & 0o777, mode('gateway.db'), mode('ca-key.pem'), mode('ca.crt')]).toEqual([
      0o700, 0o600, 0o600, 0o644,
    ]);
    expect(readdirSync(dataDir).sort()).toEqual(['ca-key.pem', 'ca.crt', 'gateway.db', 'instance.lock']);
  });

  test('leaves a directory alone that is not empty', async () => {
    makeState(dataDir, 'of before');
    const before = contents(dataDir);
    const error = await refusal(restoring(archive));
    expect(error.code).toBe('RESTORE_REFUSED');
    expect(error.message).toContain('ca-key.pem, ca.crt, gateway.db');
    expect(contents(dataDir)).toEqual(before);
  });

  test('keeps aside what it replaces, with the log of a database that a kill left, and leaves the cache', async () => {
    makeState(dataDir, 'of before');
    writeFileSync(join(dataDir, 'gateway.db-wal'), 'changes of before');
    writeFileSync(join(dataDir, 'cache.db'), 'what is kept');
    const { aside } = await restoring(archive, true);
    expect(whoseIs(dataDir)).toEqual(allOf('of the backup'));
    expect(readFileSync(join(dataDir, 'cache.db'), 'utf8')).toBe('what is kept');
    expect(readFileSync(join(aside ?? '', 'gateway.db-wal'), 'utf8')).toBe('changes of before');
    rmSync(join(aside ?? '', 'gateway.db-wal'));
    expect(whoseIs(aside ?? '')).toEqual(allOf('of before'));
  });

  test('takes the copy of a database from before an update, and leaves the local CA', async () => {
    makeState(dataDir, 'of before');
    const restored = await restoring(readFileSync(files.get('gateway.db') ?? ''), true);
    expect(restored).toMatchObject({ version: null, schema: SCHEMA, files: ['gateway.db'] });
    expect(whoseIs(dataDir)).toEqual(['of the backup', 'of before', 'of before']);
  });

  test('is refused while somebody holds the directory', async () => {
    makeState(dataDir, 'of before');
    const lock = holdDataDirectory(dataDir);
    expect((await refusal(restoring(archive, true))).code).toBe('DATA_DIR_IN_USE');
    lock.release();
    expect(whoseIs(dataDir)).toEqual(allOf('of before'));
  });

  test('gives a directory of another user to that user', async () => {
    if (process.geteuid?.() !== 0) return;
    mkdirSync(dataDir);
    spawnSync('chown', ['65534:65534', dataDir]);
    await restoring(archive);
    for (const name of readdirSync(dataDir)) expect(statSync(join(dataDir, name)).uid, name).toBe(65_534);
  });
});

describe('what is no backup', () => {
  const text = (value: unknown) => Buffer.from(JSON.stringify(value));
  type Entry = {
    header: { name: string; size: number; type?: 'file' | 'symlink' | 'link'; linkname?: string };
    body?: Uint8Array;
  };
  const file = (name: string, body: Uint8Array): Entry => ({ header: { name, size: body.length }, body });
  const tar = async (...entries: Entry[]) => Buffer.from(await packTar(entries as Parameters<typeof packTar>[0]));
  const members = () => [...files].map(([name, path]) => file(name, readFileSync(path)));
  const first = (changes: object = {}) => file(MANIFEST, text({ ...manifest, ...changes }));
  const noGateway = () => {
    const path = join(dir, 'other.db');
    const other = new Sqlite(path);
    other.exec('CREATE TABLE notes (text); PRAGMA user_version = 1');
    other.close();
    return readFileSync(path);
  };
  const flipped = (at: number) => {
    const bytes = Buffer.from(archive);
    bytes[at] = (bytes[at] ?? 0) ^ 0xff;
    return bytes;
  };
  const newer = () => {
    const path = join(dir, 'newer.db');
    cpSync(files.get('gateway.db') ?? '', path);
    const database = new Sqlite(path);
    database.pragma(`user_version = ${SCHEMA + 1}`);
    database.close();
    return readFileSync(path);
  };

  test.each<[string, RegExp, () => Promise<Buffer> | Buffer]>([
    ['nothing', /it is empty/, () => Buffer.alloc(0)],
    ['text', /cannot be read to its end/, () => Buffer.from('hello\n'.repeat(1_000))],
    ['an archive of nothing', /nothing in it/, () => Buffer.alloc(1_024)],
    ['one that gzip made', /it is compressed/, () => Buffer.from([0x1f, 0x8b, 8, 0])],
    ['an archive without a manifest', /begins with "gateway.db"/, () => tar(...members())],
    ['a manifest that is no JSON', /is no JSON/, () => tar(file(MANIFEST, Buffer.from('{')))],
    [
      'a manifest of something else',
      /not that of a gateway's backup/,
      () => tar(first({ format: 'other' }), ...members()),
    ],
    ['a manifest that lacks something', /lacks what a backup's has/, () => tar(first({ schemas: {} }), ...members())],
    [
      'a path that leads out',
      /has "..\/..\/etc\/passwd", which its manifest does not name/,
      () => tar(first(), file('../../etc/passwd', Buffer.from('x'))),
    ],
    [
      'a manifest that names a path',
      /lacks what a backup's has/,
      () => tar(first({ members: [...manifest.members, { name: '/etc/passwd', size: 1, sha256: '0'.repeat(64) }] })),
    ],
    [
      'a symbolic link',
      /which is a symlink and no file/,
      () => tar(first(), { header: { name: 'gateway.db', size: 0, type: 'symlink', linkname: '/etc/passwd' } }),
    ],
    [
      'a hard link',
      /which is a link and no file/,
      () => tar(first(), { header: { name: 'ca.crt', size: 0, type: 'link', linkname: 'gateway.db' } }),
    ],
    ['a member twice', /has ca.crt twice/, () => tar(first(), ...members(), file('ca.crt', Buffer.from('x')))],
    ['a member of another size', /bytes and not the/, () => tar(first(), file('gateway.db', Buffer.from('x')))],
    [
      'a huge member',
      /lacks what a backup's has/,
      () => tar(first({ members: [{ name: 'gateway.db', size: 2 ** 50, sha256: '0'.repeat(64) }] })),
    ],
    ['a member that is missing', /ends before ca.crt/, () => tar(first(), ...members().slice(0, 1))],
    ['bytes that were changed', /are not those that were backed up/, () => flipped(4_096)],
    ['a header that was changed', /cannot be read to its end/, () => flipped(1_024 + 512 + 3)],
    ['a database that is cut short', /cannot be read to its end|ends within/, () => archive.subarray(0, 20_000)],
    ['the database of another program', /is none of a gateway/, noGateway],
    ['a database that is damaged', /damaged/, () => readFileSync(files.get('gateway.db') ?? '').fill(0xaa, 4_096)],
    [
      'another schema than the manifest says',
      /has schema \d+, and its manifest says 1/,
      () => tar(first({ schemas: { 'gateway.db': 1 } }), ...members()),
    ],
  ])('%s is refused in words, and what is there stays', async (_, reason, make) => {
    makeState(dataDir, 'of before');
    const before = contents(dataDir);
    const error = await refusal(restoring(await make(), true));
    expect(error.message).toMatch(reason);
    expect(['BACKUP_INVALID', 'DATABASE_DAMAGED']).toContain(error.code);
    expect(contents(dataDir)).toEqual(before);
  });

  test.each([
    ['a form', 'BACKUP_NEWER', () => tar(first({ formatVersion: 2, version: '9.9.9' }), ...members())],
    ['a schema', 'DATABASE_NEWER', () => newer()],
  ])('%s of a newer version is refused, and nothing is made', async (_, code, make) => {
    const error = await refusal(restoring(await make()));
    expect(error.code).toBe(code);
    expect(readdirSync(dir)).not.toContain('data');
  });

  test('one that is cut anywhere is refused', async () => {
    for (let length = 512; length < archive.length - 1_024; length += 4_096) {
      const error = await refusal(restoring(archive.subarray(0, length)));
      expect(error.code, String(length)).toBe('BACKUP_INVALID');
    }
    expect(readdirSync(dir)).not.toContain('data');
  });
});

describe('a kill in the middle of a restore', () => {
  const hasStrace = process.platform === 'linux' && spawnSync('strace', ['true']).status === 0;
  const program = (body: string) => `
    import { commitRestore, completeRestore } from ${JSON.stringify(pathToFileURL(join(process.cwd(), 'src/admin/backup/put-in-place.ts')))};
    const dataDir = process.argv[1];
    ${body}
  `;
  const COMMIT = `await commitRestore(dataDir, { replaces: ['gateway.db', 'gateway.db-wal', 'gateway.db-shm', 'ca.crt', 'ca-key.pem'], aside: 'aside' });`;
  const run = (body: string, wrap: string[] = []) => {
    const [command = '', ...args] = [...wrap, process.execPath, '--input-type=module', '-e', program(body), dataDir];
    // One thread, so that strace counts the calls of all of them.
    return spawnSync(command, args, { encoding: 'utf8', env: { PATH: process.env.PATH, UV_THREADPOOL_SIZE: '1' } });
  };

  test.skipIf(!hasStrace)(
    'leaves all of the old or all of the new, whichever change it comes before (needs strace)',
    () => {
      const seen = new Set<string>();
      for (let change = 1; ; change++) {
        rmSync(dataDir, { recursive: true, force: true });
        makeState(dataDir, 'of before');
        cpSync(join(dir, 'source'), join(dataDir, 'restore.new'), { recursive: true });
        const calls = 'rename,renameat,renameat2,unlink,unlinkat,rmdir';
        const kill = ['strace', '-f', '-qq', '-o', join(dir, 'trace'), '-e', `trace=${calls}`];
        const inject = ['-e', `inject=${calls}:signal=SIGKILL:when=${change}`];
        const { signal, status, stderr } = run(`${COMMIT} await completeRestore(dataDir);`, [...kill, ...inject]);
        const ended = signal === null && status === 0;
        if (!ended) expect(`${signal} ${status}`, stderr).toMatch(/SIGKILL|137/);
        // Whoever opens the directory next goes on with it, or forgets it.
        expect(run('await completeRestore(dataDir);').stderr).toBe('');
        const whose = whoseIs(dataDir);
        expect([allOf('of before'), allOf('of the backup')]).toContainEqual(whose);
        expect(readdirSync(dataDir).filter((name) => name.startsWith('restore.'))).toEqual([]);
        seen.add(whose[0] ?? '');
        if (ended) break;
        expect(change).toBeLessThan(50);
      }
      expect([...seen].sort()).toEqual(['of before', 'of the backup']);
    },
  );
});

test('a snapshot of a database that is being written has every change whole, and all that were made before', async () => {
  const path = join(dir, 'busy.db');
  const pair = { name: 'pairs', sql: 'CREATE TABLE pairs (x INTEGER, y INTEGER, filler TEXT) STRICT' };
  const database = openDatabase(path, [pair], { durability: 'full', exclusive: true });
  const add = database.prepare('INSERT INTO pairs VALUES (?, ?, ?)');
  let count = 0;
  const write = database.transaction(() => {
    count++;
    for (const half of [0, 1]) add.run(count, half, 'z'.repeat(2_000));
  });
  for (let round = 0; round < 500; round++) write();
  for (let round = 0; round < 5; round++) {
    const before = count;
    const writing = setInterval(write, 0);
    const copy = join(dir, `copy-${round}.db`);
    const schema = await snapshotDatabase(database, copy);
    clearInterval(writing);
    expect(schema).toBe(1);
    expect(statSync(copy).mode & 0o777).toBe(0o600);
    const read = new Sqlite(copy, { readonly: true });
    const halves = read.prepare('SELECT count(*) AS halves FROM pairs GROUP BY x HAVING halves <> 2').all();
    const most = Number(read.prepare('SELECT max(x) FROM pairs').pluck().get());
    expect({ halves, check: read.pragma('integrity_check', { simple: true }) }).toEqual({ halves: [], check: 'ok' });
    expect(most).toBeGreaterThanOrEqual(before);
    read.close();
  }
  closeDatabase(database);
});
