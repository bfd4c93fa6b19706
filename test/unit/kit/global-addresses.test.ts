import { expect, test } from 'vitest';
import { bracketed, isGlobalIP } from '../../../src/kit/networks.ts';

// One address of each row of IANA's special-purpose registries (RFC 6890), and of what has no row.
test.each([
  [
    'IPv4',
    [
      '8.8.8.8',
      '9.255.255.255',
      '11.0.0.0',
      '100.63.255.255',
      '100.128.0.0',
      '172.15.0.1',
      '172.32.0.1',
      '192.0.1.1',
      '198.17.255.255',
      '198.20.0.0',
      '203.0.112.1',
      '223.255.255.254',
    ],
  ],
  [
    'IPv6',
    [
      '2606:4700:4700::1111',
      '2a00:1450::1',
      '2001:200::1',
      '2001:4860:4860::8888',
      '2003::1',
      '2620:fe::fe',
      '3ffe::1',
    ],
  ],
  ['IPv4 in IPv6 notation', ['::ffff:8.8.8.8']],
])('%s: the internet reaches it', (_, addresses) => {
  for (const address of addresses) expect(isGlobalIP(address), address).toBe(true);
});

test.each([
  ['this network', ['0.0.0.0', '0.1.2.3']],
  ['private', ['10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.0.1']],
  ['shared by a provider (CGN)', ['100.64.0.1', '100.127.255.255']],
  ['loopback', ['127.0.0.1', '127.255.255.255', '::1']],
  ['link-local', ['169.254.169.254', 'fe80::1', 'fe80::1%eth0']],
  [
    'protocol assignments',
    ['192.0.0.1', '192.0.0.170', '192.88.99.1', '2001::1', '2001:1::1', '2001:2::1', '2001:3::1', '2001:1ff::1'],
  ],
  ['documentation', ['192.0.2.1', '198.51.100.1', '203.0.113.1', '2001:db8::1', '3fff::1']],
  ['benchmarks', ['198.18.0.1', '198.19.255.255', '2001:2:0::1']],
  ['AS112 and AMT', ['192.31.196.1', '192.175.48.1', '192.52.193.1', '2001:4:112::1', '2620:4f:8000::1']],
  ['multicast, reserved and broadcast', ['224.0.0.1', '239.1.1.1', '240.0.0.1', '255.255.255.255', 'ff02::1']],
  ['mapped', ['::ffff:10.0.0.1', '::ffff:127.0.0.1']],
  ['translated (NAT64)', ['64:ff9b::808:808', '64:ff9b:1::1', '::ffff:0:8.8.8.8']],
  ['tunnels (6to4, Teredo)', ['2002:808:808::1', '2001:0:4136:e378::1']],
  ['ORCHID and drones', ['2001:10::1', '2001:20::1', '2001:30::1']],
  ['unique local, site-local, discard', ['fc00::1', 'fd12::1', 'fec0::1', '100::1']],
  ['segment routing', ['5f00::1']],
  ['given to nobody', ['::', '::808:808', '4000::1', '8000::1', 'e000::1']],
  ['no address', ['', 'example.com', '8.8.8', '0x8.8.8.8', '010.8.8.8']],
])('%s: it does not', (_, addresses) => {
  for (const address of addresses) expect(isGlobalIP(address), address).toBe(false);
});

test('only IPv6 addresses stand in brackets', () => {
  expect(['2620:fe::fe', '9.9.9.9', 'cr.example'].map(bracketed)).toEqual(['[2620:fe::fe]', '9.9.9.9', 'cr.example']);
});
