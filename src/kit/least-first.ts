/** Things with a level, the lowest first, in turns among those of one level. Every step takes the same time, however many there are. */
export class LeastFirst<T> {
  readonly #levels: (Set<T> | undefined)[] = [];
  readonly #levelOf = new Map<T, number>();

  /** Puts a thing behind all others of its level, or takes it out. */
  set(thing: T, level: number | null): void {
    const before = this.#levelOf.get(thing);
    if (before === level) return;
    if (before !== undefined) this.#levels[before]?.delete(thing);
    if (level === null) {
      this.#levelOf.delete(thing);
      return;
    }
    this.#levelOf.set(thing, level);
    const things = this.#levels[level];
    if (things === undefined) this.#levels[level] = new Set([thing]);
    else things.add(thing);
  }

  has(thing: T): boolean {
    return this.#levelOf.has(thing);
  }

  first(): T | undefined {
    if (this.#levelOf.size === 0) return undefined;
    // Levels are numbers of permits: there are no more of them than permits.
    for (const things of this.#levels) if (things !== undefined && things.size > 0) return things.values().next().value;
    return undefined;
  }
}
