import { describe, expect, it } from 'vitest';
import { checkAfterFailure, firstCheck, recordRenewal, renewalTime } from '../../../src/certs/schedule.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const START = Date.parse('2026-01-01T00:00:00Z');
const certificate = (life: number, fingerprint = 'ff'.repeat(32)) => ({
  notBefore: START,
  notAfter: START + life,
  fingerprint,
});
const earliest = (life: number) => renewalTime(certificate(life), null) - START;
const latest = (life: number) => renewalTime(certificate(life, '00'.repeat(32)), null) - START;

describe('without ARI', () => {
  it.each([90, 64, 45])('renews certificates of %i days when about a third of their life is left', (days) => {
    expect(latest(days * DAY) / DAY).toBeCloseTo((days * 2) / 3);
    expect(earliest(days * DAY) / DAY).toBeCloseTo(days * (2 / 3 - 1 / 30));
  });

  it.each([160 * HOUR, MINUTE, 30_000])('renews those of %i ms at about half', (life) => {
    expect(latest(life) / life).toBeCloseTo(1 / 2);
    expect(earliest(life) / life).toBeCloseTo(1 / 2 - 1 / 30);
  });

  it('keeps the moment of a certificate over restarts', () => {
    const one = certificate(90 * DAY, `ab12cd34${'00'.repeat(28)}`);
    expect(renewalTime(one, null)).toBe(renewalTime({ ...one }, null));
  });
});

describe('with ARI', () => {
  const one = certificate(90 * DAY);
  const info = { windowStart: START + 50 * DAY, windowEnd: START + 54 * DAY, explanation: null, retryAfter: 6 * HOUR };

  it('chooses a moment in the window, and keeps it while the window stays', () => {
    const first = recordRenewal(one, info, null, START, () => 0.25);
    expect(first.renewAt).toBe(START + 51 * DAY);
    expect(first.checkAt).toBe(START + 6 * HOUR);
    expect(renewalTime(one, first)).toBe(START + 51 * DAY);
    expect(recordRenewal(one, info, first, START + DAY, () => 0.9).renewAt).toBe(first.renewAt);
    const moved = recordRenewal(one, { ...info, windowEnd: START + 52 * DAY }, first, START + DAY, () => 0.5);
    expect(moved.renewAt).toBe(START + 51 * DAY);
    expect(
      recordRenewal(one, { ...info, windowStart: START, windowEnd: START + 1 }, first, START + DAY).renewAt,
    ).toBeLessThan(START + 2);
  });

  it('does not follow a window for another certificate', () => {
    const record = recordRenewal(certificate(90 * DAY, 'aa'.repeat(32)), info, null, START, () => 0);
    expect(renewalTime(one, record)).toBe(renewalTime(one, null));
  });

  it('never waits until the end, whatever is suggested', () => {
    const record = recordRenewal(
      one,
      { ...info, windowStart: START + 100 * DAY, windowEnd: START + 101 * DAY },
      null,
      START,
    );
    expect(renewalTime(one, record)).toBe(START + 90 * DAY - 4.5 * DAY);
  });

  it.each([
    [1_000, MINUTE],
    [HOUR, HOUR],
    [30 * DAY, DAY],
    [null, 6 * HOUR],
  ])('asks again after %j ms of Retry-After within a minute and a day', (retryAfter, expected) => {
    expect(recordRenewal(one, { ...info, retryAfter }, null, START).checkAt - START).toBe(expected);
  });

  it('asks often enough about certificates of a minute', () => {
    const short = certificate(MINUTE);
    expect(recordRenewal(short, { ...info, retryAfter: 1_000 }, null, START).checkAt - START).toBe(3_000);
    expect(firstCheck(short)).toBeLessThanOrEqual(3_000);
    expect(firstCheck(one)).toBeLessThanOrEqual(MINUTE);
    expect(checkAfterFailure(one)).toBe(HOUR);
  });
});
