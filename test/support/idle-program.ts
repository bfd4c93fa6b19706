import { PassThrough, Readable } from 'node:stream';
import type { Command } from 'commander';
import { Output } from '../../src/cli/output.ts';
import { buildProgram } from '../../src/cli/run.ts';
import { createSession } from '../../src/cli/session.ts';

/** The whole command line, with commands that do nothing: what it parses is valid. */
export function idleProgram(): Command {
  const output = new Output({ stdout: new PassThrough(), stderr: new PassThrough(), env: {} });
  const load = () => Promise.reject(new Error('nothing is read'));
  const { signal } = new AbortController();
  const session = createSession({ output, signal, env: {}, stdin: Readable.from([]), load });
  const program = buildProgram(session, { code: 0 });
  for (const command of withAllBelow(program)) if (actsItself(command)) command.action(() => {});
  return program;
}

/** One that has others below it may do something itself: `warm IMAGE…`. */
export const actsItself = (command: Command): boolean =>
  command.commands.length === 0 || command.registeredArguments.length > 0;

export const withAllBelow = (command: Command): Command[] => [command, ...command.commands.flatMap(withAllBelow)];

/** `gateway alias add`. */
export function fullName(command: Command): string {
  return command.parent === null ? command.name() : `${fullName(command.parent)} ${command.name()}`;
}
