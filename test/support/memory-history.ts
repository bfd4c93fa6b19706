import type { Fence } from '../../src/kit/locks.ts';
import { contentId, type Digest, type RepositoryKey, repositoryId } from '../../src/oci/names.ts';
import {
  type HistoryStore,
  MAX_SPANS,
  type NewestOfTag,
  placeSighting,
  type Sightings,
  type TagSpan,
} from '../../src/policy/history-store.ts';
import { LockTable } from './locks.ts';

interface Span {
  readonly repository: string;
  readonly tag: string;
  readonly variant: string;
  readonly digest: Digest;
  from: number;
  to: number;
}

interface Sight {
  readonly repository: string;
  readonly digest: Digest;
  first: number;
  last: number;
  readonly children: Set<Sight>;
}

class Backing {
  /** The newest first. */
  spans: Span[] = [];
  readonly sights = new Map<string, Sight>();
}

/** What was seen of images, in memory. */
export class MemoryHistoryStore implements HistoryStore {
  readonly #backing: Backing;
  readonly #locks: LockTable;

  constructor(locks = new LockTable(), backing = new Backing()) {
    this.#locks = locks;
    this.#backing = backing;
  }

  /** Another holder of the same. */
  another(): MemoryHistoryStore {
    return new MemoryHistoryStore(this.#locks, this.#backing);
  }

  async record({ tags, seen, named }: Sightings): Promise<void> {
    for (const each of tags) this.#recordTag(each);
    for (const { digest, at, ...repository } of seen) this.#sight(repository, digest, at, at);
    for (const { parent, children, at, ...repository } of named) {
      const shown = this.#sight(repository, parent, at, at);
      for (const child of children) shown.children.add(this.#sight(repository, child, shown.first, at));
    }
  }

  async spans(
    repository: RepositoryKey,
    tag: string,
    { variants, limit }: { readonly variants?: readonly string[]; readonly limit: number },
  ): Promise<readonly TagSpan[]> {
    const id = repositoryId(repository);
    return this.#backing.spans
      .filter((span) => span.repository === id && span.tag === tag && variants?.includes(span.variant) !== false)
      .slice(0, limit)
      .map((span) => this.#shown(span));
  }

  async tags(repository: RepositoryKey, limit: number): Promise<readonly NewestOfTag[]> {
    const newest = new Map<string, Span>();
    for (const span of this.#backing.spans) {
      const key = `${span.tag} ${span.variant}`;
      if (span.repository === repositoryId(repository) && !newest.has(key)) newest.set(key, span);
    }
    return [...newest.values()]
      .toSorted((one, other) => other.to - one.to || (one.tag < other.tag ? -1 : 1))
      .slice(0, limit)
      .map((span) => ({ tag: span.tag, ...this.#shown(span) }));
  }

  async firstSeen(repository: RepositoryKey, digests: readonly Digest[]): Promise<ReadonlyMap<Digest, number>> {
    return new Map(
      digests.flatMap((digest) => {
        const sight = this.#backing.sights.get(contentId(repository, digest));
        return sight === undefined ? [] : [[digest, sight.first] as const];
      }),
    );
  }

  async tagsNaming(repository: RepositoryKey, digest: Digest, limit: number): Promise<readonly string[]> {
    const id = repositoryId(repository);
    const naming = new Set([digest]);
    for (let before = 0; before < naming.size; ) {
      before = naming.size;
      for (const sight of this.#backing.sights.values()) {
        const names = sight.repository === id && [...sight.children].some((child) => naming.has(child.digest));
        if (names) naming.add(sight.digest);
      }
    }
    const found = this.#backing.spans
      .filter((span) => span.repository === id && naming.has(span.digest))
      .toSorted((one, other) => other.to - one.to || (one.tag < other.tag ? -1 : 1));
    return [...new Set(found.map(({ tag }) => tag))].slice(0, limit);
  }

  async lastSeenBehind(newer: number): Promise<number | null> {
    const times = [...this.#backing.sights.values()].map(({ last }) => last).sort((one, other) => other - one);
    return times[newer] ?? null;
  }

  async dropBefore(before: number, limit: number, under?: Fence): Promise<boolean> {
    this.#locks.check(under);
    const { spans, sights } = this.#backing;
    const oldSpans = new Set(spans.filter(({ to }) => to < before).slice(0, limit));
    const old = [...sights.values()].filter(({ last }) => last < before).slice(0, limit - oldSpans.size);
    this.#backing.spans = spans.filter((span) => !oldSpans.has(span));
    for (const sight of old) {
      sights.delete(`${sight.repository}@${sight.digest}`);
      for (const { children } of sights.values()) children.delete(sight);
    }
    return oldSpans.size + old.length === limit;
  }

  #recordTag({ tag, variant, digest, at, ...key }: Sightings['tags'][number]): void {
    const repository = repositoryId(key);
    const of = this.#backing.spans.filter(
      (span) => span.repository === repository && span.tag === tag && span.variant === variant,
    );
    const placed = placeSighting(of, digest, at);
    if (placed.kind === 'longer') Object.assign(placed.span, { from: placed.from, to: placed.to });
    if (placed.kind === 'new') this.#backing.spans.unshift({ repository, tag, variant, digest, from: at, to: at });
    this.#backing.spans.sort((one, other) => other.from - one.from);
    const oldest = of.at(-1);
    if (placed.kind !== 'new' || of.length < MAX_SPANS || oldest === undefined) return;
    this.#backing.spans.splice(this.#backing.spans.indexOf(oldest), 1);
  }

  #sight(repository: RepositoryKey, digest: Digest, first: number, last: number): Sight {
    const key = contentId(repository, digest);
    const known = this.#backing.sights.get(key);
    if (known === undefined) {
      const sight = { repository: repositoryId(repository), digest, first, last, children: new Set<Sight>() };
      this.#backing.sights.set(key, sight);
      return sight;
    }
    known.last = Math.max(last, known.last);
    lower(known, first);
    return known;
  }

  #shown({ repository, variant, digest, from, to }: Span): TagSpan {
    return { variant, digest, from, to, firstSeen: this.#backing.sights.get(`${repository}@${digest}`)?.first ?? null };
  }
}

/** What is named was seen since what names it was. */
function lower(sight: Sight, first: number): void {
  if (first >= sight.first) return;
  sight.first = first;
  for (const child of sight.children) lower(child, first);
}
