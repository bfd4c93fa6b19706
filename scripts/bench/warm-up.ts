/** A server is warm when two seconds in a row differ by less than this share. */
const STEADY = 0.05;
/** Seconds of warming: V8 compiles what it runs in steps, and between two of them a server seems steady; a noisy machine never is. */
const WARM_MIN = 4;
const WARM_MAX = 12;

/** Loads every peer alike, `rate` for a second at a time, until it has become as fast as it gets. */
export async function warmUp<P>(peers: readonly P[], rate: (peer: P) => Promise<number>): Promise<void> {
  for (const peer of peers) {
    let last = 0;
    for (let second = 1; second <= WARM_MAX; second++) {
      const now = await rate(peer);
      if (second >= WARM_MIN && Math.abs(now - last) < STEADY * last) break;
      last = now;
    }
  }
}
