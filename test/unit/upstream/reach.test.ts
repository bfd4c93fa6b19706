import { describe, expect, it } from 'vitest';
import { isInsideName, mayName, mayReach } from '../../../src/upstream/net/egress.ts';

describe('mayReach', () => {
  it.each(['1.1.1.1', '2606:4700::1111'])('lets a public registry point to %s', (address) => {
    expect(mayReach('public', address)).toBe(true);
  });

  it.each([
    '127.0.0.1',
    '10.1.2.3',
    '172.16.0.1',
    '192.168.1.1',
    '169.254.169.254',
    '100.64.0.1',
    '0.0.0.0',
    '224.0.0.1',
    '255.255.255.255',
    '::1',
    '::',
    'fe80::1',
    'fd00::1',
    '::ffff:127.0.0.1',
    '::ffff:a9fe:a9fe',
    '64:ff9b::7f00:1',
    '64:ff9b:1::7f00:1',
    '::7f00:1',
    '4000::1',
    '168.63.129.16',
    'nonsense',
  ])('keeps a public registry from %s', (address) => {
    expect(mayReach('public', address)).toBe(false);
  });

  it('lets a private registry point into private networks, but never to metadata services', () => {
    expect(mayReach('inside', '10.1.2.3')).toBe(true);
    expect(mayReach('inside', '127.0.0.1')).toBe(true);
    expect(mayReach('inside', '1.1.1.1')).toBe(true);
    for (const metadata of [
      '169.254.169.254',
      '100.100.100.200',
      '192.0.0.192',
      '168.63.129.16',
      'fd00:ec2::254',
      'fd20:ce::254',
    ]) {
      expect(mayReach('inside', metadata), metadata).toBe(false);
      expect(mayName('inside', metadata.includes(':') ? `[${metadata}]` : metadata), metadata).toBe(false);
    }
    expect(mayReach('inside', '64:ff9b::6464:64c8')).toBe(false);
    expect(mayReach('inside', 'fe80::1')).toBe(false);
    expect(mayReach('operator', '169.254.169.254')).toBe(true);
  });
});

describe('mayName, where a proxy resolves', () => {
  it('judges literal addresses and names that are never public', () => {
    expect(mayName('public', 'cdn.quay.io')).toBe(true);
    expect(mayName('public', '[::1]')).toBe(false);
    expect(mayName('public', '10.0.0.1')).toBe(false);
    expect(mayName('public', 'localhost')).toBe(false);
    expect(mayName('public', 'vault.internal')).toBe(false);
    expect(mayName('public', 'vault')).toBe(false);
    expect(mayName('inside', 'vault.internal')).toBe(true);
  });

  it('knows the names of this network', () => {
    expect(isInsideName('a.localhost')).toBe(true);
    expect(isInsideName('nas.home.arpa.')).toBe(true);
    expect(isInsideName('localhost.example.com')).toBe(false);
  });
});
