import { expect, test } from 'vitest';
import { checkClock } from '../../../src/admin/doctor/clock.ts';
import { type Finding, judge } from '../../../src/admin/doctor/finding.ts';
import { checkKind, checkSpace } from '../../../src/admin/doctor/machine.ts';
import { mapInOrder } from '../../../src/admin/doctor/registries.ts';
import { servedProblem } from '../../../src/admin/probe.ts';
import type { CertificateInfo } from '../../../src/certs/service.ts';

test('the clock is judged by the median', () => {
  expect(checkClock([], false).level).toBe('warn');
  expect(checkClock([100, -200, 86_400_000], false).level).toBe('ok');
  expect(checkClock([60_000, 61_000, 0], false)).toMatchObject({
    level: 'warn',
    message: expect.stringContaining('60 s behind'),
  });
  expect(checkClock([-600_000], false)).toMatchObject({
    level: 'fail',
    message: expect.stringContaining('600 s ahead'),
  });
});

test('each runs a few at once and keeps the order', async () => {
  let running = 0;
  let most = 0;
  const seen: number[] = [];
  const gates = Array.from({ length: 5 }, () => Promise.withResolvers<void>());
  // The first ends last.
  const work = mapInOrder([0, 1, 2, 3, 4], 2, async (n) => {
    most = Math.max(most, ++running);
    await gates[n]?.promise;
    running--;
    return n;
  });
  for (const gate of gates.toReversed()) gate.resolve();
  for await (const n of work) seen.push(n);
  expect(seen).toEqual([0, 1, 2, 3, 4]);
  expect(most).toBe(2);
});

test('each passes a failure on in its turn, and leaves none unhandled', async () => {
  const work = mapInOrder(['a', 'b', 'c'], 3, async (item) => {
    if (item !== 'a') throw new Error(item);
    return item;
  });
  expect((await work.next()).value).toBe('a');
  await expect(work.next()).rejects.toThrow('b');
});

const INFO: CertificateInfo = {
  host: 'a.example.com',
  state: 'valid',
  issuer: 'CA',
  serial: '00:AB:cd',
  notBefore: null,
  notAfter: null,
  lastError: null,
  nextAttempt: null,
};

test('an alias is served where the listener answers under the very certificate', () => {
  expect(servedProblem({ status: 200, serial: 'ABCD' }, INFO)).toBeNull();
  expect(servedProblem({ status: 401, serial: 'abcd' }, INFO)).toBeNull();
  expect(servedProblem({ status: 404, serial: 'ABCD' }, INFO)).toContain('404');
  expect(servedProblem({ status: 200, serial: 'ABCE' }, INFO)).toContain('ABCE');
  expect(servedProblem({ status: 200, serial: null }, INFO)).toContain('none');
  expect(servedProblem({ status: 200, serial: null }, null)).toBeNull();
  expect(servedProblem(new Error('refused'), INFO)).toBe('refused');
});

const MiB = 2 ** 20;

test('a disk is judged by its room, its inodes and its kind', () => {
  const disk = { bsize: 4096, bavail: (10_000 * MiB) / 4096, files: 100_000, ffree: 90_000 };
  expect(checkSpace(disk, '/data', 1_000 * MiB).map(({ level }) => level)).toEqual(['ok']);
  expect(checkSpace({ ...disk, bavail: (500 * MiB) / 4096 }, '/data', 1_000 * MiB)[0]).toMatchObject({
    level: 'warn',
    next: expect.stringContaining('cache prune'),
  });
  expect(checkSpace({ ...disk, bavail: 10 }, '/data', 0)[0]?.level).toBe('fail');
  expect(checkSpace({ ...disk, ffree: 1_500 }, '/data', 0)[1]).toMatchObject({ name: 'inodes', level: 'warn' });
  expect(checkSpace({ ...disk, ffree: 3 }, '/data', 0)[1]).toMatchObject({ name: 'inodes', level: 'fail' });
  // btrfs tells of none.
  expect(checkSpace({ ...disk, files: 0, ffree: 0 }, '/data', 0)).toHaveLength(1);
  expect(checkKind({ type: 0x6969 }, '/data')[0]).toMatchObject({
    level: 'fail',
    message: expect.stringContaining('NFS'),
  });
  expect(checkKind({ type: 0x01021994 }, '/data')[0]).toMatchObject({ level: 'warn' });
  expect(checkKind({ type: 0xef53 }, '/data')).toEqual([]);
});

