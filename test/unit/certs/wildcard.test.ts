import { expect, it, onTestFinished } from 'vitest';
import { HostStatus } from '../../../src/certs/host-status.ts';
import { ManagedHosts } from '../../../src/certs/managed-hosts.ts';
import type { StoredCertificate } from '../../../src/certs/store.ts';
import { readMaterial, selfSigned } from '../../../src/certs/x509.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { MemoryCertStore } from '../../support/cert-store.ts';
import { TestClock } from '../../support/clock.ts';

const DOMAIN = 'cr.example.com';
const WILDCARD = `*.${DOMAIN}`;
const HUB = `hub.${DOMAIN}`;
const PRESET = `quay.${DOMAIN}`;
const DAY = 86_400_000;

/** One for these names, the first of which it is kept under. */
function issued(clock: TestClock, names: readonly string[], days: number): StoredCertificate {
  const now = clock.now();
  const made = selfSigned({ commonName: 'CA', names, notBefore: now - 1_000, notAfter: now + days * DAY });
  const name = names[0] ?? '';
  const directory = 'https://ca.example.com/directory';
  return { ...readMaterial(made.chain, made.key), source: 'acme', name, directory, obtainedAt: now };
}

async function open({ wildcard, days = 90 }: { wildcard: boolean; days?: number }) {
  const clock = new TestClock();
  const store = new MemoryCertStore();
  const wide = issued(clock, [WILDCARD, DOMAIN], days);
  await store.putCertificate(wide);
  const hosts = await ManagedHosts.open({ store, domain: DOMAIN, clock, log: silentLog() });
  onTestFinished(() => hosts.close());
  hosts.useWildcard(wildcard, true);
  hosts.cover([
    { host: DOMAIN, order: true },
    { host: HUB, order: true },
    { host: PRESET, order: true, onDemand: true },
  ]);
  const other = new MemoryCertStore(store);
  /** The host's own, as another process brings it. */
  const bring = async (host: string, days = 90) => {
    await other.putCertificate(issued(clock, [host], days));
    await hosts.refresh(host);
  };
  return { clock, hosts, status: new HostStatus(hosts, clock), bring, wide };
}

it('covers the domain and its labels with one row, and nothing deeper', async () => {
  const { hosts, status, wide } = await open({ wildcard: true });
  expect(status.info(WILDCARD)).toMatchObject({ state: 'valid', covers: 3, serial: wide.serial });
  expect(status.info(HUB)).toMatchObject({ state: 'valid', coveredBy: WILDCARD });
  expect([...hosts.hosts].filter((host) => !status.isInWildcard(host))).toEqual([WILDCARD]);
  expect(hosts.orderFor(`a.b.${DOMAIN}`)).toBe(`a.b.${DOMAIN}`);
  expect(status.dueAt(HUB)).toBeNull();
  expect(status.explain(HUB, [], []).summary).toContain(`under the certificate for ${DOMAIN} and ${WILDCARD}`);
});

it('is renewed after the way back, as long as a host waits for its own; what is on demand does not count', async () => {
  const { clock, hosts, status, bring } = await open({ wildcard: false });
  expect([...hosts.hosts]).toContain(WILDCARD);
  expect(status.info(WILDCARD)?.state).toBe('valid');
  expect(status.dueAt(WILDCARD)).toBeGreaterThan(clock.now());
  expect(status.dueAt(HUB)).toBe(0);
  await bring(DOMAIN);
  expect([...hosts.hosts]).toContain(WILDCARD);
  await bring(HUB);
  expect([...hosts.hosts]).toEqual([DOMAIN, HUB, PRESET]);
  expect(status.info(WILDCARD)).toBeNull();
  // Still good until a client asks for it by then.
  expect(status.info(PRESET)).toMatchObject({ state: 'valid', coveredBy: WILDCARD, nextAttempt: null });
});

it('is not renewed where nothing proves it any more', async () => {
  const { hosts, status } = await open({ wildcard: false });
  hosts.useWildcard(false, false);
  expect([...hosts.hosts]).not.toContain(WILDCARD);
  expect(status.info(HUB)?.state).toBe('valid');
});

it('has run out: an own one is shown in its place, else it is; what is on demand is ordered at its first use', async () => {
  const { clock, hosts, status, bring } = await open({ wildcard: false, days: 1 });
  await bring(HUB);
  expect(hosts.contexts().wildcards?.has(DOMAIN)).toBe(true);
  clock.advance(2 * DAY);
  expect(hosts.contexts().wildcards?.has(DOMAIN)).toBe(false);
  expect(status.info(HUB)).toMatchObject({ state: 'valid' });
  expect(status.info(HUB)).not.toHaveProperty('coveredBy');
  expect(status.info(DOMAIN)?.state).toBe('expired');
  expect(status.info(PRESET)?.state).toBe('on demand');
  expect(hosts.contexts().waiting?.has(PRESET)).toBe(true);
  hosts.useWildcard(true, true);
  expect(status.info(HUB)).toMatchObject({ state: 'valid' });
});

it('gives way to an imported one, and comes back when that is removed', async () => {
  const { clock, hosts, status } = await open({ wildcard: true });
  const own = selfSigned({
    commonName: 'Corp',
    names: [WILDCARD, DOMAIN],
    notBefore: clock.now() - 1_000,
    notAfter: clock.now() + 90 * DAY,
  });
  await hosts.importCertificate(own.chain, own.key, true);
  expect(status.info(WILDCARD)).toMatchObject({ state: 'valid', issuer: 'Corp', covers: 3 });
  expect(status.info(HUB)).toMatchObject({ issuer: 'Corp' });
  expect(status.info(HUB)).not.toHaveProperty('coveredBy');
  await hosts.removeImported(HUB, false);
  expect(status.info(HUB)).toMatchObject({ issuer: 'CA', coveredBy: WILDCARD });
});
