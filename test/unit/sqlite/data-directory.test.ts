import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openDataDirectory } from '../../../src/sqlite/data-directory.ts';
import { openDatabase } from '../../../src/sqlite/database.ts';
import { acquireInstanceLock } from '../../../src/sqlite/instance-lock.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'gateway-data-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const modeOf = (path: string): string => (statSync(path).mode & 0o7777).toString(8);

/** A directory with just this mode, whatever the umask. */
function directory(mode: number): string {
  const path = join(dir, 'data');
  mkdirSync(path);
  chmodSync(path, mode);
  return path;
}

describe('the data directory', () => {
  test('is made for its owner alone', () => {
    const path = join(dir, 'a', 'b');
    expect(openDataDirectory(path)).toEqual([]);
    expect(modeOf(path)).toBe('700');
  });

  test.each([0o700, 0o750, 0o755, 0o711])('of mode %o stays as it is', (mode) => {
    expect(openDataDirectory(directory(mode))).toEqual([]);
    expect(statSync(join(dir, 'data')).mode & 0o7777).toBe(mode);
  });

  test.each([0o777, 0o707, 0o702])('that others can write to (%o) is mended, and the operator told', (mode) => {
    const path = directory(mode);
    const { warnings, release } = acquireInstanceLock(path);
    release();
    expect(warnings[0]).toMatch(/everybody .* has been taken/);
    expect(statSync(path).mode & 0o007).toBe(0);
  });

  test('that is everybody’s, with the sticky bit, is refused and left as it is', () => {
    const path = directory(0o1777);
    expect(() => acquireInstanceLock(path)).toThrow(
      expect.objectContaining({ code: 'DATA_DIR_EXPOSED', next: expect.stringContaining(path) }),
    );
    expect(modeOf(path)).toBe('1777');
  });

  test('that its group can write to, as with Kubernetes’ fsGroup, is warned of', () => {
    const path = directory(0o2775);
    expect(openDataDirectory(path)).toEqual([expect.stringContaining('group')]);
    expect(modeOf(path)).toBe('2775');
  });
});

describe('a link in the place of a file', () => {
  test.each(['x.db', 'x.db-wal', 'x.db-shm'])('%s is refused, and what it leads to is left as it is', (name) => {
    const target = join(dir, 'target');
    writeFileSync(target, 'precious', { mode: 0o644 });
    symlinkSync(target, join(dir, name));
    expect(() => openDatabase(join(dir, 'x.db'), [], { durability: 'full' })).toThrow(
      expect.objectContaining({ code: 'FILE_LINKED' }),
    );
    expect([readFileSync(target, 'utf8'), modeOf(target)]).toEqual(['precious', '644']);
  });

  test('that leads nowhere makes no file there', () => {
    symlinkSync(join(dir, 'nowhere'), join(dir, 'x.db'));
    expect(() => openDatabase(join(dir, 'x.db'), [], { durability: 'full' })).toThrow(
      expect.objectContaining({ code: 'FILE_LINKED' }),
    );
    expect(() => statSync(join(dir, 'nowhere'))).toThrow(/ENOENT/);
  });

  test('is not written through by the lock', () => {
    const target = join(dir, 'target');
    writeFileSync(target, 'precious');
    const path = directory(0o700);
    symlinkSync(target, join(path, 'instance.json.new'));
    acquireInstanceLock(path).release();
    expect(readFileSync(target, 'utf8')).toBe('precious');
  });
});
