import { pino } from 'pino';
import { expect, test } from 'vitest';
import { plainLines } from '../../../src/telemetry/plain-lines.ts';

function logger() {
  const lines: string[] = [];
  const options = {
    level: 'info',
    base: null,
    timestamp: () => ',"time":"now"',
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: ['token'] },
  };
  return { lines, log: pino(options, { write: (line: string) => void lines.push(line) }) };
}

test('a line is the one that pino would write', () => {
  const { lines, log } = logger();
  const room = log.child({ worker: 7, room: 'edge' });
  const fields = {
    host: 'a "quoted" name\n',
    path: undefined,
    status: 200,
    ms: 0.2,
    userAgent: `ünïcode \u2028 ${'x'.repeat(150)} \ud800`,
  };
  room.info(fields, 'request');
  plainLines(room).info(fields, 'request');
  expect(lines).toHaveLength(2);
  expect(JSON.parse(lines[1] ?? '')).toEqual(JSON.parse(lines[0] ?? ''));
  expect(lines[1]).toMatch(/^\{"level":"info","time":"now","worker":7,"room":"edge",.*\}\n$/s);
});

test('levels are the logger’s, and its other children stay as they were', () => {
  const { lines, log } = logger();
  const plain = plainLines(log);
  plain.debug({ a: 1 }, 'below');
  expect(lines).toEqual([]);
  log.child({}).info({ token: 'secret' }, 'kept apart');
  expect(JSON.parse(lines[0] ?? '').token).toBe('[Redacted]');
  plain.info({}, 'without fields');
  expect(JSON.parse(lines[1] ?? '')).toEqual({ level: 'info', time: 'now', msg: 'without fields' });
});
