import { expect, test } from 'vitest';
import { fitted, hostCell } from '../../../src/cli/cert.ts';
import type { Cell } from '../../../src/cli/output.ts';

const GAPS = 5 * 2;
const text = (cell: Cell | undefined) => (typeof cell === 'string' ? cell : (cell?.text ?? ''));
const ROWS: readonly (readonly Cell[])[] = [
  ['cr.example.com', { text: 'valid', tone: 'good' }, 'R13', 'in 44 d 12 h', 'in 29 d 3 h', '-'],
  [
    'a-rather-long-name-of-an-alias.registry.corp.example.com',
    { text: 'on demand', tone: 'dim' },
    '(STAGING) Pseudo Plum E5 of the Corp',
    'in 59 min 59 s',
    'in 23 h 59 min',
    'unsupportedIdentifier',
  ],
];

test('a list of certificates is as wide as the terminal at most, and whole elsewhere', () => {
  const rows = fitted(ROWS, { isTerminal: true, columns: 80 });
  const widths = [0, 1, 2, 3, 4, 5].map((i) => Math.max(...rows.map((row) => text(row[i]).length)));
  expect(widths.reduce((sum, width) => sum + width, GAPS)).toBeLessThanOrEqual(80);
  // What is short stays whole, and what is cut shows both of its ends.
  expect(rows[0]?.slice(1)).toEqual(ROWS[0]?.slice(1));
  expect(text(rows[1]?.[0])).toMatch(/^a-.*….*om$/);
  expect(fitted(ROWS, { isTerminal: false, columns: 80 })).toEqual(ROWS);
});

test('a wildcard says how many hosts it serves, once there is a certificate', () => {
  const host = '*.cr.example.com';
  expect(hostCell({ host, covers: 12, notAfter: '2027-02-26T03:22:12.000Z' })).toBe(`${host} (12 hosts)`);
  expect(hostCell({ host, covers: 0, notAfter: null })).toBe(host);
  expect(hostCell({ host: 'cr.example.com', notAfter: null })).toBe('cr.example.com');
});
