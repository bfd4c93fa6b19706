import { expect, test } from 'vitest';
import { Schedule } from '../../../src/warm/schedule.ts';

const at = (text: string) => Date.parse(text);

test('five fields, in UTC', () => {
  const nightly = new Schedule('0 3 * * *');
  expect(nightly.after(at('2026-03-28T02:59:59Z'))).toBe(at('2026-03-28T03:00:00Z'));
  expect(nightly.after(at('2026-03-28T03:00:00Z'))).toBe(at('2026-03-29T03:00:00Z'));
  expect(new Schedule('*/15 8-9 * * mon-fri').after(at('2026-11-27T09:45:00Z'))).toBe(at('2026-11-30T08:00:00Z'));
});

test.each([
  ['', 'no cron expression'],
  ['0 3 * *', 'it has 4 fields, not five'],
  ['* * * * * *', 'it has 6 fields, not five'],
  ['bad', 'it has 1 field, not five'],
  ['61 * * * *', 'minute'],
  ['every night', 'no cron expression'],
  ['0 0 31 2 *', 'never comes'],
])('%j is refused in words', (expression, why) => {
  expect(() => new Schedule(expression)).toThrow(why);
});

test('jitter is within a tenth of the period and ten minutes, and the same each time for the same image and node', () => {
  const hourly = new Schedule('0 * * * *');
  const weekly = new Schedule('0 3 * * sun');
  const from = at('2026-11-28T00:00:00Z');
  const late = new Set<number>();
  for (let count = 0; count < 200; count++) {
    const who = `docker.io/library/app${count}:1`;
    const hour = hourly.dueAfter(from, who) - hourly.after(from);
    expect(hour).toBeGreaterThanOrEqual(0);
    expect(hour).toBeLessThan(6 * 60_000);
    const week = weekly.dueAfter(from, who) - weekly.after(from);
    expect(week).toBeLessThan(10 * 60_000);
    expect(weekly.dueAfter(from, who) - weekly.after(from)).toBe(week);
    late.add(Math.floor(week / 60_000));
  }
  // Spread over all of it.
  expect(late.size).toBe(10);
});
