import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { acquireInstanceLock, instanceHolder } from '../../../src/sqlite/instance-lock.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'gateway-lock-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

test('the second is refused and told who holds it; a release frees it', () => {
  expect(instanceHolder(dir)).toBeNull();
  const lock = acquireInstanceLock(dir);
  expect(instanceHolder(dir)).toMatchObject({ pid: process.pid, activity: 'serve' });
  expect(() => acquireInstanceLock(dir)).toThrow(new RegExp(`in use by process ${process.pid} \\(serve, since 2`));
  for (const name of ['instance.json', 'instance.lock']) expect(statSync(join(dir, name)).mode & 0o777).toBe(0o600);
  lock.release();
  lock.release();
  expect(instanceHolder(dir)).toBeNull();
  acquireInstanceLock(dir, 'alias add').release();
});

test('a directory that is not there has no holder', () => {
  expect(instanceHolder(join(dir, 'nothing'))).toBeNull();
});

test('another process holds it, and kill -9 frees it', async () => {
  const script = `
    import { acquireInstanceLock } from ${JSON.stringify(new URL('../../../src/sqlite/instance-lock.ts', import.meta.url).href)};
    acquireInstanceLock(${JSON.stringify(dir)});
    console.log('held');
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await once(child.stdout, 'data');
    expect(instanceHolder(dir)?.pid).toBe(child.pid);
    // Looking at it must not have freed it.
    expect(() => acquireInstanceLock(dir)).toThrow(`process ${child.pid}`);
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  expect(readFileSync(join(dir, 'instance.json'), 'utf8')).toContain(String(child.pid));
  expect(instanceHolder(dir)).toBeNull();
  acquireInstanceLock(dir).release();
});
