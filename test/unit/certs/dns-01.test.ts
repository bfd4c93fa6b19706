import { pino } from 'pino';
import { expect, it } from 'vitest';
import { DnsChallenges, type DnsRecord, type DnsZones } from '../../../src/certs/dns-01.ts';
import { MemoryChallenges } from '../../support/challenges.ts';
import { TestClock } from '../../support/clock.ts';
import { LockTable, MemoryLocks } from '../../support/locks.ts';

const HOST = 'cr.example.com';
const signal = new AbortController().signal;

/** Zones in which every provider sees what any has put, and some changes fail. */
function zonesOf(kind: string, records: Set<string>): DnsZones & { fails: boolean } {
  const key = ({ name, value }: DnsRecord) => `${name} ${value}`;
  return {
    kind,
    fails: false,
    provider: `${kind} of this test`,
    find: async (host) => ({ zone: 'example.com', name: `_acme-challenge.${host}`, via: [`_acme-challenge.${host}`] }),
    async add(record) {
      records.add(key(record));
    },
    async remove(record) {
      if (this.fails) throw new Error('the credentials are gone');
      records.delete(key(record));
    },
    settle: async () => [],
    check: async () => {},
  };
}

function open(zones: DnsZones | null) {
  const table = new LockTable();
  const locks = new MemoryLocks(table);
  const lines: { level: number; provider?: string; name?: string }[] = [];
  const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const challenges = new MemoryChallenges(table);
  const clock = new TestClock();
  const dns = new DnsChallenges({ challenges, zones, locks, clock, log, signal });
  const put = async (value: string) => {
    const lock = await locks.acquire(`order ${HOST}`, { leaseMs: 60_000 });
    const withdraw = await dns.put({ order: HOST, host: HOST, value, under: lock, onStep: () => {}, signal });
    await lock.release();
    return withdraw;
  };
  const left = () => challenges.list(clock.now());
  return { dns, challenges, put, left, lines };
}

it('leaves what another provider has put, says so once, and removes it once that is back', async () => {
  const records = new Set<string>();
  const first = zonesOf('cloudflare', records);
  const { dns, put, left, lines } = open(first);
  const withdraw = await put('one');
  first.fails = true;
  await withdraw();
  expect(await left()).toMatchObject([{ provider: 'cloudflare', name: `_acme-challenge.${HOST}` }]);
  lines.length = 0;
  for (const other of [zonesOf('exec', records), null]) {
    dns.use(other);
    dns.sweep();
    await dns.idle();
    await dns.clear(HOST);
  }
  expect(records.size).toBe(1);
  expect(lines).toMatchObject([{ level: 40, provider: 'cloudflare', name: `_acme-challenge.${HOST}` }]);
  first.fails = false;
  dns.use(first);
  dns.sweep();
  await dns.idle();
  expect([records.size, await left()]).toEqual([0, []]);
});

it('tries what was stored before the provider was', async () => {
  const records = new Set<string>();
  const { dns, challenges, left } = open(zonesOf('exec', records));
  const place = { zone: 'example.com', name: `_acme-challenge.${HOST}`, value: 'old' };
  records.add(`${place.name} old`);
  await challenges.put({ type: 'dns-01', host: HOST, ...place, expiresAt: Date.now() + 60_000 });
  dns.sweep();
  await dns.idle();
  expect([records.size, await left()]).toEqual([0, []]);
});
