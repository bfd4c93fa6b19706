import type { CertificateInfo, Narrator, Step } from './service.ts';

/** One attempt on its way, for one host: whoever asks meanwhile joins it, and hears what they missed. */
export class RunningAttempt {
  readonly done: Promise<CertificateInfo>;
  readonly #steps: Step[] = [];
  readonly #listeners = new Set<Narrator>();

  constructor(run: (narrate: Narrator) => Promise<CertificateInfo>) {
    this.done = run((step) => {
      this.#steps.push(step);
      for (const listener of this.#listeners) listener(step);
    });
    // Whoever waits handles the failure; where nobody does, it has been recorded.
    this.done.catch(() => {});
  }

  /** Waits for its end; an abort ends the waiting, not the attempt. */
  async join(narrate: Narrator, signal: AbortSignal | undefined): Promise<CertificateInfo> {
    for (const step of this.#steps) narrate(step);
    this.#listeners.add(narrate);
    const { promise: left, reject } = Promise.withResolvers<never>();
    const leave = () => reject(signal?.reason);
    signal?.addEventListener('abort', leave, { once: true });
    try {
      signal?.throwIfAborted();
      return await Promise.race([this.done, left]);
    } finally {
      signal?.removeEventListener('abort', leave);
      this.#listeners.delete(narrate);
    }
  }
}
