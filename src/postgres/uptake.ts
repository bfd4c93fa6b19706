import type { PostgresFeed } from './feed.ts';

/** What nodes hold in memory of the shared state, and so have to take into use after each change. */
export const TOPICS = ['aliases', 'users', 'certificates', 'challenges'] as const;
export type Topic = (typeof TOPICS)[number];

/** The revision of each topic. */
export type Revisions = Readonly<Record<string, number>>;

/**
 * Which revisions of the shared state this process has loaded. A topic that nobody here watches is nothing that this process could serve by, and so
 * is as new as what was heard of it.
 */
export class Uptake {
  readonly #feed: Pick<PostgresFeed, 'revision'>;
  readonly #topics = new Map<
    Topic,
    { running: number; from: number | null; loaded: number; readonly watchers: Set<() => void> }
  >();
  readonly #listeners = new Set<() => void>();

  constructor(feed: Pick<PostgresFeed, 'revision'>) {
    this.#feed = feed;
    for (const topic of TOPICS) this.#topics.set(topic, { running: 0, from: 0, loaded: 0, watchers: new Set() });
  }

  /** Loads something of a topic, and notes what revision that was, once all is there that is loaded at the same time. Rejects as `read` does. */
  async load<T>(topic: Topic, read: () => Promise<T>): Promise<T> {
    const state = this.#of(topic);
    // What is read from now on is of this revision, or of a later one.
    if (state.running === 0) state.from = this.#feed.revision(topic);
    state.running++;
    try {
      const value = await read();
      // Less than before where the database was put back to an older state.
      if (state.running === 1 && state.from !== null && state.from !== state.loaded) {
        state.loaded = state.from;
        for (const listener of this.#listeners) listener();
      }
      return value;
    } catch (error) {
      // Its part of what is loaded together is missing.
      state.from = null;
      throw error;
    } finally {
      state.running--;
    }
  }

  /** Remembers who watches a topic, so that they hear of what is changed here, too. The function returned calls `unwatch`. */
  watch(topic: Topic, listener: () => void, unwatch: () => void): () => void {
    const { watchers } = this.#of(topic);
    watchers.add(listener);
    return () => {
      watchers.delete(listener);
      unwatch();
    };
  }

  /** This process has changed the topic: its holders load it again, and so learn which revision they serve by. */
  changed(topic: Topic): void {
    for (const listener of [...this.#of(topic).watchers]) listener();
  }

  /** Has all that is not what was heard of last loaded anew: the database is back, and a load may have failed meanwhile. */
  catchUp(): void {
    for (const topic of TOPICS) if (this.#of(topic).loaded !== this.#feed.revision(topic)) this.changed(topic);
  }

  /** Calls `listener` after another revision was loaded. */
  onLoad(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Whether all that was heard of is loaded. */
  isCurrent(): boolean {
    const revisions = this.revisions();
    return TOPICS.every((topic) => revisions[topic] === this.#feed.revision(topic));
  }

  revisions(): Revisions {
    return Object.fromEntries(
      TOPICS.map((topic) => {
        const { watchers, loaded } = this.#of(topic);
        return [topic, watchers.size > 0 ? loaded : this.#feed.revision(topic)];
      }),
    );
  }

  #of(topic: Topic) {
    const state = this.#topics.get(topic);
    if (state === undefined) throw new Error(`${topic} is no topic`);
    return state;
  }
}
