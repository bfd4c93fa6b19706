interface Entry<T> {
  readonly thing: T;
  level: number;
  /** When it came to its level, ms. */
  since: number;
  /** For how long it counts as having been there before, ms. */
  headStart: number;
  /** Among those that came in the same moment. */
  order: number;
  /** In the heap. */
  at: number;
}

/**
 * Things with a level, the lowest first, in turns among those of one level: first who has been there longest, its head start included. A head start
 * is time, so that nobody is passed over for longer than others' may be. Every step takes the logarithm of how many there are.
 */
export class LeastFirst<T> {
  readonly #entries = new Map<T, Entry<T>>();
  /** A binary heap: nobody stands before the one at half its place. */
  readonly #heap: Entry<T>[] = [];
  #orders = 0;

  get size(): number {
    return this.#heap.length;
  }

  /**
   * Puts a thing behind all others of its level, or takes it out (`null`); one that is there already keeps its turn.
   * @param headStart for how long it counts as having been there before, ms
   */
  set(thing: T, level: number | null, headStart = 0): void {
    const entry = this.#entries.get(thing);
    if (level === null) {
      if (entry !== undefined) this.#remove(entry);
    } else if (entry === undefined) {
      const at = this.#heap.length;
      const added = { thing, level, since: performance.now(), headStart, order: this.#orders++, at };
      this.#entries.set(thing, added);
      this.#heap.push(added);
      this.#settle(added);
    } else {
      if (entry.level === level && entry.headStart === headStart) return;
      if (entry.level !== level) Object.assign(entry, { level, since: performance.now(), order: this.#orders++ });
      entry.headStart = headStart;
      this.#settle(entry);
    }
  }

  has(thing: T): boolean {
    return this.#entries.has(thing);
  }

  first(): T | undefined {
    return this.#heap[0]?.thing;
  }

  /** The head start of the first; 0 where there is none. */
  get headStart(): number {
    return this.#heap[0]?.headStart ?? 0;
  }

  #remove(entry: Entry<T>): void {
    this.#entries.delete(entry.thing);
    const last = this.#heap.pop();
    if (last === undefined || last === entry) return;
    this.#put(last, entry.at);
    this.#settle(last);
  }

  /** Moves an entry to where it belongs. */
  #settle(entry: Entry<T>): void {
    for (let above = this.#parent(entry); above !== undefined && isBefore(entry, above); above = this.#parent(entry)) {
      this.#swap(entry, above);
    }
    for (let below = this.#child(entry); below !== undefined && isBefore(below, entry); below = this.#child(entry)) {
      this.#swap(entry, below);
    }
  }

  #parent({ at }: Entry<T>): Entry<T> | undefined {
    return at === 0 ? undefined : this.#heap[(at - 1) >> 1];
  }

  /** The one of both below an entry that comes first. */
  #child({ at }: Entry<T>): Entry<T> | undefined {
    const left = this.#heap[2 * at + 1];
    const right = this.#heap[2 * at + 2];
    return left !== undefined && right !== undefined && isBefore(right, left) ? right : left;
  }

  #swap(one: Entry<T>, other: Entry<T>): void {
    const { at } = one;
    this.#put(one, other.at);
    this.#put(other, at);
  }

  #put(entry: Entry<T>, at: number): void {
    entry.at = at;
    this.#heap[at] = entry;
  }
}

function isBefore(one: Entry<unknown>, other: Entry<unknown>): boolean {
  if (one.level !== other.level) return one.level < other.level;
  const earlier = one.since - one.headStart - (other.since - other.headStart);
  return earlier === 0 ? one.order < other.order : earlier < 0;
}
