interface Waiter {
  readonly wholeReply: boolean;
  readonly listener: () => void;
}

/** Readers that wait for a byte each: whoever brings bytes wakes those that can go on, not all that are there. */
export class Waiters {
  readonly #byOffset = new Map<number, Set<Waiter>>();

  /** @returns what ends the wait */
  add(offset: number, wholeReply: boolean, listener: () => void): () => void {
    const waiter = { wholeReply, listener };
    const there = this.#byOffset.get(offset);
    if (there === undefined) this.#byOffset.set(offset, new Set([waiter]));
    else there.add(waiter);
    return () => {
      const left = this.#byOffset.get(offset);
      left?.delete(waiter);
      if (left?.size === 0) this.#byOffset.delete(offset);
    };
  }

  /** Wakes, of those whose offset `concerns` names, who can read there now. */
  wake(concerns: (offset: number) => boolean, canRead: (offset: number, wholeReply: boolean) => boolean): void {
    for (const [offset, waiters] of [...this.#byOffset]) {
      if (!concerns(offset)) continue;
      for (const waiter of [...waiters]) {
        if (!canRead(offset, waiter.wholeReply)) continue;
        waiters.delete(waiter);
        waiter.listener();
      }
      if (waiters.size === 0 && this.#byOffset.get(offset) === waiters) this.#byOffset.delete(offset);
    }
  }

  /** Wakes everybody. */
  wakeAll(): void {
    const all = [...this.#byOffset.values()];
    this.#byOffset.clear();
    for (const waiters of all) for (const { listener } of waiters) listener();
  }
}
