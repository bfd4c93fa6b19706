/**
 * Seconds of load. A server runs for months, and V8 compiles what it runs in steps, for longer than it seems: one that shakes hands had
 * its last step after 12 to 18 s of nothing else, and was a tenth cheaper then, though seconds before had been alike.
 */
const WARMING = 20;

/** Loads every peer alike, a second at a time, until it is as fast as it gets. */
export async function warmUp<P>(peers: readonly P[], load: (peer: P) => Promise<unknown>): Promise<void> {
  for (let second = 0; second < WARMING; second++) for (const peer of peers) await load(peer);
}
