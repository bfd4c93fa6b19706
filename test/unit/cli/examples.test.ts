import { PassThrough, Readable } from 'node:stream';
import type { Command } from 'commander';
import { expect, test } from 'vitest';
import { Output } from '../../../src/cli/output.ts';
import { buildProgram } from '../../../src/cli/run.ts';
import { createSession } from '../../../src/cli/session.ts';

/** The whole command line, with commands that do nothing. */
function idleProgram(): Command {
  const output = new Output({ stdout: new PassThrough(), stderr: new PassThrough(), env: {} });
  const load = () => Promise.reject(new Error('nothing is read'));
  const { signal } = new AbortController();
  const session = createSession({ output, signal, env: {}, stdin: Readable.from([]), load });
  const program = buildProgram(session, { code: 0 });
  for (const command of all(program)) if (command.commands.length === 0) command.action(() => {});
  return program;
}

const all = (command: Command): Command[] => [command, ...command.commands.flatMap(all)];

/** The words of the part of a shell's line that runs the gateway. */
function wordsOf(line: string): string[] {
  const part = /gateway (.*?)(?: [|>] .*|\)"?)?$/.exec(line)?.[1] ?? '';
  return part.split(' ');
}

const shown = all(idleProgram()).filter((command) => !command.name().startsWith('__'));

test.each(shown.map((command) => [fullName(command), command] as const))(
  '%s --help has examples that are valid',
  async (name, command) => {
    let help = '';
    command.configureOutput({ writeOut: (text) => (help += text) }).outputHelp();
    const lines = help.split('\nExamples:\n')[1]?.trim().split('\n') ?? [];
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) {
      const words = wordsOf(line);
      await idleProgram().parseAsync(words, { from: 'user' });
      if (name !== 'gateway') expect(`gateway ${words.join(' ')}`).toContain(name);
    }
  },
);

function fullName(command: Command): string {
  return command.parent === null ? command.name() : `${fullName(command.parent)} ${command.name()}`;
}
