import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { OPERATOR_ERRORS, OperatorError } from '../../../src/kit/operator-error.ts';
import { CATALOGUE } from '../../../src/oci/errors.ts';

const document = readFileSync(new URL('../../../deploy/ERRORS.md', import.meta.url), 'utf8');

/** Text as a cell of a Markdown table shows it. */
const cell = (text: string) => text.replace(/[<|]/g, '\\$&');
const rows = (start: RegExp) => document.split('\n').filter((line) => start.test(line));

test('deploy/ERRORS.md has the operators’ catalogue, row by row, and no other', () => {
  const expected = Object.entries(OPERATOR_ERRORS).map(
    ([code, { usage, meaning, next }]) => `| \`${code}\` | ${usage ? 2 : 1} | ${cell(meaning)} | ${cell(next)} |`,
  );
  expect(rows(/^\| `[A-Z_]+` \|/)).toEqual(expected);
});

test('deploy/ERRORS.md has the clients’ catalogue, row by row, and no other', () => {
  const expected = Object.values(CATALOGUE).map(
    ({ status, code, message, next }) => `| ${status} | \`${code}\` | ${cell(message)} | ${cell(next)} |`,
  );
  expect(rows(/^\| \d{3} \|/)).toEqual(expected);
});

test('an error takes from the catalogue what it was not given', () => {
  const bare = new OperatorError('ALIAS_UNKNOWN', 'there is no alias k8s');
  expect(bare).toMatchObject({ usage: false, next: OPERATOR_ERRORS.ALIAS_UNKNOWN.next });
  const cause = new Error('why');
  const told = new OperatorError('NAME_INVALID', 'bad', { next: 'choose k8s', cause });
  expect(told).toMatchObject({ usage: true, next: 'choose k8s', cause });
});

test('an error of another process is what that process said, even of a version that knows more codes', () => {
  const sent = { code: 'ALIAS_UNKNOWN', message: 'there is none', next: 'look', usage: false };
  expect(OperatorError.received(sent)).toMatchObject(sent);
  const newer = { code: 'FROM_THE_FUTURE', message: 'new', next: 'update', usage: true };
  expect(OperatorError.received(newer)).toMatchObject(newer);
});
