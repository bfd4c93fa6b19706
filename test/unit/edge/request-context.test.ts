import { describe, expect, test } from 'vitest';
import { plainAddress } from '../../../src/edge/connections.ts';
import { ForwardedHeaders } from '../../../src/edge/request-context.ts';

const proxies = new ForwardedHeaders(['10.0.0.0/8', '2001:db8::/32', '192.0.2.7'], 8443);
const clientOf = (peer: string, header: string | undefined): string =>
  proxies.read(peer, header === undefined ? {} : { 'x-forwarded-for': header }).address;

describe('X-Forwarded-For', () => {
  test.each([
    ['203.0.113.1', '198.51.100.1', '203.0.113.1'],
    ['10.0.0.1', undefined, '10.0.0.1'],
    ['10.0.0.1', '', '10.0.0.1'],
    ['10.0.0.1', '198.51.100.1', '198.51.100.1'],
    // The leftmost is whatever the client wrote.
    ['10.0.0.1', '127.0.0.1, 198.51.100.1', '198.51.100.1'],
    ['10.0.0.1', '198.51.100.1, 10.9.9.9', '198.51.100.1'],
    ['10.0.0.1', '10.1.1.1, 10.2.2.2', '10.1.1.1'],
    ['10.0.0.1', 'unknown', '10.0.0.1'],
    ['10.0.0.1', '198.51.100.1, garbage, 10.2.2.2', '10.2.2.2'],
    ['192.0.2.7', '198.51.100.1', '198.51.100.1'],
    ['192.0.2.8', '198.51.100.1', '192.0.2.8'],
    ['2001:db8::1', '2a00::1', '2a00::1'],
    ['10.0.0.1', '::ffff:198.51.100.1', '198.51.100.1'],
    // With ports, as some proxies write them (Azure's Application Gateway, HAProxy by configuration).
    ['10.0.0.1', '203.0.113.9:4711', '203.0.113.9'],
    ['10.0.0.1', '198.51.100.1:1, 10.2.2.2:443', '198.51.100.1'],
    ['10.0.0.1', '[2a00::1]:443', '2a00::1'],
    ['10.0.0.1', '[2a00::1]', '2a00::1'],
    ['10.0.0.1', '198.51.100.1, [2001:db8::2]:443', '198.51.100.1'],
    ['10.0.0.1', '[::ffff:198.51.100.1]:80', '198.51.100.1'],
    ['10.0.0.1', '203.0.113.9:port', '10.0.0.1'],
    ['10.0.0.1', '203.0.113.9:1:2', '10.0.0.1'],
    ['10.0.0.1', '[203.0.113.9', '10.0.0.1'],
  ])('%s says %s: %s', (peer, header, expected) => {
    expect(clientOf(peer, header)).toBe(expected);
  });
});

test('a network written as IPv4-mapped IPv6 is the IPv4 network', () => {
  const mapped = new ForwardedHeaders(['::ffff:10.0.0.0/104'], null);
  for (const peer of ['10.1.2.3', '::ffff:10.1.2.3']) expect(mapped.trusts(peer)).toBe(true);
  expect(mapped.trusts('11.1.2.3')).toBe(false);
});

test('host and scheme are believed from proxies alone', () => {
  const headers = { 'x-forwarded-host': 'a.example, b.example', 'x-forwarded-proto': 'HTTPS' };
  expect(proxies.read('10.0.0.1', headers)).toMatchObject({ host: 'a.example', https: true });
  expect(proxies.read('203.0.113.1', headers)).toMatchObject({ host: undefined, https: false });
});

test('where a proxy leaves out the port that clients came to, it is that of publicUrl', () => {
  expect(proxies.read('10.0.0.1', {}).port).toBe('8443');
  expect(proxies.read('203.0.113.1', {}).port).toBe('');
});

test('mapped addresses are shown as a person writes them', () => {
  expect(plainAddress('::ffff:192.0.2.1')).toBe('192.0.2.1');
  expect(plainAddress('2001:db8::1')).toBe('2001:db8::1');
  expect(plainAddress(undefined)).toBe('');
});
