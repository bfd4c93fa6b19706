import { describe, expect, test } from 'vitest';
import {
  BadValue,
  isPublicDomain,
  parseBoolean,
  parseCidr,
  parseDirectory,
  parseDomain,
  parseDuration,
  parseEmail,
  parseInteger,
  parseList,
  parseListen,
  parseMacKey,
  parseProxy,
  parsePublicUrl,
  parseResolver,
  parseSize,
} from '../../../src/config/values.ts';

function refused(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(BadValue);
    return (error as BadValue).message;
  }
  throw new Error('nothing was thrown');
}

describe('sizes', () => {
  test.each([
    ['20GiB', 20 * 2 ** 30],
    ['1.5 MiB', 1.5 * 2 ** 20],
    ['1tib', 2 ** 40],
    ['512KiB', 512 * 1024],
    ['4096', 4096],
    [4096, 4096],
    ['0', 0],
    ['7B', 7],
  ])('%j is %d bytes', (raw, bytes) => expect(parseSize(raw)).toBe(bytes));

  test.each([
    ['20GB'],
    ['x'],
    ['-1'],
    ['1e9'],
    ['9999999TiB'],
    [''],
    [true],
    [[1]],
    ['GiB'],
    [Number.NaN],
    ['1.5.2KiB'],
  ])('%j is refused', (raw) => {
    expect(refused(() => parseSize(raw))).toBeTruthy();
  });

  test('units that count by 1000 are explained', () => {
    expect(refused(() => parseSize('20GB'))).toContain('KiB, MiB, GiB, TiB');
  });
});

describe('durations', () => {
  test.each([
    ['500ms', 500],
    ['20s', 20_000],
    ['1m', 60_000],
    ['12h', 43_200_000],
    ['7d', 604_800_000],
    ['1.5s', 1500],
    ['0', 0],
    [0, 0],
  ])('%j is %d ms', (raw, ms) => expect(parseDuration(raw)).toBe(ms));

  test.each([['20'], [20], ['-1s'], ['1w'], [''], ['s'], [null]])('%j is refused', (raw) => {
    expect(refused(() => parseDuration(raw))).toBeTruthy();
  });
});

describe('addresses to listen on', () => {
  test.each([
    [':443', { host: undefined, port: 443 }],
    ['127.0.0.1:8443', { host: '127.0.0.1', port: 8443 }],
    ['[::1]:8443', { host: '::1', port: 8443 }],
    ['0.0.0.0:0', { host: '0.0.0.0', port: 0 }],
    ['localhost:80', { host: 'localhost', port: 80 }],
    ['off', null],
    [false, null],
  ])('%j', (raw, address) => expect(parseListen(raw)).toEqual(address));

  test.each([
    ['443'],
    [443],
    ['::1:443'],
    ['[127.0.0.1]:1'],
    ['host.example:1'],
    [':65536'],
    [':'],
    ['http://x:1'],
    [''],
  ])('%j is refused', (raw) => {
    expect(refused(() => parseListen(raw))).toBeTruthy();
  });
});

describe('networks', () => {
  test.each([
    ['10.0.0.0/8', '10.0.0.0/8'],
    ['192.0.2.7', '192.0.2.7/32'],
    ['2001:DB8::/32', '2001:db8::/32'],
    ['::1', '::1/128'],
    ['0.0.0.0/0', '0.0.0.0/0'],
  ])('%s is %s', (raw, cidr) => expect(parseCidr(raw)).toBe(cidr));

  test.each([
    ['10.0.0.0/33'],
    ['10.0.0/8'],
    ['010.0.0.1'],
    ['0x7f.1'],
    ['::/129'],
    ['a'],
    ['10.0.0.0/'],
    ['1.1.1.1/8/8'],
    [5],
  ])('%j is refused', (raw) => {
    expect(refused(() => parseCidr(raw))).toBeTruthy();
  });
});

describe('lists', () => {
  test('come as lists or with commas', () => {
    expect(parseList(parseCidr)('10.0.0.0/8, ::1,')).toEqual(['10.0.0.0/8', '::1/128']);
    expect(parseList(parseCidr)(['10.0.0.0/8'])).toEqual(['10.0.0.0/8']);
    expect(parseList(parseCidr)([])).toEqual([]);
  });

  test('name every item that is wrong', () => {
    expect(refused(() => parseList(parseCidr)('x,10.0.0.0/8,y'))).toMatch(/"x".*"y"/);
  });
});

