import { expect, test } from 'vitest';
import { platformsGiven } from '../../../src/cli/images.ts';
import { platformText } from '../../../src/images/platform.ts';
import { idleProgram, withAllBelow } from '../../support/idle-program.ts';

test.each(['warm', 'drill', 'save', 'relay'])('%s takes --platform several times, and forgets none', async (name) => {
  const program = idleProgram();
  const command = withAllBelow(program).find((one) => one.name() === name && one.parent === program);
  const operands = name === 'relay' ? ['a', 'b'] : name === 'save' ? ['a', '-o', 'a.tar'] : ['a'];
  const platforms = ['--platform', 'linux/amd64', '--platform', 'linux/arm64,linux/amd64'];
  await program.parseAsync([name, ...operands, ...platforms], { from: 'user' });
  const given = platformsGiven(command?.opts().platform as string[]);
  expect(given?.map(platformText)).toEqual(['linux/amd64', 'linux/arm64']);
});

test('none are named where the option was not given, and what is no platform is told', () => {
  expect(platformsGiven(undefined)).toBeNull();
  expect(() => platformsGiven(['linux/amd64,linux'])).toThrow(expect.objectContaining({ code: 'PLATFORM_INVALID' }));
  expect(() => platformsGiven([''])).toThrow(expect.objectContaining({ code: 'PLATFORM_INVALID' }));
});
