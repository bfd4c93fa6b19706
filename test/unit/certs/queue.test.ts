import { expect, it } from 'vitest';
import { CaQueue, limitsOf } from '../../../src/certs/queue.ts';
import { temporaryCertStore } from '../../support/cert-store.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const CA = 'https://acme-v02.api.letsencrypt.org/directory';
const START = Date.parse('2026-01-01T00:00:00Z');

function open() {
  const store = temporaryCertStore();
  const time = { now: START };
  const queue = new CaQueue(store, () => time.now);
  const issue = (host: string, directory = CA) => {
    queue.ordered(directory, host, false);
    queue.ended(directory, host, 'certificate');
  };
  return { store, time, queue, issue, again: () => new CaQueue(store, () => time.now) };
}

it("holds an order back while Let's Encrypt's limit of a registered domain is full, and says when its turn comes", () => {
  const { queue, time, issue, again } = open();
  for (let n = 0; n < 50; n++) {
    expect(queue.turn(CA, `h${n}.example.com`)).toBeNull();
    issue(`h${n}.example.com`);
    time.now += 60_000;
  }
  const turn = queue.turn(CA, 'one-more.example.com');
  expect(turn).toEqual({
    at: START + 7 * DAY,
    why: expect.stringContaining('50 certificates for one registered domain'),
  });
  expect(queue.turn(CA, 'other.example.org')).toBeNull();
  expect(again().turn(CA, 'one-more.example.com')).toEqual(turn);
  time.now = START + 7 * DAY;
  expect(queue.turn(CA, 'one-more.example.com')).toBeNull();
});

it('counts orders that are on their way, too', () => {
  const { queue } = open();
  for (let n = 0; n < 50; n++) queue.ordered(CA, `h${n}.example.com`, false);
  expect(queue.turn(CA, 'one-more.example.com')?.at).toBe(START + 60_000);
  queue.ended(CA, 'h3.example.com', 'failed');
  expect(queue.turn(CA, 'one-more.example.com')).toBeNull();
});

it('allows five certificates for one name in a week, and five failed validations in an hour', () => {
  const { queue, time, issue } = open();
  for (let n = 0; n < 5; n++) issue('a.example.com');
  expect(queue.turn(CA, 'a.example.com')).toMatchObject({ at: START + 7 * DAY });
  expect(queue.turn(CA, 'b.example.com')).toBeNull();
  for (let n = 0; n < 5; n++) {
    queue.ordered(CA, 'b.example.com', false);
    queue.ended(CA, 'b.example.com', 'failedValidation');
  }
  expect(queue.turn(CA, 'b.example.com')).toMatchObject({ at: START + HOUR });
  time.now = START + HOUR;
  expect(queue.turn(CA, 'b.example.com')).toBeNull();
});

it('allows 300 orders in three hours', () => {
  const { queue } = open();
  for (let n = 0; n < 300; n++) {
    queue.ordered(CA, `h.d${n}.com`, false);
    queue.ended(CA, `h.d${n}.com`, 'failed');
  }
  expect(queue.turn(CA, 'new.example.com')).toMatchObject({ at: START + 3 * HOUR });
});

it('does not count renewals that follow ARI', () => {
  const { queue } = open();
  for (let n = 0; n < 60; n++) {
    queue.ordered(CA, 'a.example.com', true);
    queue.ended(CA, 'a.example.com', 'certificate');
  }
  expect(queue.turn(CA, 'a.example.com')).toBeNull();
});

it('knows no limits of other CAs, which tell them by 429', () => {
  const { queue, issue, store } = open();
  const other = 'https://ca.example/directory';
  for (let n = 0; n < 60; n++) issue('a.example.com', other);
  expect(queue.turn(other, 'a.example.com')).toBeNull();
  expect(store.ledger(other, 0)).toEqual([]);
  expect(limitsOf('https://acme-staging-v02.api.letsencrypt.org/directory')).toEqual([]);
});
