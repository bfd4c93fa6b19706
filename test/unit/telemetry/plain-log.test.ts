import { pino } from 'pino';
import { expect, test } from 'vitest';
import { plainLog } from '../../../src/telemetry/log.ts';

function logger() {
  const lines: string[] = [];
  const sink = { write: (line: string) => void lines.push(line) };
  const options = {
    level: 'info',
    base: null,
    timestamp: () => ',"time":"now"',
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: ['token'] },
  };
  return { lines, sink, log: pino(options, sink) };
}

/** `plainLog` takes the time itself. */
const parsed = (line: string | undefined) => ({ ...JSON.parse(line ?? ''), time: 'now' });

test('a line is the one that pino would write', () => {
  const { lines, sink, log } = logger();
  const room = log.child({ worker: 7, room: 'edge' });
  const fields = {
    host: 'a "quoted" name\n',
    path: undefined,
    status: 200,
    ms: 0.2,
    userAgent: `ünïcode \u2028 ${'x'.repeat(150)} \ud800`,
  };
  room.info(fields, 'request');
  plainLog(room, sink).info(fields, 'request');
  expect(lines).toHaveLength(2);
  expect(parsed(lines[1])).toEqual(parsed(lines[0]));
  expect(Object.keys(parsed(lines[1]))).toEqual(Object.keys(parsed(lines[0])));
  expect(lines[1]).toMatch(
    /^\{"level":"info","time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","worker":7,"room":"edge",.*\}\n$/s,
  );
});

test('levels are the logger’s, and its other children stay as they were', () => {
  const { lines, sink, log } = logger();
  const plain = plainLog(log, sink);
  plain.debug({ a: 1 }, 'below');
  expect(plain.isLevelEnabled('debug')).toBe(false);
  expect(lines).toEqual([]);
  log.child({}).info({ token: 'secret' }, 'kept apart');
  expect(JSON.parse(lines[0] ?? '').token).toBe('[Redacted]');
  plain.info({}, 'without fields');
  expect(parsed(lines[1])).toEqual({ level: 'info', time: 'now', msg: 'without fields' });
});

test('without a place for lines, pino writes them', () => {
  const { lines, log } = logger();
  plainLog(log, null).info({ a: 1 }, 'through pino');
  expect(lines).toEqual(['{"level":"info","time":"now","a":1,"msg":"through pino"}\n']);
});
