import { describe, expect, test } from 'vitest';
import { ClientAllowance } from '../../../src/cache/allowance.ts';

const MIB = 1024 * 1024;
const HOUR = 3_600_000;

describe('fills that go on without a reader', () => {
  test('are four of one client at a time, and of another as many', () => {
    const allowance = new ClientAllowance({ now: () => 0 });
    for (let fill = 0; fill < 4; fill++) expect(allowance.begin('a')).toBe(true);
    expect(allowance.begin('a')).toBe(false);
    expect(allowance.begin('b')).toBe(true);
    allowance.end('a');
    expect(allowance.begin('a')).toBe(true);
    // What was refused was not counted.
    expect(allowance.begin('a')).toBe(false);
    for (let fill = 0; fill < 4; fill++) allowance.end('a');
    for (let fill = 0; fill < 4; fill++) expect(allowance.begin('a')).toBe(true);
  });

  test('fetch 256 MiB an hour, which come back evenly', () => {
    let now = 0;
    const allowance = new ClientAllowance({ now: () => now });
    expect(allowance.begin('a')).toBe(true);
    for (let mib = 1; mib < 256; mib++) expect(allowance.fetched('a', MIB)).toBe(true);
    expect(allowance.begin('a')).toBe(true);
    expect(allowance.fetched('a', MIB)).toBe(false);
    for (let fill = 0; fill < 2; fill++) allowance.end('a');
    expect(allowance.begin('a')).toBe(false);
    expect(allowance.begin('b')).toBe(true);
    now += HOUR / 2;
    expect(allowance.begin('a')).toBe(true);
    expect(allowance.fetched('a', 127 * MIB)).toBe(true);
    expect(allowance.fetched('a', MIB)).toBe(false);
    allowance.end('a');
    // Never more than one hour's worth is saved up.
    now += 10 * HOUR;
    expect(allowance.begin('a')).toBe(true);
    expect(allowance.fetched('a', 256 * MIB)).toBe(false);
  });

  test('of a client that may be fetched nothing more rest', () => {
    let over = false;
    const allowance = new ClientAllowance({ mayFetch: (client) => client !== 'a' || !over, now: () => 0 });
    expect(allowance.begin('a')).toBe(true);
    expect(allowance.fetched('a', 1)).toBe(true);
    over = true;
    expect(allowance.fetched('a', 1)).toBe(false);
    expect(allowance.begin('a')).toBe(false);
    expect(allowance.begin('b')).toBe(true);
  });

  test('of a flood of clients take bounded memory', () => {
    const allowance = new ClientAllowance({ now: () => 0 });
    for (let client = 0; client < 100_010; client++) {
      allowance.begin(`c${client}`);
      allowance.fetched(`c${client}`, 256 * MIB);
      allowance.end(`c${client}`);
    }
    expect(allowance.size).toBe(100_000);
    expect(allowance.begin('c100009')).toBe(false);
  });
});
