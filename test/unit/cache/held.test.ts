import { describe, expect, it } from 'vitest';
import { parseHeld } from '../../../src/cache/partial-files.ts';

describe('the record of a growing file', () => {
  const text = JSON.stringify({
    registry: 'docker.io',
    size: 100,
    extents: [[0, 30]],
    written: { boot: 'this', extents: [[0, 80]] },
  });

  it('counts all that was written while the system has not been down since', () => {
    expect(parseHeld(text, 'this')).toEqual({ registry: 'docker.io', size: 100, extents: [{ from: 0, to: 80 }] });
  });

  it('counts only what was synced after a power cut, and where the system does not tell its runs apart', () => {
    for (const boot of ['another', null])
      expect(parseHeld(text, boot)).toEqual({ registry: 'docker.io', size: 100, extents: [{ from: 0, to: 30 }] });
  });

  it('claims nothing where nothing was synced before a power cut', () => {
    const unsynced = JSON.stringify({
      registry: 'docker.io',
      size: 100,
      extents: [],
      written: { boot: 'this', extents: [[0, 80]] },
    });
    expect(parseHeld(unsynced, 'another')).toBeNull();
  });

  it.each([
    ['{"registry":"docker.io","size":100,"extents":[[0,', 'cut in two'],
    ['{"registry":"docker.io","size":100,"extents":[[50,40]]}', 'no extent'],
    ['{"registry":"docker.io","size":100}', 'no extents'],
    ['{"size":100,"extents":[[0,40]]}', 'without a registry'],
    ['', 'empty'],
  ])('is worth nothing where it is %s (%s)', (broken) => {
    expect(parseHeld(broken, 'this')).toBeNull();
  });
});
