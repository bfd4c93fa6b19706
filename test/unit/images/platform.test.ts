import { describe, expect, it } from 'vitest';
import { isPlatform, ownPlatform, parsePlatform, platformText } from '../../../src/images/platform.ts';

describe('platforms', () => {
  it.each([
    ['linux/amd64', 'linux/amd64'],
    ['linux/x86_64', 'linux/amd64'],
    ['Linux/aarch64', 'linux/arm64'],
    ['linux/arm/v7', 'linux/arm/v7'],
  ])('%s is %s', (written, text) => {
    expect(platformText(parsePlatform(written))).toBe(text);
  });

  it.each(['linux', '', 'linux/', 'linux/arm/v7/x', 'linux/a b'])('refuses %j', (written) => {
    expect(() => parsePlatform(written)).toThrow(expect.objectContaining({ code: 'PLATFORM_INVALID' }));
  });

  it('takes any variant where none is asked for, and the usual one where an image names none', () => {
    const of = parsePlatform;
    expect(isPlatform(of('linux/arm/v6'), of('linux/arm'))).toBe(true);
    expect(isPlatform(of('linux/arm64'), of('linux/arm64/v8'))).toBe(true);
    expect(isPlatform(of('linux/arm64/v9'), of('linux/arm64/v8'))).toBe(false);
    expect(isPlatform(of('linux/arm/v6'), of('linux/arm/v7'))).toBe(false);
    expect(isPlatform(of('windows/amd64'), of('linux/amd64'))).toBe(false);
  });

  it('is that of the machine, of Linux', () => {
    expect(platformText(ownPlatform('x64'))).toBe('linux/amd64');
    expect(platformText(ownPlatform('arm64'))).toBe('linux/arm64');
  });
});
