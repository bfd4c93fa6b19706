import { expect, test } from 'vitest';
import { idleProgram, withAllBelow } from '../../support/idle-program.ts';

test.each([
  ['warm', 'rm', 'alpine', '--pin'],
  ['warm', 'ls', '--platform', 'linux/arm64'],
  ['warm', '--schedule', '0 3 * * *', 'ls'],
])('an option of warm is none of what is below it: %j', async (...words) => {
  const program = idleProgram();
  for (const command of withAllBelow(program)) command.configureOutput({ outputError: () => {} });
  await expect(program.parseAsync(words, { from: 'user' })).rejects.toMatchObject({
    message: expect.stringMatching(/unknown option '--(pin|platform|schedule)'/),
  });
});

test.each([
  ['warm', 'ls', '--json'],
  ['warm', 'rm', 'alpine', '--json'],
  ['warm', '--data-dir', '/srv/gateway', 'ls'],
])('is taken: %j', async (...words) => {
  await idleProgram().parseAsync(words.filter(Boolean), { from: 'user' });
});

test('the help of what is below names the options of the program alone', () => {
  const rm = withAllBelow(idleProgram()).find(
    (command) => command.name() === 'rm' && command.parent?.name() === 'warm',
  );
  let help = '';
  rm?.configureOutput({ writeOut: (text) => (help += text) }).outputHelp();
  expect(help).toContain('--data-dir');
  expect(help).not.toContain('--schedule');
});
