import { describe, it } from 'vitest';
import { findProgram, PROGRAMS, type Program } from './program-list.ts';

/** @throws where this machine lacks it; a test whose needs were declared never meets that. */
export function programPath(name: Program): string {
  const path = findProgram(name);
  if (path === null) throw new Error(`${name} is not installed (Debian: apt-get install ${PROGRAMS[name]})`);
  return path;
}

/** What a group of tests needs besides Node: programs, and `root` where it makes namespaces. */
export type Need = Program | 'root' | 'linux';

/** What is missing, each in words; empty where the tests can run. */
function missing(needs: readonly Need[]): string[] {
  return needs.flatMap((need) => {
    if (need === 'linux') return process.platform === 'linux' ? [] : ['Linux'];
    if (need === 'root') return process.getuid?.() === 0 ? [] : ['root'];
    return findProgram(need) === null ? [`${need} (Debian: ${PROGRAMS[need]})`] : [];
  });
}

/**
 * `describe` for tests that need real programs. Where one is missing the group is skipped, and its name says what is missing;
 * where `CI=true` it fails instead, so that a pipeline never passes on tests that did not run.
 */
export function describeWith(needs: readonly Need[], name: string, body: () => void): void {
  const lacking = missing(needs);
  if (lacking.length === 0) {
    describe(name, body);
  } else if (process.env.CI === 'true') {
    describe(name, () => {
      it(`needs ${lacking.join(', ')}`, () => {
        throw new Error(`this machine lacks ${lacking.join(', ')}, and CI=true`);
      });
    });
  } else {
    describe.skip(`${name} [skipped: this machine lacks ${lacking.join(', ')}]`, body);
  }
}
