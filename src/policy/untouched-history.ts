import { contentId, type Digest, type RepositoryKey } from '../oci/names.ts';
import type { HistoryStore, Sightings } from './history-store.ts';

/** Tags that are remembered of one digest; `ImageHistory` asks for no more. */
const MAX_TAGS = 1_000;

type Read = Pick<HistoryStore, 'spans' | 'tags' | 'firstSeen' | 'tagsNaming'>;

/** What was learnt of content: the earliest sight and the tags of what names it. */
interface Learnt {
  first: number;
  readonly tags: Set<string>;
  readonly children: Set<Learnt>;
}

/**
 * A history in which nothing is written. What manifests name, which a gateway learns as it gives them, counts for whoever reads from this one, as it would
 * for a client that pulls; it is forgotten with it. Nothing counts as seen by that: what the store has not seen, nobody has.
 */
export class UntouchedHistory implements HistoryStore {
  readonly #store: Read;
  readonly #learnt = new Map<string, Learnt>();

  constructor(store: Read) {
    this.#store = store;
  }

  async record({ named }: Pick<Sightings, 'named'>): Promise<void> {
    for (const { parent, children, ...repository } of named) {
      const first = (await this.#store.firstSeen(repository, [parent])).get(parent) ?? Number.POSITIVE_INFINITY;
      const tags = await this.#store.tagsNaming(repository, parent, MAX_TAGS);
      const from = this.#of(repository, parent);
      for (const child of children) from.children.add(this.#of(repository, child));
      learn(from, first, tags);
      for (const child of from.children) learn(child, from.first, from.tags);
    }
  }

  spans(...asked: Parameters<HistoryStore['spans']>): ReturnType<HistoryStore['spans']> {
    return this.#store.spans(...asked);
  }

  tags(...asked: Parameters<HistoryStore['tags']>): ReturnType<HistoryStore['tags']> {
    return this.#store.tags(...asked);
  }

  async firstSeen(repository: RepositoryKey, digests: readonly Digest[]): Promise<ReadonlyMap<Digest, number>> {
    const found = new Map(await this.#store.firstSeen(repository, digests));
    for (const digest of digests) {
      const learnt = this.#learnt.get(contentId(repository, digest))?.first ?? Number.POSITIVE_INFINITY;
      const first = Math.min(learnt, found.get(digest) ?? Number.POSITIVE_INFINITY);
      if (Number.isFinite(first)) found.set(digest, first);
    }
    return found;
  }

  async tagsNaming(repository: RepositoryKey, digest: Digest, limit: number): Promise<readonly string[]> {
    const found = await this.#store.tagsNaming(repository, digest, limit);
    const learnt = this.#learnt.get(contentId(repository, digest))?.tags ?? [];
    return [...new Set([...found, ...learnt])].slice(0, limit);
  }

  async lastSeenBehind(): Promise<null> {
    return null;
  }

  async dropBefore(): Promise<boolean> {
    return false;
  }

  #of(repository: RepositoryKey, digest: Digest): Learnt {
    const id = contentId(repository, digest);
    const known = this.#learnt.get(id);
    if (known !== undefined) return known;
    const learnt = { first: Number.POSITIVE_INFINITY, tags: new Set<string>(), children: new Set<Learnt>() };
    this.#learnt.set(id, learnt);
    return learnt;
  }
}

/** What is new of it is so of all that is named by it, through indexes too. */
function learn(content: Learnt, first: number, tags: Iterable<string>): void {
  let isNew = first < content.first;
  if (isNew) content.first = first;
  for (const tag of tags) {
    if (content.tags.size >= MAX_TAGS) break;
    isNew ||= !content.tags.has(tag);
    content.tags.add(tag);
  }
  if (isNew) for (const child of content.children) learn(child, content.first, content.tags);
}
