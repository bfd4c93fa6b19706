import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

// What `scripts/gateway` does in a checkout that was updated, run by a user who may not install into it, as the systemd unit's is.

/** `nobody` on most systems; any user but the owner will do. */
const SOMEBODY_ELSE = 65_534;

let checkout: string;

beforeEach(() => {
  checkout = mkdtempSync(join(tmpdir(), 'checkout-'));
  cpSync(resolve('scripts'), join(checkout, 'scripts'), { recursive: true });
  writeFileSync(join(checkout, 'package-lock.json'), '{}');
});

afterEach(() => {
  chmodSync(checkout, 0o755);
  rmSync(checkout, { recursive: true, force: true });
});

/** Packages that were installed for the lock file of an hour ago. */
function installEarlier(): void {
  mkdirSync(join(checkout, 'node_modules'));
  const stamp = join(checkout, 'node_modules', '.package-lock.json');
  writeFileSync(stamp, '{}');
  const hourAgo = Date.now() / 1000 - 3600;
  utimesSync(stamp, hourAgo, hourAgo);
}

function startAsAnother() {
  const isRoot = userInfo().uid === 0;
  // Who is not root cannot become another: the folder is closed to its owner then, as a read-only file system closes it.
  chmodSync(checkout, isRoot ? 0o755 : 0o555);
  const { status, stdout, stderr } = spawnSync(join(checkout, 'scripts', 'gateway'), ['serve'], {
    encoding: 'utf8',
    ...(isRoot ? { uid: SOMEBODY_ELSE, gid: SOMEBODY_ELSE } : {}),
  });
  return { status, stdout, stderr };
}

describe('packages that this user cannot install', () => {
  test('of an updated checkout: what to do, in words, and an exit code that the unit does not start again after', () => {
    installEarlier();
    const { status, stdout, stderr } = startAsAnother();
    expect(stderr).toMatch(/this checkout was updated, and its packages are those of the version before/);
    expect(stderr).toContain(`${checkout}/scripts/gateway --version`);
    expect(stdout).toBe('');
    const unit = readFileSync('deploy/registry-gateway.service', 'utf8');
    expect(unit.match(/^RestartPreventExitStatus=(.*)$/m)?.[1]?.split(' ')).toContain(String(status));
  });

  test('of a checkout that never had any', () => {
    const { status, stderr } = startAsAnother();
    expect(status).toBe(78);
    expect(stderr).toMatch(/the packages of this checkout are not installed/);
  });

  test('in a node_modules that is not theirs, within a folder that is', () => {
    installEarlier();
    chmodSync(join(checkout, 'node_modules'), 0o555);
    const isRoot = userInfo().uid === 0;
    chmodSync(checkout, isRoot ? 0o777 : 0o755);
    const { status, stderr } = spawnSync(join(checkout, 'scripts', 'gateway'), ['serve'], {
      encoding: 'utf8',
      ...(isRoot ? { uid: SOMEBODY_ELSE, gid: SOMEBODY_ELSE } : {}),
    });
    expect(status).toBe(78);
    expect(stderr).toMatch(/its packages are those of the version before/);
  });
});
