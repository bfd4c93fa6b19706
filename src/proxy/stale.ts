import { LRUCache } from 'lru-cache';
import { elapsed, formatSpan, iso } from '../kit/time.ts';
import { RegistryError } from '../oci/errors.ts';
import { isSpent, isTransient } from './repository-access.ts';

/** How long a client waits for a revalidation when a kept answer could serve it, ms. Containerd gives up on headers after 30 s. */
const REVALIDATION_TIMEOUT = 5_000;
/** After a failure the upstream is left alone so long, ms; every client would otherwise wait for the same failure again. */
export const FAILURE_PAUSE = 10_000;
/** … and where its limit allows no pull: HEADs go on as often as tags are asked for in ordinary times. */
const SPENT_PAUSE = 60_000;
/** A `Retry-After` is believed up to this, ms. */
const MAX_FAILURE_PAUSE = 5 * 60_000;
const FAILING_KEPT = 10_000;

/** Why a kept answer is served. */
export interface Trouble {
  /** As clients are told: no names of what lies behind a registry. */
  readonly what: string;
  /** As the operator may know it. */
  readonly logged: string;
  /** When it was first noticed, ms of the core's clock. */
  readonly since: number;
}

/** Decides when a kept answer is served in place of a failing upstream's (RFC 5861, *stale-if-error*), and how long it is waited for before. */
export class StaleIfError {
  readonly #now: () => number;
  readonly #timeout: number;
  /** What went wrong about something and has not succeeded since; until when the upstream is left alone about it, ms. */
  readonly #failing = new LRUCache<string, Trouble & { readonly until: number }>({ max: FAILING_KEPT });

  constructor(now: () => number, timeout = REVALIDATION_TIMEOUT) {
    this.#now = now;
    this.#timeout = timeout;
  }

  /** Whether the upstream failed on this only a moment ago. */
  isFailing(id: string): boolean {
    return (this.#failing.get(id)?.until ?? 0) > this.#now();
  }

  /** What is wrong; `what`, and since now, where nothing was known of it. */
  trouble(id: string, what: string): Trouble {
    return this.#failing.get(id) ?? { what, logged: what, since: this.#now() };
  }

  /** Takes note of a failure that says nothing about the image; an answer about the image is no reason to leave the upstream alone. */
  failed(id: string, error: unknown): void {
    if (!isTransient(error) || !(error instanceof RegistryError)) return;
    const retryAfter = (error.options.retryAfter ?? 0) * 1000;
    const longest = isSpent(error) ? SPENT_PAUSE : MAX_FAILURE_PAUSE;
    this.#note(id, error.message, error.logged, Math.min(longest, Math.max(FAILURE_PAUSE, retryAfter)));
  }

  succeeded(id: string): void {
    this.#failing.delete(id);
  }

  /**
   * Resolves to the outcome, or to null if it takes too long: later requests do not wait at all, until it comes or another try is due.
   * @param late in words, what is wrong then
   */
  async within<T>(id: string, running: Promise<T>, late: string): Promise<T | null> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<null>((resolve) => {
      timer = setTimeout(() => {
        this.#note(id, late, late, FAILURE_PAUSE);
        resolve(null);
      }, this.#timeout);
    });
    try {
      return await Promise.race([running, timeout]);
    } finally {
      clearTimeout(timer);
    }
  }

  clear(): void {
    this.#failing.clear();
  }

  #note(id: string, what: string, logged: string, pause: number): void {
    const now = this.#now();
    this.#failing.set(id, { what, logged, since: this.#failing.get(id)?.since ?? now, until: now + pause });
  }
}

/** Characters of what went wrong. An upstream's own words may be among them; the header has to fit into every client's buffer. */
const MAX_WHAT = 300;

/** What is said of a stale answer: to the client, and in the log. */
export interface Staleness {
  /** The value of `Warning`. */
  readonly warning: string;
  /** What failed, as the operator may know it. */
  readonly reason: string;
}

/** Of a kept answer that is served because of some trouble; for the times see {@link staleWarning}. */
export function staleness(trouble: Trouble, checkedAt: number, now: number): Staleness {
  return { warning: staleWarning(trouble, checkedAt, now), reason: trouble.logged };
}

/**
 * The value of `Warning` of a stale answer (distribution-spec, *Warnings*): for the person at the terminal, what failed, since when, and how old
 * this is. Code 299 and agent `-` are the only ones that clients show.
 * @param checkedAt when the upstream last said that this is right, ms of the core's clock, as is `now`
 */
export function staleWarning({ what, since }: Pick<Trouble, 'what' | 'since'>, checkedAt: number, now: number): string {
  // A machine's clock may have been put right since: what a person reads is counted back from what it says now.
  const began = iso(Date.now() - elapsed(since, now)).replace(/\.\d+Z$/, 'Z');
  const age = formatSpan(elapsed(checkedAt, now));
  return `299 - "${quotable(what)}, since ${began}; this answer is ${age} old"`;
}

/** The value of `Warning` for these words: code 299 and agent `-` are the only ones that clients show. */
export function warningOf(text: string): string {
  return `299 - "${quotable(text)}"`;
}

/**
 * In a quoted string (RFC 9110 §5.6.4), without anything that would have to be escaped there, that terminals obey, or that a client might
 * decode: containerd takes `%22` for a quote within the string, and drops the whole warning.
 */
function quotable(text: string): string {
  return text
    .replace(/["\\]/g, "'")
    .replace(/[^\x20-\x7e]|%/g, '?')
    .slice(0, MAX_WHAT);
}
