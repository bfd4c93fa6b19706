import { PassThrough } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { Output, type Stream } from '../../../src/cli/output.ts';
import { OperatorError } from '../../../src/kit/operator-error.ts';

function bed(options: { tty?: boolean; env?: NodeJS.ProcessEnv } = {}) {
  const stream = () => Object.assign(new PassThrough(), { isTTY: options.tty ?? false, columns: 80 });
  const stdout = stream();
  const stderr = stream();
  const output = new Output({ stdout, stderr, env: options.env ?? {} });
  const read = (from: Stream & PassThrough) => String(from.read() ?? '');
  return { output, out: () => read(stdout), err: () => read(stderr), stdout };
}

describe('tables', () => {
  test('columns line up, and a line has no trailing blanks', () => {
    const { output, out } = bed();
    output.table(
      ['name', 'registry'],
      [
        ['k8s-gcr', 'k8s.gcr.io'],
        ['q', { text: 'quay.io', tone: 'good' }],
        ['empty', ''],
      ],
    );
    expect(out()).toBe('NAME     REGISTRY\nk8s-gcr  k8s.gcr.io\nq        quay.io\nempty\n');
  });

  test('an empty table still has its head', () => {
    const { output, out } = bed();
    output.table(['name', 'registry'], []);
    expect(out()).toBe('NAME  REGISTRY\n');
  });

  test('colour only on a terminal, and not with NO_COLOR', () => {
    const rows = [[{ text: 'valid', tone: 'good' as const }]];
    const terminal = bed({ tty: true });
    terminal.output.table(['state'], rows);
    expect(terminal.out()).toContain('\u001b[32mvalid\u001b[39m');
    for (const quiet of [
      bed(),
      bed({ tty: true, env: { NO_COLOR: '1' } }),
      bed({ tty: true, env: { TERM: 'dumb' } }),
    ]) {
      quiet.output.table(['state'], rows);
      expect(quiet.out()).toBe('STATE\nvalid\n');
    }
    // https://no-color.org: an empty variable is not set.
    const empty = bed({ tty: true, env: { NO_COLOR: '' } });
    empty.output.table(['state'], rows);
    expect(empty.out()).toContain('\u001b[32m');
  });

  test('facts line up, lists take a line each, an empty one says so', () => {
    const { output, out } = bed();
    output.facts([
      ['host', 'quay.io'],
      ['endpoints', ['https://a', 'https://b']],
      ['aliases', []],
    ]);
    expect(out()).toBe('host:      quay.io\nendpoints: https://a\n           https://b\naliases:   none\n');
  });
});

describe('errors', () => {
  test('say what happened and, on the next line, what to do', () => {
    const { output, out, err } = bed();
    output.error(new OperatorError('ALIAS_TAKEN', 'the alias k8s stands for quay.io', { next: 'choose another name' }));
    expect(err()).toBe('gateway: the alias k8s stands for quay.io\n  choose another name\n');
    expect(out()).toBe('');
  });

  test('without a next step there is no empty line', () => {
    const { output, err } = bed();
    output.error(new Error('boom'));
    expect(err()).toBe('gateway: boom\n');
  });
});

describe('progress', () => {
  test('is a bar on a terminal that goes before the next line', () => {
    const { output, out, err } = bed({ tty: true, env: { NO_COLOR: '1' } });
    output.progress('verified 5 of 10', 5, 10);
    expect(err()).toBe(`\r\u001b[2K[${'#'.repeat(15)}${'.'.repeat(15)}] 50 % verified 5 of 10`);
    output.line('done');
    expect(err()).toBe('\r\u001b[2K');
    expect(out()).toBe('done\n');
  });

  test('never is wider than the terminal, nor fuller than full', () => {
    const { output, err } = bed({ tty: true });
    output.progress('x'.repeat(200), 20, 10);
    expect(err().replace('\r\u001b[2K', '')).toHaveLength(79);
    output.progress('', 20, 10);
    expect(err()).toContain('100 %');
  });

  test('is nothing elsewhere', () => {
    const { output, out, err } = bed();
    output.progress('half', 5, 10);
    output.progressEnd();
    expect(out() + err()).toBe('');
  });
});

test('a reader that has left is no failure', async () => {
  const { output, stdout } = bed();
  stdout.destroy(Object.assign(new Error('EPIPE'), { code: 'EPIPE' }));
  output.line('for nobody');
  await new Promise((resolve) => setImmediate(resolve));
});

test('results and errors that come while bars are drawn stand whole above them', async () => {
  const { output, out, err } = bed({ tty: true });
  const bars = await output.bars();
  bars?.set('layer', 1, 2);
  output.step('pushed', 'a layer');
  output.line('the result');
  output.error(new Error('a failure'));
  output.progressEnd();
  const drawn = err();
  expect(out()).toBe('');
  for (const text of ['a layer', 'the result', 'a failure']) expect(drawn).toMatch(new RegExp(`${text}\\n`));
  output.line('and after them');
  expect(out()).toBe('and after them\n');
});
