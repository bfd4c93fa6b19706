/** How long a condition is waited for, ms, where the caller does not say: long enough for a machine that is busy with other work. */
const TIMEOUT = 60_000;

/**
 * Asks again until `probe` neither throws nor returns false, and resolves to its answer.
 * @param what is waited for, in words, for the error
 * @throws after `ms` milliseconds; the last error of the probe is its cause
 */
export async function eventually<T>(what: string, probe: () => Promise<T> | T, ms = TIMEOUT): Promise<T> {
  const deadline = performance.now() + ms;
  for (;;) {
    let cause: unknown;
    try {
      const answer = await probe();
      if (answer !== false) return answer;
    } catch (error) {
      cause = error;
    }
    if (performance.now() > deadline) throw new Error(`waited ${ms} ms in vain: ${what}`, { cause });
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
