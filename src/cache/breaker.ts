/** Failures in a row after which a service is left alone: one may be a request's own trouble. */
const FAILURES = 3;
/** … or one request that had no answer in time: each more would cost its client as long. */
const PAUSE = 10_000;

/** A service was not asked, since it failed a moment ago. */
export class LeftAlone extends Error {
  override readonly name = 'LeftAlone';
}

/** A service did not answer in time. */
class NoAnswer extends Error {
  override readonly name = 'NoAnswer';
}

/** What is no failure of the service. */
export interface BreakerOptions {
  /** For messages. */
  readonly service: string;
  /** An error that is an answer: the service works. */
  readonly isAnswer?: (error: unknown) => boolean;
  /** Called when it is left alone from now on, and when it works again. */
  readonly changed?: (works: boolean, error: unknown) => void;
  readonly pauseMs?: number;
}

/**
 * Keeps pulls from waiting for a service that is away: each question has its time, and a service that failed is left alone for a while; then one
 * question tries it, and the others follow once that was answered.
 */
export class Breaker {
  readonly #options: BreakerOptions;
  #failures = 0;
  #until = 0;
  #trying = false;

  constructor(options: BreakerOptions) {
    this.#options = options;
  }

  /** Whether the next question would be asked. */
  get ready(): boolean {
    return this.#until === 0 || (performance.now() >= this.#until && !this.#trying);
  }

  get works(): boolean {
    return this.#until === 0;
  }

  /**
   * Asks, and waits no longer than `withinMs` for the answer. The signal that the task is given ends what it began.
   * @throws {LeftAlone} where it was not asked; the task's error
   */
  async ask<T>(task: (signal: AbortSignal) => Promise<T>, signal: AbortSignal, withinMs: number): Promise<T> {
    signal.throwIfAborted();
    if (!this.ready) throw new LeftAlone(`${this.#options.service} failed a moment ago`);
    const isTrial = this.#until !== 0;
    if (isTrial) this.#trying = true;
    const late = new AbortController();
    const timer = setTimeout(
      () => late.abort(new NoAnswer(`${this.#options.service} did not answer within ${withinMs} ms`)),
      withinMs,
    );
    const ended = AbortSignal.any([signal, late.signal]);
    let onEnd = (): void => {};
    // Statements of a database that stands still do not end when they are told to.
    const givenUp = new Promise<never>((_, reject) => {
      onEnd = () => reject(ended.reason as Error);
      ended.addEventListener('abort', onEnd, { once: true });
    });
    try {
      const answer = await Promise.race([task(ended), givenUp]);
      this.#worked();
      return answer;
    } catch (error) {
      const reason = late.signal.aborted ? (late.signal.reason as Error) : error;
      if (this.#options.isAnswer?.(error) === true) this.#worked();
      else if (!signal.aborted) this.failed(reason);
      throw reason;
    } finally {
      clearTimeout(timer);
      ended.removeEventListener('abort', onEnd);
      if (isTrial) this.#trying = false;
    }
  }

  /** It failed in the middle of what it had begun to give. */
  failed(error: unknown): void {
    this.#failures += error instanceof NoAnswer || this.#until !== 0 ? FAILURES : 1;
    if (this.#failures < FAILURES) return;
    const before = this.#until;
    this.#until = performance.now() + (this.#options.pauseMs ?? PAUSE);
    if (before === 0) this.#options.changed?.(false, error);
  }

  #worked(): void {
    const before = this.#until;
    this.#failures = 0;
    this.#until = 0;
    if (before !== 0) this.#options.changed?.(true, undefined);
  }
}
