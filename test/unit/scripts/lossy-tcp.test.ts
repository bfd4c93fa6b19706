import { expect, it } from 'vitest';
import { LossyTcp, seeded } from '../../../scripts/bench/lossy-tcp.ts';

const SEGMENT = 1460;
const ENDLESS = 1024 ** 3;

/** Bytes a second that a connection brings over so many minutes. */
function rate(roundTrip: number, loss: number, minutes: number): number {
  const tcp = new LossyTcp({ roundTrip, loss }, seeded(1));
  let bytes = 0;
  let ms = 0;
  while (ms < minutes * 60_000) {
    const { arrived, next } = tcp.round(ENDLESS, () => {});
    bytes += arrived;
    ms += next;
  }
  return (bytes * 1000) / ms;
}

it.each([
  [200, 0.03],
  [100, 0.03],
  [200, 0.02],
])('a connection over %i ms that loses %f brings what the formula of Mathis et al. says', (roundTrip, loss) => {
  const expected = (SEGMENT * Math.sqrt(1.5)) / ((roundTrip / 1000) * Math.sqrt(loss));
  const found = rate(roundTrip, loss, 60);
  expect(found / expected).toBeGreaterThan(0.8);
  expect(found / expected).toBeLessThan(1.25);
});

it('what is sent arrives once, in order, and all of it', () => {
  const tcp = new LossyTcp({ roundTrip: 100, loss: 0.1 }, seeded(2));
  let waiting = 1_000_001;
  let arrived = 0;
  while (waiting > 0 || tcp.unfinished) {
    const round = tcp.round(waiting, (bytes) => {
      waiting -= bytes;
    });
    arrived += round.arrived;
  }
  expect(arrived).toBe(1_000_001);
});

it('without loss the window doubles every round trip', () => {
  const tcp = new LossyTcp({ roundTrip: 100, loss: 0 }, seeded(3));
  expect([1, 2, 3].map(() => tcp.round(ENDLESS, () => {}).arrived / SEGMENT)).toEqual([10, 20, 40]);
  expect(tcp.handshake()).toBe(100);
  expect(tcp.request()).toBe(50);
});
