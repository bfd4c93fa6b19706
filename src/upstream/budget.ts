import { BudgetError, type Spent } from './failures.ts';
import { LONGEST_WINDOW_MS, type RateLimit } from './rate-limit-headers.ts';

/** How long a limit holds of which a registry does not say so, ms: soon it is asked again. */
const UNSAID_WINDOW_MS = 60_000;
/**
 * What is back sooner than this is not economised on, ms: limits of some hundred requests a minute protect a registry from its clients, and whoever
 * waits a moment has what it wants.
 */
const SCARCE_WINDOW_MS = 10 * 60_000;
/**
 * The share of a limit that is kept for images of which nothing is here, while tags that have moved are answered from what is kept: an image that a
 * job cannot have stops the job, one that is some hours old rarely does. Half, since neither side is known beforehand, and each has as much then; less
 * and less towards the end of the window, with which whatever is left is lost.
 */
const RESERVE = 0.5;
/** For how long pulls are set aside for what a client asks next: it has an index in hand, and asks for the manifest of its platform at once. */
const SET_ASIDE_MS = 60_000;
/** Manifests for which pulls are set aside. */
const MAX_SET_ASIDE = 1024;
/** The longest that those who come while nothing is known of a budget wait for the first answer, ms; then they go on, unless it is known to be small. */
const FIRST_ANSWER_MS = 1_500;
/** No answer is waited for any longer: see `DOCUMENT_MS`. */
const LONGEST_ANSWER_MS = 2 * 60_000;
/** Answers about what a registry does not have, without a word of a limit, after which it is taken for one that has none. */
const SILENT_ANSWERS = 4;
/** In which a pull that is under way has been counted, or not, seconds; short enough to be waited for within a request. */
const UNDER_WAY_S = 1;

/** For what a pull is, and how much of the budget it may take. */
export interface Spending {
  readonly repository: string;
  /** Something kept can be served in its place: nothing is taken of what is kept for other images. */
  readonly sparing: boolean;
}

/**
 * What one registry lets one account (or this gateway's address) pull, as its answers tell. GETs of manifests count; what is under way is subtracted,
 * so that a burst cannot take more than there is. Where nothing is known, the first pull finds out, and those that come meanwhile wait for its
 * answer a moment. Times are of a monotonic clock, ms.
 */
export class Budget {
  readonly #now: () => number;
  readonly #facts: Pick<Spent, 'host' | 'account'>;
  /** `none`: it answered, and spoke of no limit. */
  #state: 'unknown' | 'none' | 'known' = 'unknown';
  /** It allowed few pulls when it last spoke of them, and that time is over: one pull alone tries whether there are new ones. */
  #isTrial = false;
  #limit: number | null = null;
  #remaining = 0;
  #window: number | null = null;
  #source: string | null = null;
  /** When what is known was heard. */
  #heardAt = 0;
  /** When that is no longer so. */
  #endsAt = 0;
  #underWay = 0;
  #silent = 0;
  readonly #lost: { readonly at: number; readonly pulls: number }[] = [];
  /** By the digest for which they are. */
  readonly #setAside = new Map<string, { readonly repository: string; pulls: number; readonly until: number }>();
  /** The pull that finds out. */
  #first: PromiseWithResolvers<void> | null = null;

  constructor(facts: Pick<Spent, 'host' | 'account'>, now: () => number) {
    this.#facts = facts;
    this.#now = now;
  }

