import { expect, it, onTestFinished } from 'vitest';
import { ManagedHosts } from '../../../src/certs/managed-hosts.ts';
import { emptyRecord, type HostRecord } from '../../../src/certs/store.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { MemoryCertStore } from '../../support/cert-store.ts';
import { TestClock } from '../../support/clock.ts';

const HOST = 'hub.example.com';

/** A store whose disk is full: what is there can be read. */
class FullStore extends MemoryCertStore {
  full = false;

  override async putRecord(record: HostRecord): Promise<void> {
    if (this.full) throw new Error('the disk is full');
    await super.putRecord(record);
  }
}

it('keeps what could not be stored of a host, whatever is read again', async () => {
  const store = new FullStore();
  const other = new MemoryCertStore(store);
  const hosts = await ManagedHosts.open({ store, domain: HOST, clock: new TestClock(), log: silentLog() });
  onTestFinished(() => hosts.close());
  await hosts.putRecord({ ...emptyRecord(HOST), failures: 1 });
  store.full = true;
  await expect(hosts.putRecord({ ...emptyRecord(HOST), failures: 2 })).rejects.toThrow('full');
  await hosts.refresh(HOST);
  expect(hosts.record(HOST).failures).toBe(2);
  store.full = false;
  await hosts.putRecord({ ...emptyRecord(HOST), failures: 3 });
  await other.putRecord({ ...emptyRecord(HOST), failures: 4 });
  await hosts.refresh(HOST);
  expect(hosts.record(HOST).failures).toBe(4);
});
