/** Spreads a wait over ±`share` of itself, so that many waiters do not return at the same moment. */
export function jitter(ms: number, share = 0.2, random: () => number = Math.random): number {
  return ms * (1 + share * (2 * random() - 1));
}