  /**
   * Whether the registry allows so few pulls, for so long, that a HEAD before is worth its while. A registry that counts by the minute mostly
   * counts HEADs as well.
   */
  get isScarce(): boolean {
    this.#forget();
    if (this.#state === 'known') return (this.#window ?? 0) >= SCARCE_WINDOW_MS;
    return this.#isTrial;
  }

  /** What is known; null where that is nothing, or that there is no limit. */
  get known(): {
    readonly limit: number | null;
    readonly remaining: number;
    readonly windowMs: number | null;
    /** In how many ms it is more at the latest. */
    readonly endsInMs: number;
    readonly source: string | null;
  } | null {
    this.#forget();
    if (this.#state !== 'known') return null;
    return {
      limit: this.#limit,
      remaining: this.#remaining,
      windowMs: this.#window,
      endsInMs: this.#endsAt - this.#now(),
      source: this.#source,
    };
  }

  /**
   * Takes one pull; waits a moment where nothing is known yet, and another finds out.
   * @throws {BudgetError} where there is none, or none to spare; the signal's reason
   */
  async take(spending: Spending, signal: AbortSignal): Promise<CountedPull> {
    const deadline = this.#now() + FIRST_ANSWER_MS;
    for (;;) {
      this.#forget();
      if (this.#state !== 'unknown') return this.#begin(spending, false);
      if (this.#first === null) return this.#begin(spending, true);
      const left = deadline - this.#now();
      if (left > 0) await this.#firstAnswer(this.#first.promise, left, signal);
      else if (this.#isTrial) throw this.#error('used up', UNDER_WAY_S);
      else return this.#begin(spending, false);
    }
  }

  /**
   * Sets pulls aside for a manifest and what is asked next of its repository, within a minute. Said again, it is for another minute.
   * @returns why there are not enough, else null: where no limit is known, there is nothing to be set aside
   */
  setAside(spending: Spending, digest: string, pulls: number): BudgetError | null {
    if (!this.isScarce || this.#state !== 'known') return null;
    this.#setAside.delete(digest);
    const shortage = this.#shortage(spending, pulls, false);
    if (shortage !== null) return shortage;
    const { repository } = spending;
    this.#setAside.set(digest, { repository, pulls, until: this.#now() + SET_ASIDE_MS });
    const [oldest] = this.#setAside.keys();
    if (this.#setAside.size > MAX_SET_ASIDE && oldest !== undefined) this.#setAside.delete(oldest);
    return null;
  }

  /**
   * An answer of the registry says what is left.
   * @param askedAt when it was asked: what was asked before something else was heard, and says more, is older news
   */
  heard({ limit, remaining, windowMs, resetMs, source }: RateLimit, askedAt: number): void {
    const now = this.#now();
    this.#forget();
    const wasKnown = this.#state === 'known';
    // It was asked before those were counted of which no answer tells.
    const left = this.#lost.reduce((sum, { at, pulls }) => (at >= askedAt ? sum - pulls : sum), remaining);
    const isMore = left > this.#remaining;
    this.#limit = limit ?? this.#limit;
    this.#window = windowMs ?? this.#window;
    this.#source = source ?? this.#source;
    if (wasKnown && isMore && askedAt <= this.#heardAt) return;
    if (!wasKnown || isMore || resetMs !== null) this.#endsAt = now + (resetMs ?? this.#window ?? UNSAID_WINDOW_MS);
    this.#remaining = Math.max(0, left);
    this.#heardAt = now;
    this.#settle('known');
  }

  /** It refused a pull, since none is left. @param retryAfter seconds, where it said so */
  usedUp(retryAfter: number | undefined): BudgetError {
    const now = this.#now();
    this.#forget();
    if (retryAfter !== undefined) this.#endsAt = now + Math.min(LONGEST_WINDOW_MS, Math.max(1, retryAfter) * 1000);
    else if (this.#state !== 'known') this.#endsAt = now + (this.#window ?? UNSAID_WINDOW_MS);
    this.#remaining = 0;
    this.#heardAt = now;
    this.#settle('known');
    return this.#error('used up');
  }

  #begin(spending: Spending, isFirst: boolean): CountedPull {
    if (this.#state === 'known') {
      const shortage = this.#shortage(spending, 1);
      if (shortage !== null) throw shortage;
    }
    for (const [digest, aside] of this.#setAside) {
      if (aside.repository !== spending.repository) continue;
      aside.pulls -= 1;
      if (aside.pulls <= 0) this.#setAside.delete(digest);
      break;
    }
    const first = isFirst ? Promise.withResolvers<void>() : null;
    if (first !== null) this.#first = first;
    return new CountedPull({
      now: this.#now,
      take: () => {
        this.#underWay += 1;
      },
      mayAgain: () => this.#state !== 'known' || this.#shortage(spending, 1) === null,
      end: (pulls, uncertain) => {
        this.#underWay -= pulls;
        // Nobody knows whether they were counted.
        this.#lose(uncertain);
        if (first !== null && this.#first === first) this.#first = null;
        first?.resolve();
      },
      heard: (limit, askedAt) => this.heard(limit, askedAt),
      // What is told of no limit: there is none, or this pull was counted in silence.
      heardNothing: () => {
        if (this.#state === 'known') this.#lose(1);
        else this.#settle('none');
      },
      heardRefusal: () => this.#heardRefusal(),
    });
  }

  /**
   * What it does not have is no pull, and one such answer says nothing about limits. Of a mirror that has little there may be no other, and those who
   * ask it would wait for each other again and again.
   */
  #heardRefusal(): void {
    if (this.#state !== 'unknown' || this.#isTrial) return;
    this.#silent += 1;
    if (this.#silent >= SILENT_ANSWERS) this.#settle('none');
  }

  /** A HEAD was answered, and nothing was said of a limit. */
  heardNothing(): void {
    if (this.#state === 'unknown') this.#settle('none');
  }

  /** Pulls that were counted, or may have been, though no answer says so. */
  #lose(pulls: number): void {
    if (this.#state !== 'known' || pulls === 0) return;
    const now = this.#now();
    this.#remaining = Math.max(0, this.#remaining - pulls);
    this.#heardAt = now;
    while ((this.#lost[0]?.at ?? now) < now - LONGEST_ANSWER_MS) this.#lost.shift();
    this.#lost.push({ at: now, pulls });
  }

  /** Why so many pulls cannot be spent; null where they can. */
  #shortage({ repository, sparing }: Spending, pulls: number, mayUseOwn = true): BudgetError | null {
    const now = this.#now();
    let aside = 0;
    for (const [digest, { repository: of, pulls: count, until }] of this.#setAside) {
      if (until <= now) this.#setAside.delete(digest);
      else if (!mayUseOwn || of !== repository) aside += count;
    }
    const free = this.#remaining - this.#underWay - aside;
    if (free < pulls) return this.#error('used up', this.#remaining > 0 ? UNDER_WAY_S : undefined);
    return sparing && free < this.#reserve() + pulls ? this.#error('reserved') : null;
  }

  #reserve(): number {
    if (!this.isScarce || this.#window === null) return 0;
    const left = Math.min(1, (this.#endsAt - this.#now()) / this.#window);
    return Math.ceil(RESERVE * left * (this.#limit ?? this.#remaining));
  }

  #error(kind: Spent['kind'], retryAfter?: number): BudgetError {
    return new BudgetError(
      {
        ...this.#facts,
        kind,
        limit: this.#limit,
        remaining: Math.max(0, this.#remaining - this.#underWay),
        windowMs: this.#window,
        endsInMs: Math.max(1000, this.#endsAt - this.#now()),
      },
      retryAfter,
    );
  }

  /** What was said counts until its window ends. */
  #forget(): void {
    if (this.#state !== 'known' || this.#endsAt > this.#now()) return;
    this.#isTrial = (this.#window ?? 0) >= SCARCE_WINDOW_MS;
    // A limit by the minute is whole again.
    this.#state = this.#isTrial ? 'unknown' : 'none';
  }

  #settle(state: 'known' | 'none'): void {
    this.#state = state;
    this.#isTrial = false;
    this.#silent = 0;
    this.#first?.resolve();
    this.#first = null;
  }

  async #firstAnswer(answer: Promise<void>, ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await Promise.race([answer, promise]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    }
  }
}

interface CountedPullOptions {
  readonly now: () => number;
  readonly take: () => void;
  readonly mayAgain: () => boolean;
  readonly end: (pulls: number, uncertain: number) => void;
  readonly heard: (limit: RateLimit, askedAt: number) => void;
  readonly heardNothing: () => void;
  readonly heardRefusal: () => void;
}

/** One pull that is under way: what was taken for it, until it is closed. */
export class CountedPull {
  readonly #options: CountedPullOptions;
  #taken = 1;
  #sent = 0;
  #answered = 0;
  #askedAt = 0;
  #closed = false;

  constructor(options: CountedPullOptions) {
    this.#options = options;
    options.take();
  }

  /** It is sent, now. */
  sends(): void {
    this.#sent += 1;
    this.#askedAt = this.#options.now();
  }

  /** Whether the same may be sent once more beside it, which may count as a second pull. */
  again(): boolean {
    if (!this.#options.mayAgain()) return false;
    this.#options.take();
    this.#taken += 1;
    this.#sent += 1;
    return true;
  }

  /** The registry answered. @param limit null where it says nothing of one */
  answered(status: number, limit: RateLimit | null): void {
    this.#answered += 1;
    if (limit !== null) this.#options.heard(limit, this.#askedAt);
    else if (status < 400) this.#options.heardNothing();
    else if (status === 403 || status === 404) this.#options.heardRefusal();
  }

  /** May be called more than once. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.end(this.#taken, this.#sent - this.#answered);
  }
}
