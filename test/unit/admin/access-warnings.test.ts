import { expect, test } from 'vitest';
import { accessWarnings } from '../../../src/admin/access-warnings.ts';

const none = { count: 0, everAdded: true, list: () => Promise.resolve([]) };

test('a gateway that nobody can pull from says so, with what opens it', async () => {
  for (const anonymous of [null, false]) {
    expect(await accessWarnings(none, anonymous)).toEqual([
      { message: expect.stringContaining('nobody can pull'), next: expect.stringContaining('gateway user add NAME') },
    ]);
  }
});

test('none where somebody may: everybody, networks, users, or before there ever was a user', async () => {
  expect(await accessWarnings(none, true)).toEqual([]);
  expect(await accessWarnings(none, ['10.0.0.0/8'])).toEqual([]);
  expect(await accessWarnings({ ...none, count: 1 }, false)).toEqual([]);
  expect(await accessWarnings({ ...none, everAdded: false }, null)).toEqual([]);
});
