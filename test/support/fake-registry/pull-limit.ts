import type { PullLimit } from './options.ts';

interface Account {
  counted: number;
  refused: number;
  /** When its window began, ms. */
  since: number;
}

/** Docker Hub's counting: GETs of manifests by account, or by address where there is none; HEADs are free, and say what is left as well. */
export class PullLimits {
  /** Milliseconds; may be replaced by a clock of the test's own. */
  now: () => number = Date.now;
  readonly #limit: PullLimit | undefined;
  readonly #accounts = new Map<string, Account>();

  constructor(limit: PullLimit | undefined) {
    this.#limit = limit;
  }

  /** GETs that were answered, of one account or address, or of all, in their windows. */
  counted(account?: string): number {
    return this.#sum(account, ({ counted }) => counted);
  }

  /** GETs that were asked for although none was left. */
  refused(account?: string): number {
    return this.#sum(account, ({ refused }) => refused);
  }

  /** As if somebody else had pulled so many with the same account. */
  spend(account: string, pulls: number): void {
    this.#of(account).counted += pulls;
  }

  /** What an answer about a manifest says of the limit; `refused`: it is no manifest, but the 429. */
  answer(method: string, account: string): { readonly headers: Record<string, string>; readonly refused: boolean } {
    if (this.#limit === undefined) return { headers: {}, refused: false };
    const { limit, window = 21_600, retryAfter } = this.#limit;
    const of = this.#of(account);
    const refused = method === 'GET' && of.counted >= limit;
    if (refused) of.refused += 1;
    else if (method === 'GET') of.counted += 1;
    return {
      refused,
      headers: {
        'ratelimit-limit': `${limit};w=${window}`,
        'ratelimit-remaining': `${Math.max(0, limit - of.counted)};w=${window}`,
        'docker-ratelimit-source': account,
        ...(refused && retryAfter !== undefined ? { 'retry-after': String(retryAfter) } : {}),
      },
    };
  }

  #of(account: string): Account {
    const now = this.now();
    const window = (this.#limit?.window ?? 21_600) * 1000;
    let of = this.#accounts.get(account);
    if (of === undefined || of.since + window <= now) {
      of = { counted: 0, refused: of?.refused ?? 0, since: now };
      this.#accounts.set(account, of);
    }
    return of;
  }

  #sum(account: string | undefined, value: (of: Account) => number): number {
    const all = account === undefined ? [...this.#accounts.values()] : [this.#of(account)];
    return all.reduce((sum, of) => sum + value(of), 0);
  }
}

/** As Docker Hub words it. */
export const PULL_LIMIT_MESSAGE =
  'You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: https://www.docker.com/increase-rate-limit';
