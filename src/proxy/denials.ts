/** Denials remembered by repository. Beyond them all that came before the oldest is forgotten together with it: that costs look-ups, no requests. */
const MAX_DENIALS = 10_000;

/**
 * When registries denied repositories, for those who keep replies in memory: what was given before a denial may not be given again. Moments
 * are counted, not timed. A client cannot fill it with names: only a denial of what was known counts.
 */
export class Denials {
  readonly #last = new Map<string, number>();
  readonly #max: number;
  readonly #listeners = new Set<(repository: string) => void>();
  #now = 0;
  /** Of the newest denial that is no longer remembered by repository. */
  #forgotten = 0;

  constructor(max = MAX_DENIALS) {
    this.#max = max;
  }

  /** This moment, to be given to `since` later. */
  get now(): number {
    return this.#now;
  }

  /** A moment of its own, for something else that happened. */
  tick(): number {
    return ++this.#now;
  }

  /** @param repository as `repositoryId` names it */
  add(repository: string): void {
    this.#now++;
    this.#last.delete(repository);
    this.#last.set(repository, this.#now);
    for (const [oldest, at] of this.#last) {
      if (this.#last.size <= this.#max) break;
      this.#last.delete(oldest);
      this.#forgotten = at;
    }
    for (const listener of this.#listeners) listener(repository);
  }

  /** Whether the repository was denied after that moment. */
  since(moment: number, repository: string): boolean {
    if (moment === this.#now) return false;
    return moment < this.#forgotten || (this.#last.get(repository) ?? 0) > moment;
  }

  /** Calls with each denial. The function returned ends that. */
  subscribe(listener: (repository: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
