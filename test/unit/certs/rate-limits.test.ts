import { expect, it } from 'vitest';
import { limitsOf, RateLimits } from '../../../src/certs/rate-limits.ts';
import { MemoryCertStore } from '../../support/cert-store.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const CA = 'https://acme-v02.api.letsencrypt.org/directory';
const START = Date.parse('2026-01-01T00:00:00Z');

function open() {
  const store = new MemoryCertStore();
  const time = { now: START };
  const limits = new RateLimits(store, () => time.now);
  const issue = async (host: string, directory = CA) => {
    await limits.ordered(directory, host, false);
    await limits.ended(directory, host, 'certificate');
  };
  return { store, time, limits, issue, again: () => new RateLimits(store, () => time.now) };
}

it("holds an order back while Let's Encrypt's limit of a registered domain is full, and says when its turn comes", async () => {
  const { limits, time, issue, again } = open();
  for (let n = 0; n < 50; n++) {
    expect(await limits.postponement(CA, `h${n}.example.com`)).toBeNull();
    await issue(`h${n}.example.com`);
    time.now += 60_000;
  }
  const postponed = await limits.postponement(CA, 'one-more.example.com');
  expect(postponed).toEqual({
    at: START + 7 * DAY,
    why: expect.stringContaining('50 certificates for one registered domain'),
  });
  expect(await limits.postponement(CA, 'other.example.org')).toBeNull();
  expect(await again().postponement(CA, 'one-more.example.com')).toEqual(postponed);
  time.now = START + 7 * DAY;
  expect(await limits.postponement(CA, 'one-more.example.com')).toBeNull();
});

it.each([
  ['a.example.co.uk', 'b.example.co.uk', true],
  ['example.co.uk', 'other.co.uk', false],
  // Of the list's private part.
  ['one.github.io', 'other.github.io', false],
  ['9.9.9.9', '9.9.9.10', false],
  ['2620:fe::fe', '2620:fe::9', true],
  ['2620:fe::fe', '2620:fe:0:1::9', false],
])('what the CA counts together: %s and %s, %s', async (one, other, together) => {
  const { limits, issue } = open();
  for (let n = 0; n < 50; n++) await issue(one);
  expect((await limits.postponement(CA, other)) !== null).toBe(together);
});

it('counts orders that are on their way, too', async () => {
  const { limits } = open();
  for (let n = 0; n < 50; n++) await limits.ordered(CA, `h${n}.example.com`, false);
  expect((await limits.postponement(CA, 'one-more.example.com'))?.at).toBe(START + 60_000);
  await limits.ended(CA, 'h3.example.com', 'failed');
  expect(await limits.postponement(CA, 'one-more.example.com')).toBeNull();
});

it('allows five certificates for one name in a week, and five failed validations in an hour', async () => {
  const { limits, time, issue } = open();
  for (let n = 0; n < 5; n++) await issue('a.example.com');
  expect(await limits.postponement(CA, 'a.example.com')).toMatchObject({ at: START + 7 * DAY });
  expect(await limits.postponement(CA, 'b.example.com')).toBeNull();
  for (let n = 0; n < 5; n++) {
    await limits.ordered(CA, 'b.example.com', false);
    await limits.ended(CA, 'b.example.com', 'failedValidation');
  }
  expect(await limits.postponement(CA, 'b.example.com')).toMatchObject({ at: START + HOUR });
  time.now = START + HOUR;
  expect(await limits.postponement(CA, 'b.example.com')).toBeNull();
});

it('allows 300 orders in three hours', async () => {
  const { limits } = open();
  for (let n = 0; n < 300; n++) {
    await limits.ordered(CA, `h.d${n}.com`, false);
    await limits.ended(CA, `h.d${n}.com`, 'failed');
  }
  expect(await limits.postponement(CA, 'new.example.com')).toMatchObject({ at: START + 3 * HOUR });
});

it('does not count renewals that follow ARI', async () => {
  const { limits } = open();
  for (let n = 0; n < 60; n++) {
    await limits.ordered(CA, 'a.example.com', true);
    await limits.ended(CA, 'a.example.com', 'certificate');
  }
  expect(await limits.postponement(CA, 'a.example.com')).toBeNull();
});

it('knows no limits of other CAs, which tell them by 429', async () => {
  const { limits, issue, store } = open();
  const other = 'https://ca.example/directory';
  for (let n = 0; n < 60; n++) await issue('a.example.com', other);
  expect(await limits.postponement(other, 'a.example.com')).toBeNull();
  expect(await store.ledger(other, 0)).toEqual([]);
  expect(limitsOf('https://acme-staging-v02.api.letsencrypt.org/directory')).toEqual([]);
});
