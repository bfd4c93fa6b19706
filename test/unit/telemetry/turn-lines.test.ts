import { execFileSync } from 'node:child_process';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { TurnLines } from '../../../src/telemetry/turn-lines.ts';

function collector() {
  const pieces: string[] = [];
  return { pieces, write: (lines: string) => void pieces.push(lines), flushSync: () => {} };
}

test('the lines of one turn are handed on together, in whole lines and in order', async () => {
  const to = collector();
  const lines = new TurnLines(to, 1000);
  lines.write('one\n');
  lines.write('two\n');
  expect(to.pieces).toEqual([]);
  await nextTurn();
  expect(to.pieces).toEqual(['one\ntwo\n']);
  lines.write('three\n');
  await nextTurn();
  expect(to.pieces).toEqual(['one\ntwo\n', 'three\n']);
});

test('no piece is longer than it may be, in bytes', async () => {
  const to = collector();
  const lines = new TurnLines(to, 16);
  for (const line of ['ééééééé\n', 'x\n', `${'long'.repeat(10)}\n`, 'y\n', 'z\n']) lines.write(line);
  await nextTurn();
  expect(to.pieces).toEqual(['ééééééé\n', 'x\n', `${'long'.repeat(10)}\n`, 'y\nz\n']);
});

test('a flush waits for no turn', () => {
  const to = collector();
  const lines = new TurnLines(to, 1000);
  lines.write('last\n');
  lines.flushSync();
  expect(to.pieces).toEqual(['last\n']);
});

test('a log writes its last words, whichever way the program ends', () => {
  const log = new URL('../../../src/telemetry/log.ts', import.meta.url).href;
  const program = (end: string) => `
    const { createLog } = await import(${JSON.stringify(log)});
    const log = createLog({ level: 'info', format: 'json' });
    for (let n = 0; n < 100; n++) log.info({ n, text: 'x'.repeat(200) }, 'words');
    ${end}`;
  for (const end of [
    '',
    'process.exit(0);',
    'await new Promise(setImmediate); log.info({ n: 100 }, "more"); process.exit(0);',
  ]) {
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', program(end)], { encoding: 'utf8' });
    const numbers = output
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { n: number }).n);
    expect(numbers.slice(0, 100)).toEqual(Array.from({ length: 100 }, (_, n) => n));
    expect(numbers.length).toBe(end.includes('more') ? 101 : 100);
  }
});
