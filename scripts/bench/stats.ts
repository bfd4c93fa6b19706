/** The middle value: one lucky or one slow run must not move it. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}

/** Ratios pair by pair, so that a machine whose speed drifts during the run changes both sides of each pair. */
export function ratios(ours: readonly number[], theirs: readonly number[]): number[] {
  return ours.map((value, run) => value / (theirs[run] ?? Number.NaN));
}
