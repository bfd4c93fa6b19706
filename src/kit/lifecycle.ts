/** What was started, ended in the opposite order. One end that fails does not keep the others from ending. */
export class Lifecycle {
  readonly #ends: { readonly what: string; readonly end: () => unknown }[] = [];

  /** Remembers how to end what was just started. */
  defer(what: string, end: () => unknown): void {
    this.#ends.push({ what, end });
  }

  /** Ends everything that is left, newest first; `failed` hears of what went wrong. */
  async end(failed: (what: string, error: unknown) => void): Promise<void> {
    for (let next = this.#ends.pop(); next !== undefined; next = this.#ends.pop()) {
      try {
        await next.end();
      } catch (error) {
        failed(next.what, error);
      }
    }
  }
}