describe('the rest', () => {
  test.each([
    [true, true],
    ['TRUE', true],
    ['yes', true],
    ['1', true],
    [0, false],
    ['off', false],
  ])('%j is %s', (raw, value) => expect(parseBoolean(raw)).toBe(value));

  test.each([
    ['1.1.1.1', '1.1.1.1:53'],
    ['127.0.0.1:8053', '127.0.0.1:8053'],
    ['::1', '[::1]:53'],
    ['[::1]:8053', '[::1]:8053'],
  ])('the DNS server %s is %s', (raw, value) => expect(parseResolver(raw)).toBe(value));

  test.each([['dns.example:53'], ['1.1.1.1:0'], ['[1.1.1.1]:53'], ['']])('%j is no DNS server', (raw) => {
    expect(refused(() => parseResolver(raw))).toBeTruthy();
  });

  test('the URL that clients use is scheme, host and port', () => {
    expect(parsePublicUrl('https://CR.example.com:443/')).toBe('https://cr.example.com');
    expect(parsePublicUrl('http://[2001:db8::1]:8080')).toBe('http://[2001:db8::1]:8080');
    for (const raw of [
      'cr.example.com',
      'ftp://cr.example.com',
      'https://cr.example.com/v2',
      'https://u:p@cr.example.com',
      '',
    ]) {
      expect(
        refused(() => parsePublicUrl(raw)),
        raw,
      ).toBeTruthy();
    }
  });

  test('what is refused of a secret is not repeated', () => {
    for (const raw of ['ftp://u:hunter2@x', 'http://u:hunter2@x/path', 'u:hunter2@x', 'http://u:hunter2@/']) {
      expect(refused(() => parseProxy(raw))).not.toContain('hunter2');
    }
    expect(refused(() => parseMacKey('hunter2!'))).not.toContain('hunter2');
  });

  test('numbers, e-mail addresses and directories', () => {
    expect(parseInteger(1, 5)('5')).toBe(5);
    for (const raw of ['0', 6, '1.5', 'x']) expect(refused(() => parseInteger(1, 5)(raw))).toContain('from 1 to 5');
    expect(parseEmail('ops@example.com')).toBe('ops@example.com');
    expect(refused(() => parseEmail('ops'))).toBeTruthy();
    expect(parseDirectory('https://127.0.0.1:14000/dir')).toBe('https://127.0.0.1:14000/dir');
    expect(refused(() => parseDirectory('letsencrypt'))).toBeTruthy();
  });
});

describe('the domain', () => {
  test.each([
    ['CR.Example.COM', 'cr.example.com', true],
    ['cr.example.com.', 'cr.example.com', true],
    ['bücher.example', 'xn--bcher-kva.example', true],
    ['localhost', 'localhost', false],
    ['a.localhost', 'a.localhost', false],
    ['gw.test', 'gw.test', false],
    ['gw.internal', 'gw.internal', false],
    ['gw.local', 'gw.local', false],
    ['gw.home.arpa', 'gw.home.arpa', false],
    ['gw.arpa', 'gw.arpa', true],
    ['contest', 'contest', true],
    ['192.0.2.1', '192.0.2.1', false],
    ['[2001:DB8::1]', '2001:db8::1', false],
    ['9.9.9.9', '9.9.9.9', true],
    ['::ffff:9.9.9.9', '9.9.9.9', true],
    ['[2620:FE::FE]', '2620:fe::fe', true],
    ['100.64.0.1', '100.64.0.1', false],
  ])('%s is %s', (raw, domain, open) => {
    expect(parseDomain(raw)).toBe(domain);
    expect(isPublicDomain(domain)).toBe(open);
  });

  test.each([
    ['a_b.example', 'underscore'],
    ['https://cr.example', 'URL'],
    ['cr.example:8443', 'listen.https'],
    ['', 'empty'],
    ['*.example.com', 'star'],
    ['1.2.3', 'IP address'],
    ['127', 'IP address'],
    [5, 'not text'],
  ])('%j is refused: %s', (raw, reason) => expect(refused(() => parseDomain(raw))).toContain(reason));
});
