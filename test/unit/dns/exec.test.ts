import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { Exec } from '../../../src/dns/exec.ts';

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function program(script: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-hook-'));
  folders.push(folder);
  const path = join(folder, 'hook');
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

const record = { zone: 'example.com', name: '_acme-challenge.cr.example.com', value: 'x' };

test('of a program that floods its standard error the end is quoted, on one line, without what terminals obey', async () => {
  const flood = `head -c 4000000 /dev/zero | tr '\\0' 'x' >&2; printf '\\n\\033[2Jno such zone\\n' >&2; exit 3`;
  const failure = await new Exec(program(flood)).add(record, AbortSignal.timeout(30_000)).catch((error) => error);
  expect(failure.detail).toMatch(/ended with exit status 3: …x+ \[2Jno such zone$/);
  expect(failure.detail.length).toBeLessThan(1_000);
});

test('a program that does not end is killed with what it has started, whatever it writes meanwhile', async () => {
  const began = performance.now();
  const failure = await new Exec(program('sleep 300 & yes >&2'), 300)
    .add(record, AbortSignal.timeout(30_000))
    .catch((error) => error);
  expect(failure.detail).toMatch(/was not done within 0\.3 s and was killed: …/);
  expect(performance.now() - began).toBeLessThan(20_000);
});
