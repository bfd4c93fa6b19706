import { describe, expect, test } from 'vitest';
import { Network, NetworkList, parseAddress } from '../../../src/kit/networks.ts';

describe('a network contains an address', () => {
  test.each([
    ['10.0.0.0/8', '10.1.2.3', true],
    ['10.0.0.0/8', '11.1.2.3', false],
    ['10.1.2.3/8', '10.9.9.9', true],
    ['192.0.2.7', '192.0.2.7', true],
    ['192.0.2.7', '192.0.2.8', false],
    ['0.0.0.0/0', '192.0.2.7', true],
    ['0.0.0.0/0', '2001:db8::1', false],
    ['2001:db8::/32', '2001:db8:1::5', true],
    ['2001:db8::/32', '2001:db9::5', false],
    ['::1', '::1', true],
    // Mapped addresses are the IPv4 addresses that they stand for, on either side.
    ['10.0.0.0/8', '::ffff:10.1.2.3', true],
    ['10.0.0.0/8', '::ffff:a01:203', true],
    ['::ffff:10.0.0.0/104', '10.1.2.3', true],
    ['::ffff:10.0.0.0/104', '::ffff:10.1.2.3', true],
    ['::ffff:10.0.0.0/104', '11.1.2.3', false],
    ['::ffff:a00:0/104', '10.1.2.3', true],
    ['::ffff:192.0.2.7', '192.0.2.7', true],
    ['::ffff:192.0.2.7', '192.0.2.8', false],
    ['::ffff:0:0/96', '192.0.2.7', true],
    ['::ffff:0:0/96', '2001:db8::1', false],
    // Shorter than the mapped range: all of IPv4, and the IPv6 addresses that it names.
    ['::ffff:0:0/90', '192.0.2.7', true],
    ['::ffff:0:0/90', '::ffc0:0:1', true],
    ['::ffff:0:0/90', '::1', false],
    ['::ffff:10.0.0.0/90', '11.1.2.3', true],
    // Nobody who writes it means IPv4.
    ['::/0', '192.0.2.7', false],
    ['::/0', '2001:db8::1', true],
    ['fe80::/10', 'fe80::1%eth0', true],
  ])('%s, %s: %s', (text, address, expected) => {
    const parsed = parseAddress(address);
    expect(parsed !== null && Network.parse(text)?.contains(parsed)).toBe(expected);
    expect(new NetworkList(['198.51.100.0/24', text]).contains(address)).toBe(expected);
  });
});

test.each([
  '',
  '10',
  '010.0.0.0/8',
  '10.0.0/8',
  '10.0.0.0/33',
  '::/129',
  '10.0.0.0/',
  '10.0.0.0/8/8',
  '10.0.0.0/-1',
  'x',
])('%j is no network', (text) => {
  expect(Network.parse(text)).toBeNull();
  expect(() => new NetworkList([text])).toThrow('is not a network');
});

test('an address is read as every program reads it, or not at all', () => {
  for (const text of ['', '10', '0x7f.1', '010.0.0.1', '10.0.0.1:80', 'localhost'])
    expect(parseAddress(text)).toBeNull();
  expect(parseAddress('::ffff:192.0.2.1')?.toString()).toBe('192.0.2.1');
  expect(new NetworkList(['0.0.0.0/0', '::/0']).contains('localhost')).toBe(false);
  expect(new NetworkList([]).contains('192.0.2.1')).toBe(false);
});
