import { expect, onTestFinished, test } from 'vitest';
import { CertificateRig, openListeners } from '../support/certificate-rig.ts';
import { TestClock } from '../support/clock.ts';
import { eventually } from '../support/eventually.ts';
import { FakeCa } from '../support/fake-ca/index.ts';

const HOST = 'hub.gw.test';
const PRESET = { host: 'quay.gw.test', order: true, onDemand: true };

/** A host that is served under an imported wildcard, and a preset of the table. */
async function imported() {
  const clock = new TestClock();
  const listeners = await openListeners();
  const options = { ports: listeners.ports, now: clock.now, lifetime: 45 * 24 * 3_600_000 };
  const ca = await new FakeCa(options).start();
  const other = await new FakeCa(options).start();
  onTestFinished(async () => void (await Promise.all([ca.stop(), other.stop()])));
  const rig = await CertificateRig.open(listeners, { issuers: [ca], clock });
  const { certificate, key } = other.issue('*.gw.test');
  await rig.service.importCertificate(certificate, key, true);
  await rig.start(HOST, PRESET);
  const serial = rig.service.info(HOST)?.serial;
  const meet = async (host: string) => {
    const { byHost, find, wildcard } = rig.service.contexts();
    return byHost.get(host) ?? (await find?.(host)) ?? wildcard?.('gw.test') ?? null;
  };
  return { ca, rig, serial, meet };
}

test('what was taken back is shown over restarts, until each host has another; then it leaves the store', async () => {
  const { ca, rig, serial, meet } = await imported();
  ca.faults.push({ at: 'newOrder', how: { status: 500, type: 'serverInternal', detail: 'later' } });
  expect(await rig.service.removeImported(HOST, false)).toMatchObject({
    stays: true,
    bare: [],
    hosts: [HOST, PRESET.host],
  });
  await rig.restart(HOST, PRESET);
  await eventually('an order that fails', async () => rig.service.info(HOST)?.lastError != null);
  expect(rig.service.info(HOST)).toMatchObject({ state: 'valid', serial });
  expect((await rig.service.explain(HOST)).summary).toContain('taken back');
  await expect(rig.service.removeImported(HOST, false)).rejects.toThrow(/taken back already/);
  // The preset is ordered when a client asks for it, and that client is given what there was where the order fails.
  const shown = await meet(PRESET.host);
  expect(shown).not.toBeNull();
  expect(shown).toBe(await meet(HOST));
  ca.faults.splice(0);
  expect((await rig.obtain(HOST, true)).error).toBeNull();
  expect(await meet(HOST)).not.toBe(shown);
  expect((await rig.store.certificates()).filter(({ source }) => source === 'import')).toHaveLength(1);
  expect((await rig.obtain(PRESET.host, true)).error).toBeNull();
  expect((await rig.store.certificates()).filter(({ source }) => source === 'import')).toEqual([]);
});

test('the first client of a preset is given its own certificate, not the one that was taken back', async () => {
  const { rig, serial, meet } = await imported();
  await rig.service.removeImported(HOST, false);
  expect(rig.service.info(PRESET.host)?.state).toBe('on demand');
  expect(await meet(PRESET.host)).not.toBeNull();
  expect(rig.service.info(PRESET.host)).toMatchObject({ state: 'valid' });
  expect(rig.service.info(PRESET.host)?.serial).not.toBe(serial);
});

test('with a key that others may have, nobody is shown it once more, nor is it kept', async () => {
  const { ca, rig, meet } = await imported();
  ca.faults.push({ at: 'newOrder', how: { status: 500, type: 'serverInternal', detail: 'later' } });
  // Also where it was taken back before.
  await rig.service.removeImported(HOST, false);
  expect(await rig.service.removeImported(HOST, true)).toMatchObject({ stays: false, bare: [HOST, PRESET.host] });
  expect(await rig.store.certificates()).toEqual([]);
  expect(await meet(HOST)).toBeNull();
  ca.faults.splice(0);
  expect(await meet(PRESET.host)).not.toBeNull();
});
