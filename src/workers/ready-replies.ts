import { Lru } from '../proxy/lru.ts';
import type { Pull, Reply } from '../proxy/reply.ts';

/**
 * The longest that a reply is given again, ms, however long the core would have: what the owner learns meanwhile (a registry that closes
 * a repository, a pruned cache, a newer tag) is late by no more, and a busy tag still costs one question a second.
 */
const REUSED_FOR = 1_000;
/** Some hundred images with the variants of their clients. */
const MAX_BYTES = 4 * 1024 * 1024;
/** What a reply weighs besides its key and body. */
const OVERHEAD = 512;
/** An Accept of all known types has 600 characters; nobody needs longer questions fast. */
const MAX_KEY = 2048;

interface Ready {
  readonly reply: Reply;
  readonly until: number;
  readonly weight: number;
}

/** Manifests' replies that a worker may give again for a moment without asking the owner. */
export class ReadyReplies {
  readonly #replies = new Lru<Ready>(MAX_BYTES, ({ weight }) => weight);
  readonly #now: () => number;
  #age = 0;

  /** `now`: ms since 1970. */
  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** Grows with each clearing: what was asked for at another age must not be put in. */
  get age(): number {
    return this.#age;
  }

  /** Forgets all: something that the replies were made of has changed. */
  clear(): void {
    this.#replies.clear();
    this.#age++;
  }

  find(key: string | null): Reply | null {
    if (key === null) return null;
    const ready = this.#replies.get(key);
    if (ready === undefined) return null;
    if (this.#now() < ready.until) return ready.reply;
    this.#replies.delete(key);
    return null;
  }

  /** Keeps a whole reply that was asked for at `age`, if the core said that it may be given again. */
  put(key: string | null, reply: Reply, age: number): void {
    const { status, headers, body, freshUntil } = reply;
    if (key === null || freshUntil === undefined || age !== this.#age) return;
    if (body !== null && !(body instanceof Uint8Array)) return;
    const until = Math.min(freshUntil, this.#now() + REUSED_FOR);
    // A body of its own: what came over the channel is a part of a larger buffer.
    const kept = body === null ? null : Buffer.from(body);
    this.#replies.set(key, {
      reply: { status, headers, body: kept, from: 'cache' },
      until,
      weight: OVERHEAD + key.length + (kept?.length ?? 0),
    });
  }
}

/** All that a manifest's reply depends on; null for what is never given again. A line feed is in none of the parts. */
export function questionOf(pull: Pull): string | null {
  const { registry, repository, what } = pull.target;
  if (what.kind !== 'manifest') return null;
  const reference = what.reference.kind === 'tag' ? `:${what.reference.tag}` : `@${what.reference.digest}`;
  const who = pull.authenticated ? 'user' : 'anyone';
  const accept = pull.accept === undefined ? '' : `a${pull.accept}`;
  const noneMatch = pull.ifNoneMatch === undefined ? '' : `n${pull.ifNoneMatch}`;
  const key = [pull.method, who, registry, repository + reference, accept, noneMatch].join('\n');
  return key.length > MAX_KEY ? null : key;
}
