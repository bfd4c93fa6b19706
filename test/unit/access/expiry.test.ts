import { expect, test } from 'vitest';
import { parseExpiry } from '../../../src/access/expiry.ts';

const NOW = Date.UTC(2026, 10, 22, 12);

test.each([
  ['90d', '2027-02-20T12:00:00.000Z'],
  [' 12h ', '2026-11-23T00:00:00.000Z'],
  ['2027-01-31', '2027-01-31T00:00:00.000Z'],
  ['2027-01-31T18:30', '2027-01-31T18:30:00.000Z'],
  ['2027-01-31 18:30:10z', '2027-01-31T18:30:10.000Z'],
  ['2027-01-31T18:30+08:00', '2027-01-31T10:30:00.000Z'],
  ['2028-02-29', '2028-02-29T00:00:00.000Z'],
  ['never', null],
])('%s is %s', (written, expected) => {
  expect(parseExpiry(written, NOW)).toBe(expected);
});

test.each([
  ['0', 'over already'],
  ['2026-11-22', 'over already'],
  ['2027-02-31', 'no date'],
  ['2027-13-01', 'no date'],
  ['2027-01-31T25:00', 'no date'],
  ['2027-1-31', 'no date'],
  ['3 months', 'not a duration'],
  ['', 'is empty'],
  ['40000d', 'more than 100 years'],
])('%s is refused: %s', (written, why) => {
  expect(() => parseExpiry(written, NOW)).toThrow(why);
});
