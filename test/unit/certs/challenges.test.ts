import { expect, it, onTestFinished, vi } from 'vitest';
import { PendingChallenges } from '../../../src/certs/challenges.ts';
import { selfSigned } from '../../../src/certs/x509.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { MemoryChallenges } from '../../support/challenges.ts';
import { TestClock } from '../../support/clock.ts';

const HOST = 'hub.example.com';
const marker = (host = HOST) => {
  const now = Date.now();
  const { chain, key } = selfSigned({ commonName: host, names: [host], notBefore: now, notAfter: now + 60_000 });
  return { chain, key };
};

async function open(store = new MemoryChallenges(), clock = new TestClock()) {
  const pending = await PendingChallenges.open(store, { clock, log: silentLog() });
  onTestFinished(() => pending.close());
  return { store, clock, pending };
}

it('answers on every node once the promise is resolved, until the answer is withdrawn', async () => {
  const { store, pending } = await open();
  const { pending: other } = await open(new MemoryChallenges(store));
  const withdrawHttp = await pending.http('token', 'token.thumbprint');
  const withdrawAlpn = await pending.alpn(HOST, marker());
  expect(pending.keyAuthorization('token')).toBe('token.thumbprint');
  expect(pending.alpnContexts.has(HOST)).toBe(true);
  await vi.waitFor(() => expect(other.alpnContexts.size).toBe(1));
  expect(other.keyAuthorization('token')).toBe('token.thumbprint');
  expect(other.keyAuthorization('another')).toBeNull();
  expect(other.alpnContexts.has('another.example.com')).toBe(false);
  await withdrawHttp();
  await withdrawAlpn();
  expect(pending.keyAuthorization('token')).toBeNull();
  expect(pending.alpnContexts.size).toBe(0);
  await vi.waitFor(() => expect(other.alpnContexts.size).toBe(0));
  expect(other.keyAuthorization('token')).toBeNull();
});

it('builds the context of a challenge once, whatever else comes and goes', async () => {
  const { pending } = await open();
  await pending.alpn(HOST, marker());
  const context = pending.alpnContexts.get(HOST);
  await pending.alpn('other.example.com', marker('other.example.com'));
  expect(pending.alpnContexts.get(HOST)).toBe(context);
});

it('forgets what a process that was killed left behind', async () => {
  const { store, clock, pending: killed } = await open();
  await killed.http('token', 'token.thumbprint');
  await killed.alpn(HOST, marker());
  await killed.close();
  const { pending } = await open(new MemoryChallenges(store), clock);
  expect(pending.keyAuthorization('token')).toBe('token.thumbprint');
  expect(pending.alpnContexts.size).toBe(1);
  clock.advance(15 * 60_000);
  await vi.waitFor(() => expect(pending.alpnContexts.size).toBe(0));
  expect(pending.keyAuthorization('token')).toBeNull();
});

it('answers the others where one has a certificate that TLS refuses', async () => {
  const { store, clock, pending } = await open();
  const { pending: other } = await open(new MemoryChallenges(store), clock);
  const expiresAt = clock.now() + 60_000;
  await store.put({ type: 'tls-alpn-01', host: HOST, chain: 'no', key: 'no', expiresAt });
  await pending.http('token', 'token.thumbprint');
  await vi.waitFor(() => expect(other.keyAuthorization('token')).toBe('token.thumbprint'));
  expect(other.alpnContexts.has(HOST)).toBe(false);
});
