import { describe, it } from 'vitest';
import {
  findProgram,
  type GoProgram,
  isGoProgram,
  type OptionalClient,
  PROGRAMS,
  type Program,
} from './program-list.ts';

/** @throws where this machine lacks it; a test whose needs were declared never meets that. */
export function programPath(name: Program | GoProgram | OptionalClient): string {
  const path = findProgram(name);
  if (path === null) throw new Error(`${named(name)} is not installed`);
  return path;
}

/** What a group of tests needs besides Node: programs, and `root` where it makes namespaces. */
export type Need = Program | GoProgram | 'root' | 'linux';

function named(name: Program | GoProgram | OptionalClient): string {
  if (isGoProgram(name)) return `${name} (test/go-programs: GOBIN=$PWD/bin go install tool)`;
  return name in PROGRAMS ? `${name} (Debian: ${PROGRAMS[name as Program]})` : `${name} (CONTRIBUTING.md, Tests)`;
}

/** What is missing, each in words; empty where the tests can run. */
export function missing(needs: readonly Need[]): string[] {
  return needs.flatMap((need) => {
    if (need === 'linux') return process.platform === 'linux' ? [] : ['Linux'];
    if (need === 'root') return process.getuid?.() === 0 ? [] : ['root'];
    return findProgram(need) === null ? [named(need)] : [];
  });
}

/**
 * `describe` for tests that need real programs. Where one is missing the group is skipped, and its name says what is missing;
 * where `CI=true` it fails instead, so that a pipeline never passes on tests that did not run.
 * @param optional what nothing here can install, in words, where it is missing: the group is skipped for it in a pipeline, too
 */
export function describeWith(
  needs: readonly Need[],
  name: string,
  body: () => void,
  optional: readonly string[] = [],
): void {
  const lacking = missing(needs);
  const withoutGo = needs.some(isGoProgram) && findProgram('go') === null ? lacking : [];
  if (lacking.length === 0 && optional.length === 0) {
    describe(name, body);
  } else if (process.env.CI === 'true' && optional.length === 0 && withoutGo.length === 0) {
    describe(name, () => {
      it(`needs ${lacking.join(', ')}`, () => {
        throw new Error(`this machine lacks ${lacking.join(', ')}, and CI=true`);
      });
    });
  } else {
    describe.skip(`${name} [skipped: this machine lacks ${[...optional, ...lacking].join(', ')}]`, body);
  }
}

/** A test that needs clients which nothing here installs; skipped where one is missing, in a pipeline too, and its name says so. */
export function itWithClients(clients: readonly OptionalClient[], name: string, body: () => Promise<void>): void {
  const lacking = clients.filter((client) => findProgram(client) === null).map(named);
  const title = `${clients[0]} ${name}`;
  if (lacking.length === 0) it(title, body);
  else it.skip(`${title} [skipped: this machine lacks ${lacking.join(', ')}]`);
}
