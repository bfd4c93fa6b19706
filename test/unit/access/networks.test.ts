import { describe, expect, test } from 'vitest';
import { clientNetwork, NetworkRules } from '../../../src/access/access.ts';

describe('address rules', () => {
  test.each([
    // allow, deny, address, may
    [[], [], '192.0.2.1', true],
    [[], [], 'not an address', true],
    [['10.0.0.0/8'], [], '10.1.2.3', true],
    [['10.0.0.0/8'], [], '11.1.2.3', false],
    [['10.0.0.0/8'], [], '::1', false],
    [['10.0.0.0/8'], [], '', false],
    [[], ['10.0.0.0/8'], '10.1.2.3', false],
    [[], ['10.0.0.0/8'], '11.1.2.3', true],
    [[], ['10.0.0.0/8'], '', false],
    [['10.0.0.0/8'], ['10.1.0.0/16'], '10.1.2.3', false],
    [['10.1.2.3/32'], ['10.0.0.0/8'], '10.1.2.3', false],
    [['10.0.0.0/8'], ['10.1.0.0/16'], '10.2.2.3', true],
    [['10.0.0.0/8'], [], '::ffff:10.1.2.3', true],
    [[], ['10.0.0.0/8'], '::ffff:10.1.2.3', false],
    [[], ['10.0.0.0/8'], '::ffff:a01:203', false],
    [['::ffff:10.0.0.0/104'], [], '10.1.2.3', true],
    [['2001:db8::/32'], [], '2001:db8:1::5', true],
    [['2001:db8::/32'], [], '2001:db9::5', false],
    [['0.0.0.0/0'], [], '2001:db8::1', false],
    [['0.0.0.0/0', '::/0'], [], '2001:db8::1', true],
  ])('allow %j, deny %j: %s → %s', (allow, deny, address, may) => {
    expect(new NetworkRules({ allow, deny }).allows(address)).toBe(may);
  });
});

test.each([
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:db8:1:2::9', '2001:db8:1:2::/64'],
  ['2001:db8:1:3::9', '2001:db8:1:3::/64'],
  ['::1', '::/64'],
  ['', 'unknown'],
])('%j counts as %s', (address, client) => {
  expect(clientNetwork(address)).toBe(client);
});
