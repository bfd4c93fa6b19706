import { LRUCache } from 'lru-cache';
import type { Gauge } from 'prom-client';
import { iso } from '../kit/time.ts';
import { credentialsFor } from '../oci/credentials.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { Budget, type CountedPull, type Spending } from './budget.ts';
import { BudgetError, StatusError } from './failures.ts';
import type { ResponseHeaders } from './net/connections.ts';
import { type RateLimit, rateLimitIn } from './rate-limit-headers.ts';
import { type BudgetRow, type Route, rowOf } from './upstream.ts';

/** Accounts at endpoints, and endpoints, that are remembered. */
const MAX_BUDGETS = 1024;
/** Questions that are left alone. */
const MAX_QUESTIONS = 16_384;
/** The longest `Retry-After` that is honoured in full where it is about one question: one request in ten minutes does a registry no harm. */
const QUESTION_MAX_MS = 10 * 60_000;
/** … and where it is about an address: whoever is asked for more has been blocked, and finds out each hour whether it still is. */
const ABUSE_MAX_MS = 3_600_000;
/**
 * How long an address that sent too many requests rests where the registry does not say, ms: short at first, since a guard with a limit a second forgives
 * soon, and twice as long each time that it is refused again not long after.
 */
const ABUSE_PAUSE = { first: 5_000, most: 60_000, forgottenAfter: 10 * 60_000 };

/** Of the registry API, what is asked for. */
export type Asked = 'manifests' | 'blobs' | 'tags' | 'referrers';

/** A request that is about to be sent to an endpoint. */
export interface Question extends Spending {
  readonly route: Route;
  readonly endpoint: URL;
  readonly method: 'GET' | 'HEAD';
  readonly what: Asked;
  /** One of several connections for the same blob: what is said to it may be about their number. */
  readonly isAdditional: boolean;
}

/** What was admitted. */
export interface BudgetAdmission {
  /** It is sent, now. */
  sends(): void;
  /** Whether it may be sent once more beside, where no answer comes. */
  again(): boolean;
  /** The endpoint itself answered, and no host that it redirects to. */
  answered(status: number, headers: ResponseHeaders): void;
  /** It answered 429. @returns what to report */
  refused(error: StatusError, refusal: Refusal): StatusError;
  /** To be called at the end, whatever it was. */
  close(): void;
}

/** What tells the kinds of 429 apart. */
export interface Refusal {
  readonly headers: ResponseHeaders;
  /** The body is, or would be, JSON: the registry itself answers, and not a guard before it. */
  readonly isJson: boolean;
}

interface Rest {
  readonly row: string;
  readonly host: string;
  readonly endpoint: string;
  readonly until: number;
  /** How long it was from its beginning, ms. */
  readonly ms: number;
  /** See `StatusError`. */
  readonly unexplained?: boolean;
}

/**
 * What registries allow this gateway, and what it asks them because of that:
 *
 * - a *budget* of pulls for each row of the table, endpoint and account, read from the headers of every answer about manifests. While none is left,
 *   nothing is sent that counts (GETs of manifests) until its window ends; HEADs and blobs go on. At Docker Hub: `ratelimit-…` headers, and 429 with
 *   them, or with TOOMANYREQUESTS and "pull rate limit";
 * - *abuse*: an address that sends too many requests gets a 429 without those headers and without JSON, from a guard before the registry. Nothing at
 *   all is sent to that endpoint then, no HEAD and no request for a token, whatever the account;
 * - any other 429 with a `Retry-After` is about the question: it is not asked again before that.
 *
 * Only what an endpoint itself says counts for it: no host that it redirects to moves a budget. Budgets are in memory: after a start the first
 * answer tells.
 */
export class Budgets {
  readonly #now: () => number;
  readonly #log: Logger;
  readonly #budgets = new LRUCache<
    string,
    { readonly budget: Budget; readonly of: Omit<Rest, 'until' | 'ms'> & Account }
  >({
    max: MAX_BUDGETS,
  });
  readonly #abuse = new LRUCache<string, Rest>({ max: MAX_BUDGETS });
  readonly #questions = new LRUCache<string, Rest>({ max: MAX_QUESTIONS });
  readonly #rests;
  readonly #withheld;

