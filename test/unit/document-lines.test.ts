import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { codeSpans, gatewayCommands, readDocument, shellLines } from '../support/documents.ts';
import { actsItself, fullName, idleProgram, withAllBelow } from '../support/idle-program.ts';

// Which of the lines of `sh` blocks do what they say is seen in test/e2e/readme.test.ts.

describe.each(['README.md', 'README.zh-CN.md', 'deploy/README.md', 'CONTRIBUTING.md'])('lines of %s', (name) => {
  const text = readDocument(name);
  const lines = shellLines(text).map(({ line }) => line);
  // `gateway client KIND …` in a sentence is cut where it is not all said.
  const spans = codeSpans(text).filter((span) => !span.endsWith('…'));
  const commands = [...lines, ...spans].flatMap(gatewayCommands).filter((words) => words.length > 0);

  it('are lines of a POSIX shell', () => {
    expect(lines.length).toBeGreaterThan(0);
    const { status, stderr } = spawnSync('sh', ['-n'], { input: lines.join('\n') });
    expect(status, String(stderr)).toBe(0);
  });

  it.runIf(commands.length > 0).each(commands.map((words) => [words.join(' '), words] as const))(
    'the command line has: gateway %s',
    async (_, words) => {
      const program = idleProgram();
      // Alone in a sentence it is the command's name.
      if (words.length === 1 && program.commands.some((one) => one.name() === words[0])) return;
      if (words.includes('--version')) return;
      await program.parseAsync([...words], { from: 'user' });
    },
  );
});

describe.each(['README.md', 'README.zh-CN.md'])('the table of commands in %s', (name) => {
  const program = idleProgram();
  const commands = withAllBelow(program).filter((one) => actsItself(one) && !one.name().startsWith('__'));
  const [, table = ''] = /^\| \S+ \| \S+ \|\n\|---\|---\|\n(\| `serve`[\s\S]*?)\n\n/m.exec(readDocument(name)) ?? [];
  const cells = [...table.matchAll(/^\| `([^`]+)` \|/gm)].map(([, cell = '']) => cell);

  /** What a row names: `alias ls · show NAME` is two commands of one noun, `rewrite REF… · --file F…` one with an option. */
  const named = cells.flatMap((cell) => {
    const [noun = ''] = cell.split(' ');
    const group = program.commands.find((one) => one.name() === noun);
    return cell.split(' · ').map((part) => {
      const words = part.split(' ');
      const verb = words[0] === noun ? words[1] : words[0];
      const below = group?.commands.find((one) => one.name() === verb);
      const alone = program.commands.find((one) => one.name() === words[0]) ?? group;
      const command = below ?? alone;
      return { part, command, options: part.match(/--[a-z-]+/g) ?? [] };
    });
  });

  it('has all of them, and no other', () => {
    const shown = new Set(named.map(({ command, part }) => (command === undefined ? part : fullName(command))));
    expect([...shown].sort()).toEqual(commands.map(fullName).sort());
  });

  it.each(named.filter(({ options }) => options.length > 0))('the command line has: $part', ({ command, options }) => {
    expect(command?.options.map(({ long }) => long)).toEqual(expect.arrayContaining([...options]));
  });
});
