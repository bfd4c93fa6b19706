import type { Finding } from './finding.ts';

/** Deviation of the clock, ms, that is worth a warning, and one at which certificates and tokens are refused. */
const SKEW_WARN = 30_000;
const SKEW_FAIL = 5 * 60_000;

/** By the median of what servers say, so that one with a wrong clock changes nothing. @param skews their clocks minus ours, ms */
export function checkClock(skews: readonly number[], internal: boolean): Finding {
  const sorted = skews.toSorted((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  const name = 'clock';
  if (median === undefined) {
    return {
      name,
      level: 'warn',
      message: 'no server answered, so there is no clock to compare with',
      next: 'compare it by hand: date -u',
      because: 'no answer',
      outward: true,
    };
  }
  const off = Math.abs(median);
  const seconds = Math.round(off / 1000);
  if (off < SKEW_WARN) return { name, level: 'ok', message: `agrees with ${skews.length} servers` };
  const ahead = median < 0;
  const own = ahead && internal ? "; certificates that this gateway's CA signs now are not valid yet for others" : '';
  return {
    name,
    level: off < SKEW_FAIL ? 'warn' : 'fail',
    message: `is ${seconds} s ${ahead ? 'ahead of' : 'behind'} the clocks of ${skews.length} servers${own}`,
    next: 'let chrony or systemd-timesyncd set it (timedatectl set-ntp true): certificates and tokens depend on it',
  };
}