  /** @param now monotonic, ms */
  constructor(metrics: Metrics, log: Logger, now: () => number = () => performance.now()) {
    this.#now = now;
    this.#log = log;
    const worst = (gauge: Gauge<'registry'>, value: (row: BudgetRow) => number | null): void => {
      gauge.reset();
      const rows = new Map<string, BudgetRow>();
      for (const row of this.rows()) {
        const before = rows.get(row.registry);
        if (row.kind === 'pulls' && (before === undefined || share(row) < share(before))) rows.set(row.registry, row);
      }
      for (const [registry, row] of rows) {
        const number = value(row);
        if (number !== null) gauge.set({ registry }, number);
      }
    };
    // Of several endpoints and accounts, that which is nearest its end.
    const left = 'Pulls that a registry says are left of its limit.';
    metrics.gauge('upstream_budget_remaining', left, ['registry'], (gauge) =>
      worst(gauge, ({ remaining }) => remaining),
    );
    const whole = 'Pulls that a registry says its limit allows.';
    metrics.gauge('upstream_budget_limit', whole, ['registry'], (gauge) => worst(gauge, ({ limit }) => limit));
    const resting = 'Endpoints and accounts of which nothing is asked that counts (pulls), or nothing at all (abuse).';
    metrics.gauge('upstream_budget_resting', resting, ['registry', 'kind'], (gauge) => {
      gauge.reset();
      for (const { registry, kind, restingUntil } of this.rows())
        if (restingUntil !== null) gauge.inc({ registry, kind });
    });
    this.#rests = metrics.counter(
      'upstream_budget_rests_total',
      "Times a registry refused a request (429), by what it was about: its limit of pulls, this gateway's address, or that question alone.",
      ['registry', 'kind'],
    );
    this.#withheld = metrics.counter(
      'upstream_budget_withheld_total',
      'Requests that were not sent to a registry, since its limit is reached or what is left is kept for other images.',
      ['registry', 'kind'],
    );
  }

  /**
   * To be called before anything is sent for a question, a request for a token included.
   * @throws {BudgetError} where it must not be asked now; {StatusError} 429 where this question must not be; the signal's reason
   */
  async admit(question: Question, signal: AbortSignal): Promise<BudgetAdmission> {
    const { route, endpoint } = question;
    const registry = rowOf(route);
    const abuse = this.#abuseAt(route, endpoint);
    if (abuse !== null) throw this.#withhold(registry, abuse);
    const asked = restOf(this.#questions, questionKey(question), this.#now());
    if (asked !== null && !question.isAdditional) {
      const before = new StatusError(429, asked.host, asked.ms / 1000, 'it asked for fewer requests a while ago');
      throw Object.assign(before, { withheld: true, unexplained: asked.unexplained });
    }
    const isManifest = question.what === 'manifests';
    const budget = isManifest ? this.#budgetOf(route, endpoint, question.repository) : null;
    let pull: CountedPull | null = null;
    if (budget !== null && question.method === 'GET') {
      try {
        pull = await budget.take(question, signal);
      } catch (error) {
        throw error instanceof BudgetError ? this.#withhold(registry, error) : error;
      }
    }
    let askedAt = 0;
    return {
      sends: () => {
        askedAt = this.#now();
        pull?.sends();
      },
      again: () => pull?.again() ?? true,
      answered: (status, headers) => {
        if (budget === null) return;
        const limit = rateLimitIn(headers);
        if (pull !== null) pull.answered(status, limit);
        else if (limit !== null) budget.heard(limit, askedAt);
        else if (status < 400) budget.heardNothing();
      },
      refused: (error, refusal) => this.#refused(question, error, refusal),
      close: () => pull?.close(),
    };
  }

  /** Whether a registry that may be asked allows so few pulls that a HEAD, which does not count, is worth its while before each. */
  isScarce(route: Route, repository: string): boolean {
    return route.endpoints.some(
      (text) => this.#budgets.peek(budgetKey(route, new URL(text), repository))?.budget.isScarce,
    );
  }

  /**
   * Sets pulls aside for a manifest and what is asked next of its repository, at the first endpoint that has as many.
   * @returns why there are not enough anywhere; else null
   */
  setAside(route: Route, spending: Spending, digest: string, pulls: number): BudgetError | null {
    let first: BudgetError | null = null;
    for (const text of route.endpoints) {
      const endpoint = new URL(text);
      const { budget } = this.#budgets.get(budgetKey(route, endpoint, spending.repository)) ?? {};
      const shortage = this.#abuseAt(route, endpoint) ?? budget?.setAside(spending, digest, pulls) ?? null;
      if (shortage === null) return null;
      first ??= shortage;
    }
    return first;
  }

  /** All that is known now, for the operator. */
  rows(): BudgetRow[] {
    const now = this.#now();
    const at = (ms: number) => iso(Date.now() + ms);
    const rows: BudgetRow[] = [];
    for (const { row, endpoint, until } of this.#abuse.values()) {
      if (until <= now) continue;
      const restingUntil = at(until - now);
      const unknown = { account: null, source: null, limit: null, remaining: null, windowSeconds: null };
      rows.push({ registry: row, endpoint, ...unknown, refillsAt: restingUntil, kind: 'abuse', restingUntil });
    }
    for (const { budget, of } of this.#budgets.values()) {
      const { known } = budget;
      if (known === null) continue;
      const { limit, remaining, windowMs, endsInMs, source } = known;
      rows.push({
        registry: of.row,
        endpoint: of.endpoint,
        account: of.account,
        source,
        limit,
        remaining,
        windowSeconds: windowMs === null ? null : windowMs / 1000,
        refillsAt: at(endsInMs),
        kind: 'pulls',
        restingUntil: remaining === 0 ? at(endsInMs) : null,
      });
    }
    return rows.sort((one, other) =>
      `${one.registry} ${one.endpoint}` < `${other.registry} ${other.endpoint}` ? -1 : 1,
    );
  }

  #withhold(registry: string, error: BudgetError): BudgetError {
    this.#withheld.inc({ registry, kind: error.spent.kind });
    error.withheld = true;
    return error;
  }

  #abuseAt(route: Route, endpoint: URL): BudgetError | null {
    const rest = restOf(this.#abuse, originKey(route, endpoint), this.#now());
    if (rest === null) return null;
    const nothing = { account: null, limit: null, remaining: 0, windowMs: null };
    return new BudgetError({ host: rest.host, kind: 'abuse', ...nothing, endsInMs: rest.ms });
  }

  #budgetOf(route: Route, endpoint: URL, repository: string): Budget {
    const key = budgetKey(route, endpoint, repository);
    const known = this.#budgets.get(key);
    if (known !== undefined) return known.budget;
    const account = accountOf(route, repository);
    const budget = new Budget({ host: endpoint.host, account }, this.#now);
    this.#budgets.set(key, {
      budget,
      of: { row: rowOf(route), host: endpoint.host, endpoint: endpoint.origin, account },
    });
    return budget;
  }

  #refused(question: Question, error: StatusError, { headers, isJson }: Refusal): StatusError {
    const { route, endpoint, repository, isAdditional } = question;
    if (isAdditional) return error;
    const limit = rateLimitIn(headers);
    const registry = rowOf(route);
    const facts = { registry: route.host, endpoint: endpoint.host, account: accountOf(route, repository) ?? undefined };
    if (isPullLimit(question, error, limit)) {
      const told = this.#budgetOf(route, endpoint, repository).usedUp(error.retryAfter);
      told.said = error.said;
      this.#rests.inc({ registry, kind: 'pulls' });
      this.#log.warn(
        { ...facts, reason: told.reason },
        'a registry gives no more pulls: what is kept is served meanwhile',
      );
      return told;
    }
    if (limit === null && !isJson) {
      // There is no body to tell a guard from a registry that refuses every HEAD: a GET tells, and it alone stops all others.
      if (question.method === 'HEAD') {
        this.#leaveAlone(question, error, (error.retryAfter ?? 0) * 1000 || ABUSE_PAUSE.most, true);
        return Object.assign(error, { unexplained: true });
      }
      this.#rest(route, endpoint, error);
      const told = this.#abuseAt(route, endpoint) ?? error;
      this.#rests.inc({ registry, kind: 'abuse' });
      this.#log.warn({ ...facts, reason: told.reason }, 'a registry wants no more requests from this address');
      return told;
    }
    this.#rests.inc({ registry, kind: 'question' });
    if (error.retryAfter !== undefined) this.#leaveAlone(question, error, error.retryAfter * 1000, false);
    return error;
  }

  /** The address is a nuisance to this endpoint. Those refused at the same moment are refused once. */
  #rest(route: Route, endpoint: URL, { host, retryAfter }: StatusError): void {
    const key = originKey(route, endpoint);
    const now = this.#now();
    const before = this.#abuse.get(key);
    let ms = ABUSE_PAUSE.first;
    if (retryAfter !== undefined) ms = Math.min(ABUSE_MAX_MS, retryAfter * 1000);
    else if (before !== undefined && before.until > now) return;
    else if (before !== undefined && now - before.until < ABUSE_PAUSE.forgottenAfter)
      ms = Math.min(ABUSE_PAUSE.most, Math.max(before.ms * 2, ABUSE_PAUSE.first));
    this.#abuse.set(key, { row: rowOf(route), host, endpoint: endpoint.origin, until: now + ms, ms });
  }

  #leaveAlone(question: Question, { host }: StatusError, wanted: number, unexplained: boolean): void {
    const ms = Math.min(QUESTION_MAX_MS, wanted);
    const until = this.#now() + ms;
    const key = questionKey(question);
    if ((this.#questions.get(key)?.until ?? 0) >= until) return;
    const place = { row: rowOf(question.route), host, endpoint: question.endpoint.origin };
    this.#questions.set(key, { ...place, until, ms, unexplained });
  }
}