const registry = (host: string, because?: string): Finding => ({
  name: `registry ${host}`,
  level: because === undefined ? 'ok' : 'fail',
  message: because ?? 'answers',
  outward: true,
  ...(because === undefined ? {} : { because }),
});
const RESOLVER: Finding = { name: 'resolver', level: 'ok', message: '192.0.2.53 answers' };
const CUT: Finding = { name: 'ca ca.test', level: 'fail', message: 'no answer', because: 'no answer', outward: true };

test('no way out is one finding that names all that it explains', () => {
  const cut = ['a', 'b', 'c'].map((host) => registry(host, 'connect timeout'));
  const [first, ...others] = judge([RESOLVER, ...cut, CUT]);
  expect(first).toMatchObject({ name: 'network', level: 'fail', next: expect.stringContaining('upstream.proxy') });
  expect(first?.explains).toEqual(['registry a', 'registry b', 'registry c', 'ca ca.test']);
  expect(others.filter(({ level }) => level !== 'ok')).toEqual([]);
});

test('where one host answers, each that does not is its own fault', () => {
  const checks = judge([RESOLVER, ...['a', 'b', 'c'].map((host) => registry(host, 'connect timeout')), registry('d')]);
  expect(checks.map(({ name }) => name).slice(0, 3)).toEqual(['registry a', 'registry b', 'registry c']);
});

test('a machine without a default route is cut off where nothing outside answers, and only there', () => {
  const route: Finding = { name: 'network', level: 'warn', message: 'no default route' };
  const dead: Finding = { ...RESOLVER, level: 'fail' };
  const [first, ...others] = judge([route, dead, registry('a', 'name'), registry('b', 'connect')]);
  expect(first).toMatchObject({ name: 'network', level: 'fail', explains: ['resolver', 'registry a', 'registry b'] });
  expect(others).toEqual([]);
  expect(judge([route, RESOLVER, registry('a')])[0]).toMatchObject({ name: 'network', level: 'warn' });
});

test('a resolver that knows no name outside explains those who need one', () => {
  const [first] = judge([RESOLVER, registry('a', 'name'), registry('b', 'name'), registry('c', 'name')]);
  expect(first).toMatchObject({
    name: 'resolver',
    level: 'fail',
    explains: ['registry a', 'registry b', 'registry c'],
  });
  expect(judge([RESOLVER, registry('quay.oi', 'name'), registry('a')])[0]?.name).toBe('registry quay.oi');
});

test('a full disk explains what cannot be written; failures come before warnings, causes before symptoms', () => {
  const checks = judge([
    { name: 'registry a', level: 'fail', message: 'answers 500' },
    { name: 'memory', level: 'warn', message: 'little' },
    { name: 'data', level: 'fail', message: 'ENOSPC', because: 'disk full' },
    { name: 'disk', level: 'fail', message: 'full' },
  ]);
  expect(checks.map(({ name }) => name)).toEqual(['disk', 'registry a', 'memory']);
  expect(checks[0]?.explains).toEqual(['data']);
});

test('certificates that wait for a CA are under it, the port of HTTPS under its certificate, and that under its name', () => {
  const ca: Finding = { name: 'ca ca.test', level: 'fail', message: 'no directory' };
  const certificate = (host: string, because: string): Finding => ({
    name: `certificate ${host}`,
    level: 'fail',
    message: 'is pending',
    because,
  });
  const port: Finding = { name: 'port https', level: 'warn', message: 'no certificate yet', because: 'certificate a' };
  expect(judge([port, ca, certificate('a', 'ca'), certificate('b', 'ca')])).toMatchObject([
    { name: 'ca ca.test', explains: ['certificate a', 'port https', 'certificate b'] },
  ]);
  const name: Finding = { name: 'dns a', level: 'fail', message: 'leads elsewhere' };
  expect(judge([port, name, certificate('a', 'dns a')])).toMatchObject([
    { name: 'dns a', explains: ['certificate a', 'port https'] },
  ]);
  expect(judge([port, certificate('a', 'same: caa CAA forbids')])).toMatchObject([
    { name: 'certificate a', explains: ['port https'] },
  ]);
});
