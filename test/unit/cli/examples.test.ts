import { expect, test } from 'vitest';
import { gatewayCommands } from '../../support/documents.ts';
import { fullName, idleProgram, withAllBelow } from '../../support/idle-program.ts';

const shown = withAllBelow(idleProgram()).filter((command) => !command.name().startsWith('__'));

test.each(shown.map((command) => [fullName(command), command] as const))(
  '%s --help has examples that are valid',
  async (name, command) => {
    let help = '';
    command.configureOutput({ writeOut: (text) => (help += text) }).outputHelp();
    const lines = help.split('\nExamples:\n')[1]?.trim().split('\n') ?? [];
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) {
      const commands = gatewayCommands(line.replaceAll('"$(', '$(').replaceAll(')"', ')'));
      expect(commands, line).toHaveLength(1);
      const [words = []] = commands;
      await idleProgram().parseAsync(words, { from: 'user' });
      if (name !== 'gateway') expect(`gateway ${words.join(' ')}`).toContain(name);
    }
  },
);