interface Account {
  readonly account: string | null;
}

/** Whom a registry counts: the user of the credentials that a request for the repository is sent with; null for this gateway's address. */
function accountOf(route: Route, repository: string): string | null {
  return credentialsFor(route, repository)?.username ?? null;
}

/** Whether a 429 is about pulls that are counted: the registry says that none is left, or calls it so. */
function isPullLimit({ what, method }: Question, { said }: StatusError, limit: RateLimit | null): boolean {
  if (what !== 'manifests') return false;
  if (limit !== null) return limit.remaining === 0;
  return method === 'GET' && said.code === 'TOOMANYREQUESTS' && /pull rate limit/i.test(said.message ?? '');
}

/** How much is left of a limit; where that is not said, the number itself tells which is nearest its end. */
function share({ limit, remaining }: BudgetRow): number {
  return (remaining ?? 0) / Math.max(1, limit ?? remaining ?? 1);
}

function restOf(
  rests: LRUCache<string, Rest>,
  key: string,
  now: number,
): { host: string; ms: number; unexplained: boolean } | null {
  const rest = rests.get(key);
  if (rest === undefined) return null;
  const { host, until, unexplained = false } = rest;
  return until > now ? { host, ms: until - now, unexplained } : null;
}

/** An address is another one through a proxy. */
function originKey(route: Route, endpoint: URL): string {
  return `${rowOf(route)} ${endpoint.origin} ${route.proxy ?? ''}`;
}

function budgetKey(route: Route, endpoint: URL, repository: string): string {
  return JSON.stringify([originKey(route, endpoint), accountOf(route, repository)]);
}

function questionKey({ route, endpoint, method, what, repository }: Question): string {
  return JSON.stringify([budgetKey(route, endpoint, repository), endpoint.pathname, method, what, repository]);
}
