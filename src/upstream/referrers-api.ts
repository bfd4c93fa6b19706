import { LRUCache } from 'lru-cache';
import { isBusy, isDenied, RedirectError, StatusError } from './failures.ts';
import type { ListPage } from './upstream.ts';

/** Endpoints that are remembered. */
const MAX_ENDPOINTS = 1024;
/**
 * For how long an endpoint that has no API for referrers is not asked for them again, ms. Each pull would ask, and some web hosts to which registries
 * redirect what they do not know take long to say nothing. A registry that was updated is found to have it after this; the fallback tag holds till then.
 */
const REMEMBERED_MS = 10 * 60_000;
/**
 * A web host without an answer for so long is not waited for, ms: the fallback tag is still to be asked for before a list that is kept would be given
 * instead (after 5 s, see src/proxy/stale.ts).
 */
const WEB_HOST_MS = 3_000;

/** That there is no list, where the endpoint may have no API at all, or this list alone may be missing. */
export type ReferrersAbsence = 'no api' | 'no list';

/** How one endpoint is asked for a list of referrers. */
export interface ReferrersAttempt {
  readonly endpoint: URL;
  readonly signal: AbortSignal;
  /** The repository has shown that it holds the subject: no list means no API then, and not that there is no such repository. */
  readonly isKnown: boolean;
  /** @param onRedirect to be called with each place that the request is redirected to */
  readonly ask: (signal: AbortSignal, onRedirect: (to: URL) => void) => Promise<ListPage | ReferrersAbsence>;
}

/**
 * Asks for lists of referrers (distribution-spec, *Listing Referrers*), and remembers which endpoints have no API for them. What a web host answers
 * to which a registry redirects, or that it never answers, is no fault of the registry.
 */
export class ReferrersApi {
  readonly #missingUntil = new LRUCache<string, number>({ max: MAX_ENDPOINTS });
  /** Origins of web hosts that did not answer. */
  readonly #silentUntil = new LRUCache<string, number>({ max: MAX_ENDPOINTS });
  readonly #now: () => number;

  /** @param now monotonic, ms */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Whether it was found a while ago that the endpoint has none. */
  isMissing(endpoint: URL): boolean {
    return this.#isRemembered(this.#missingUntil, endpoint.href);
  }

  /** @throws {StatusError} 404 where there is no list; what else asking throws */
  async list({ endpoint, signal, isKnown, ask }: ReferrersAttempt): Promise<ListPage> {
    const patience = new AbortController();
    let elsewhere = false;
    let webHost = '';
    let timer: NodeJS.Timeout | undefined;
    const onRedirect = (to: URL): void => {
      elsewhere = to.origin !== endpoint.origin;
      if (!elsewhere || to.pathname.startsWith('/v2/')) return;
      webHost = to.origin;
      const giveUp = (): void => patience.abort(new Error(`the web host ${webHost} does not answer`));
      if (this.#isRemembered(this.#silentUntil, webHost)) giveUp();
      else timer ??= setTimeout(giveUp, WEB_HOST_MS);
    };
    let answer: ListPage | ReferrersAbsence;
    try {
      answer = await ask(AbortSignal.any([signal, patience.signal]), onRedirect);
    } catch (error) {
      signal.throwIfAborted();
      // A host elsewhere that cannot be reached is no failure of the registry that redirects there; nor is a redirect that leads nowhere. Whether a
      // token that is refused denies the repository, its tags tell.
      const isItsOwn =
        error instanceof StatusError || isBusy(error) || (!elsewhere && !(error instanceof RedirectError));
      if (isItsOwn && !isDenied(error)) throw error;
      answer = elsewhere && !isItsOwn ? 'no api' : 'no list';
      if (webHost !== '' && !isItsOwn) this.#silentUntil.set(webHost, this.#now() + REMEMBERED_MS);
    } finally {
      clearTimeout(timer);
    }
    if (typeof answer !== 'string') return answer;
    // Otherwise whoever asks for what does not exist would hide the referrers of all that does.
    if (answer === 'no api' && isKnown) this.#missingUntil.set(endpoint.href, this.#now() + REMEMBERED_MS);
    throw new StatusError(404, endpoint.host, undefined, 'it has no referrers API');
  }

  #isRemembered(until: LRUCache<string, number>, key: string): boolean {
    return this.#now() < (until.get(key) ?? Number.NEGATIVE_INFINITY);
  }
}
