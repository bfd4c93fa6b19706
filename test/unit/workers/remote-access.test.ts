import { describe, expect, test } from 'vitest';
import type { Counter } from '../../../src/access/counters.ts';
import { Quotas } from '../../../src/access/quotas.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { AccessHost } from '../../../src/workers/access-host.ts';
import { RemoteAccess } from '../../../src/workers/remote-access.ts';
import { MemoryCounterStore } from '../../support/access-stores.ts';
import { channelPair } from '../../support/channel-pair.ts';
import { eventually } from '../../support/eventually.ts';

const MIB = 1024 * 1024;
const reply = (bytes: number) => ({ bytes, fetched: false });

/** An owner that counts, and its workers. */
async function owner(bytesPerDay: number | null, bytesPerMonth: number | null = null) {
  const store = new MemoryCounterStore();
  const clocks = { now: () => Date.UTC(2026, 10, 22), monotonic: () => 0 };
  const quota = await Quotas.open({ bytesPerDay, bytesPerMonth, store, clocks });
  return {
    quota,
    worker() {
      const channels = channelPair();
      new AccessHost({ check: () => null, used: () => {}, quota }, channels.owner);
      const access = new RemoteAccess(channels.worker);
      return { quota: access.quota, cut: channels.cut };
    },
    /** What the clients were sent, as it will be after a restart. */
    async counted(): Promise<Counter[]> {
      await quota.flush();
      return store.load(['2026-11-22']);
    },
  };
}

describe('quotas of several processes', () => {
  test('are one: what one sets aside is not there for another, and is there again when it is given back', async () => {
    const one = await owner(100);
    const [first, second] = [one.worker(), one.worker()];
    const reservation = await first.quota.reserve('a', reply(60));
    const refused = await Promise.resolve(second.quota.reserve('a', reply(41))).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(RegistryError);
    expect((refused as RegistryError).message).toContain('40 of them are left');
    reservation.sent(10);
    reservation.close();
    await eventually('it is given back', async () => (await one.counted())[0]?.bytes === 10);
    (await second.quota.reserve('a', reply(90))).close();
  });

  test('give back what a worker that died had not sent, and keep what it had', async () => {
    const one = await owner(100 * MIB);
    const worker = one.worker();
    const reservation = await worker.quota.reserve('a', reply(100 * MIB));
    for (let sent = 0; sent < 10; sent++) reservation.sent(MIB);
    await eventually('the owner knows', async () => (await one.counted())[0]?.bytes === 10 * MIB);
    expect(() => one.quota.reserve('a', reply(1))).toThrow('0 of them are left');
    worker.cut();
    expect(() => one.quota.reserve('a', reply(90 * MIB + 1))).toThrow(`${90 * MIB} of them are left`);
    one.quota.reserve('a', reply(90 * MIB)).close();
    expect(await one.counted()).toEqual([{ period: '2026-11-22', client: 'a', bytes: 10 * MIB }]);
  });

  test('cut a worker’s body where the month ends although it was set aside', async () => {
    const one = await owner(null, 10 * MIB);
    const worker = one.worker();
    const lazy = await worker.quota.reserve('lazy', reply(10 * MIB));
    const honest = await one.quota.reserve('honest', reply(5 * MIB));
    honest.sent(5 * MIB);
    for (let sent = 0; sent < 5; sent++) lazy.sent(MIB);
    await eventually('the owner has said so', () => !lazy.sent(1));
    lazy.close();
  });

  test('a worker that does not know yet that the limits were taken away gets what it asks for', async () => {
    const channels = channelPair();
    new AccessHost({ check: () => null, used: () => {}, quota: null }, channels.owner);
    const reserved = await new RemoteAccess(channels.worker).quota.reserve('one', reply(5 * MIB));
    expect(reserved.bytes).toBe(5 * MIB);
    expect(reserved.sent(5 * MIB)).toBe(true);
    reserved.close();
  });
});
