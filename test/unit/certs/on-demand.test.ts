import type { SecureContext } from 'node:tls';
import { expect, test } from 'vitest';
import { contextOf } from '../../../src/certs/contexts.ts';
import { OnDemandOrders } from '../../../src/certs/on-demand.ts';
import type { CertificateInfo } from '../../../src/certs/service.ts';
import { selfSigned } from '../../../src/certs/x509.ts';

const HOSTS = ['a.gw.test', 'b.gw.test', 'c.gw.test'];

/** Hosts on demand, and orders that end when the test says so. */
function open(wait = 60_000) {
  const byHost = new Map<string, SecureContext>();
  const released = new Map<string, SecureContext>();
  const failed = new Set<string>();
  const running: { host: string; end: (works: boolean) => void }[] = [];
  const begun: string[] = [];
  const closing = new AbortController();
  const onDemand = new OnDemandOrders({
    hosts: {
      isOnDemand: (host) => HOSTS.includes(host) && !byHost.has(host) && !failed.has(host),
      contexts: () => ({ byHost, fallback: null }),
      released: (host) => released.get(host) ?? null,
    },
    orders: {
      startOrJoin: (host) => {
        const { promise, resolve, reject } = Promise.withResolvers<CertificateInfo>();
        begun.push(host);
        const end = (works: boolean) => {
          running.splice(0, 1);
          if (!works) {
            failed.add(host);
            return reject(new Error('the CA refused'));
          }
          const validity = { notBefore: 0, notAfter: 1e13 };
          byHost.set(host, contextOf(selfSigned({ commonName: host, names: [host], ...validity })));
          return resolve({} as CertificateInfo);
        };
        running.push({ host, end });
        return { done: promise };
      },
    },
    signal: closing.signal,
    wait,
  });
  return { onDemand, running, begun, byHost, closing };
}

test('whoever asks for a host waits for its one order', async () => {
  const { onDemand, running, begun, byHost } = open();
  const asked = Promise.all([1, 2, 3].map(() => onDemand.find('a.gw.test')));
  await expect.poll(() => running.length).toBe(1);
  running[0]?.end(true);
  const contexts = await asked;
  expect(contexts).toEqual([1, 2, 3].map(() => byHost.get('a.gw.test')));
  expect(begun).toEqual(['a.gw.test']);
});

test('nothing is ordered for a host that is not on demand', async () => {
  const { onDemand, begun } = open();
  expect(await onDemand.find('stranger.gw.test')).toBeNull();
  expect(begun).toEqual([]);
});

test('orders run one at a time, and a failed one is not begun again by those who ask', async () => {
  const { onDemand, running, begun, byHost } = open();
  const asked = HOSTS.map((host) => onDemand.find(host));
  for (const [index, works] of [false, true, true].entries()) {
    await expect.poll(() => begun.length).toBe(index + 1);
    expect(running).toHaveLength(1);
    running[0]?.end(works);
  }
  expect(await Promise.all(asked)).toEqual([null, byHost.get(HOSTS[1] ?? ''), byHost.get(HOSTS[2] ?? '')]);
  expect(await onDemand.find(HOSTS[0] ?? '')).toBeNull();
  expect(begun).toEqual(HOSTS);
});

test('a client that has waited too long is let go, and the order goes on for the next', async () => {
  const { onDemand, running, begun, byHost } = open(20);
  expect(await onDemand.find('a.gw.test')).toBeNull();
  expect(await onDemand.find('a.gw.test')).toBeNull();
  running[0]?.end(true);
  await expect.poll(() => onDemand.find('a.gw.test')).toBe(byHost.get('a.gw.test'));
  expect(begun).toEqual(['a.gw.test']);
});

test('the end of the gateway ends the wait', async () => {
  const { onDemand, closing } = open();
  const asked = onDemand.find('a.gw.test');
  closing.abort();
  expect(await asked).toBeNull();
});
