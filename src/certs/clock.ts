/** Time, so that tests can let months pass. */
export interface Clock {
  /** Epoch milliseconds. */
  now(): number;
  /** Calls back once after `ms`; the function returned calls it off. */
  after(ms: number, call: () => void): () => void;
}

/** A timer keeps no process alive: the listeners do. */
export const systemClock: Clock = {
  now: Date.now,
  after(ms, call) {
    const timer = setTimeout(call, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
};
