import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Lock, withReadyMade, wouldCompile } from '../../../scripts/lib/lock.ts';

const read = (name: string) => JSON.parse(readFileSync(new URL(`../../../${name}`, import.meta.url), 'utf8'));
const lock = read('package-lock.json') as Lock;

describe('package-lock.json', () => {
  it('lets npm ci compile nothing (after npm install, run: npm run fix)', () => {
    expect(wouldCompile(lock)).toEqual([]);
  });

  it('has its exceptions put back where npm left them out', () => {
    const without: Lock = { packages: { 'node_modules/better-sqlite3': { version: '1.0.0' } } };
    expect(wouldCompile(without)).toEqual(['better-sqlite3']);
    expect(wouldCompile(withReadyMade(without))).toEqual([]);
  });

  it('names every package with an install script in package.json (allowScripts), so that no npm asks', () => {
    const { allowScripts } = read('package.json') as { allowScripts: Record<string, boolean> };
    const required = Object.entries(lock.packages)
      .filter(([, { hasInstallScript, optional }]) => hasInstallScript === true && optional !== true)
      .map(([path]) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length));
    expect(Object.keys(allowScripts)).toEqual(expect.arrayContaining(required));
    expect(required).toContain('node');
  });

  it('holds the binaries of every platform, not only of the one where it was written', () => {
    for (const name of ['@biomejs/cli-linux-x64', '@biomejs/cli-linux-arm64', '@biomejs/cli-darwin-arm64']) {
      expect(lock.packages[`node_modules/${name}`], name).toBeDefined();
    }
  });
});
