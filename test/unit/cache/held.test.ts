import { describe, expect, it } from 'vitest';
import { parseHeld } from '../../../src/cache/files.ts';

describe('the record of a growing file', () => {
  const text = JSON.stringify({ size: 100, extents: [[0, 30]], written: { boot: 'this', extents: [[0, 80]] } });

  it('counts all that was written while the system has not been down since', () => {
    expect(parseHeld(text, 'this')).toEqual({ size: 100, extents: [{ from: 0, to: 80 }] });
  });

  it('counts only what was synced after a power cut, and where the system does not tell its runs apart', () => {
    for (const boot of ['another', null])
      expect(parseHeld(text, boot)).toEqual({ size: 100, extents: [{ from: 0, to: 30 }] });
  });

  it('claims nothing where nothing was synced before a power cut', () => {
    const unsynced = JSON.stringify({ size: 100, extents: [], written: { boot: 'this', extents: [[0, 80]] } });
    expect(parseHeld(unsynced, 'another')).toBeNull();
  });

  it.each([
    ['{"size":100,"extents":[[0,', 'cut in two'],
    ['{"size":100,"extents":[[50,40]]}', 'no extent'],
    ['{"size":100}', 'no extents'],
    ['', 'empty'],
  ])('is worth nothing where it is %s (%s)', (broken) => {
    expect(parseHeld(broken, 'this')).toBeNull();
  });
});
