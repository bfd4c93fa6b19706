import { expect, it } from 'vitest';
import { displayWidth } from '../../../src/kit/text.ts';
import { inWords } from '../../../src/telemetry/words.ts';

const PULL = {
  level: 'info',
  time: '2026-01-02T03:04:05.678Z',
  room: 'edge',
  requestId: '1',
  method: 'GET',
  host: 'cr.example.com',
  kind: 'manifest',
  registry: 'quay.io',
  repository: 'org/app',
  reference: 'v1',
  status: 200,
  bytes: 7_270,
  ms: 12.4,
  from: 'cache',
  client: '192.0.2.1',
  userAgent: 'docker/28',
  msg: 'request',
};
const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

const words = (fields: object, columns?: number, colours = false) =>
  inWords({ columns: () => columns, colours })(`${JSON.stringify(fields)}\n`);
/** Without the time, which is that of the machine's zone. */
const request = (fields: object, columns?: number) => words({ ...PULL, ...fields }, columns).slice(11);

it.each([
  [{}, 'GET  200 hit     7.1 KiB    12 ms cr.example.com quay.io/org/app:v1'],
  [
    { kind: 'blob', reference: DIGEST, from: 'fill', bytes: 3e7, ms: 61_000 },
    'GET  200 miss   28.6 MiB 1 min 1 s cr.example.com quay.io/org/app blob sha256:0123456789ab',
  ],
  [
    { reference: DIGEST, method: 'HEAD', from: 'stale', reason: 'quay.io does not answer' },
    'HEAD 200 stale   7.1 KiB    12 ms cr.example.com quay.io/org/app@sha256:0123456789ab (quay.io does not answer)',
  ],
  [{ kind: 'tags', reference: undefined }, 'GET  200 hit     7.1 KiB    12 ms cr.example.com quay.io/org/app tags'],
  [
    {
      kind: 'refused',
      registry: undefined,
      path: '/v2/x',
      method: 'DELETE',
      status: 405,
      from: undefined,
      bytes: 9,
      ms: 0.3,
    },
    'DELETE 405 -           9 B   0.3 ms cr.example.com /v2/x',
  ],
])('a request is one line (%#)', (fields, line) => {
  expect(request(fields)).toBe(`${line}\n`);
});

it('is as wide as the screen: the reason goes first, then the host, then the middle of the name', () => {
  const failed = {
    status: 502,
    from: undefined,
    reason: 'quay.io cannot be connected to',
    repository: `org/${'x'.repeat(60)}`,
  };
  for (let columns = 70; columns < 200; columns += 7) {
    const line = words({ ...PULL, ...failed }, columns).trimEnd();
    expect(displayWidth(line), line).toBeLessThanOrEqual(columns);
    expect(line).toMatch(/quay\.io.*:v1/);
  }
  expect(request(failed, 200)).toContain('(quay.io cannot be connected to)');
  expect(request(failed, 60)).toMatch(/ quay\.io\S*…\S*:v1\n$/);
});

it('obeys nothing that strangers sent', () => {
  const line = request({ registry: undefined, kind: 'other', path: '/\u001b[2J\u202egnp\r\nfake', host: '\u0007' }, 80);
  expect(line).not.toMatch(/[\p{Cc}\p{Cf}](?!$)/u);
  expect(line).toMatch(/\n$/);
  expect(words({ ...PULL, msg: 'other', reason: '\u001b]0;title\u0007' })).not.toContain('\u001b');
});

it('has colours only where they are wanted', () => {
  expect(words(PULL, 80, true)).toContain('\u001b[32m200');
  expect(words(PULL, 80, false)).not.toContain('\u001b');
});

it('shows of other lines the sentence, and what it has not said', () => {
  const told = { level: 'warn', time: PULL.time, room: 'edge', registry: 'quay.io', status: 502, count: 5 };
  const line = words({ ...told, msg: 'a request was not served (502 for quay.io/a)' });
  expect(line).toMatch(/^\[\d\d:\d\d:\d\d\] WARN: a request was not served \(502 for quay\.io\/a\) \{"count":5\}\n$/);
  const error = { type: 'Error', message: 'bad', stack: 'Error: bad\n    at here (file.ts:1:1)' };
  expect(words({ level: 'error', time: PULL.time, err: error, msg: 'it failed' })).toMatch(/it failed.*\n +at here/s);
});
