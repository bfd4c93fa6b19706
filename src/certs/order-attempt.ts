import type { ChallengeType, Config } from '../config/config.ts';
import { type Fence, FencedError } from '../kit/locks.ts';
import type { Clock } from '../kit/time.ts';
import { isAddress } from './identifier.ts';
import { type ChallengeResponder, type Issuer, IssuerError, type OwnProblem } from './issuer.ts';
import type { ManagedHosts } from './managed-hosts.ts';
import type { RateLimits } from './rate-limits.ts';
import { type SelfCheckResult, selfCheck } from './self-check.ts';
import type { StepListener } from './service.ts';
import type { Finding, HostRecord, StoredCertificate } from './store.ts';
import { isWildcard, namesOf } from './wildcard.ts';
import type { CertificateMaterial } from './x509.ts';

/** What one attempt changes in a host's record, whether it succeeds or not. */
export interface AttemptNotes {
  holds: Record<string, number>;
  uncheckedAt: number | null;
  challenge: ChallengeType | null;
  /** What the self-check saw; null where it was not made. */
  found: Finding | null;
}

/** What an attempt that succeeded brought. */
export interface AttemptOutcome {
  readonly certificate: StoredCertificate;
  /** Of issuers that come before the one that issued it, in their order. */
  readonly refused: readonly IssuerError[];
}

/** No issuer gave a certificate. */
export class AttemptFailed extends Error {
  override readonly name = 'AttemptFailed';
  /** In the order of the issuers; never empty. */
  readonly problems: readonly IssuerError[];

  constructor(problems: readonly [IssuerError, ...IssuerError[]]) {
    super(problems.map(({ message }) => message).join('; '));
    this.problems = problems;
  }

  /** The one to show first: of the first issuer that was asked. */
  get main(): IssuerError {
    const asked = this.problems.find((problem) => problem.type !== 'waiting') ?? this.problems[0];
    return asked ?? new IssuerError('internal', this.message);
  }
}

/** How a name is proved to be this gateway's. */
export interface Proofs {
  /** Those whose listener is open, in the configured order. */
  readonly challenges: readonly ChallengeType[];
  readonly selfCheck: boolean;
  readonly resolvers: readonly string[];
}

/** Those of the configuration whose listener is open. */
export function proofsOf({ listen, acme }: Pick<Config, 'listen' | 'acme'>): Proofs {
  const open = {
    'http-01': listen.http !== null,
    'tls-alpn-01': listen.https !== null,
    'dns-01': acme.dns.provider !== null,
  };
  const { selfCheck, resolvers } = acme;
  return { challenges: acme.challenges.filter((challenge) => open[challenge]), selfCheck, resolvers };
}

export interface AttemptSettings extends Proofs {
  readonly issuers: readonly Issuer[];
  /** Where CAs connect: 80 and 443. */
  readonly ports: { readonly http: number; readonly https: number };
}

export interface AttemptTask {
  readonly host: string;
  readonly record: HostRecord;
  /** The certificate that is to be replaced; null for the first. */
  readonly held: StoredCertificate | null;
  readonly onStep: StepListener;
  readonly signal: AbortSignal;
  /** The lock of the host. */
  readonly under: Fence;
}

/** With a failing self-check a CA is asked at most this often: it allows 5 failed validations an hour. */
export const UNCHECKED_INTERVAL = 3_600_000;
/** The longest wait for one answer of a CA, ms; a finalisation may take several seconds. */
const ANSWER_TIMEOUT = 20_000;
/** A CA that hangs must leave time for the next one: no answer may take more than this share of what is left of the certificate. */
const ANSWER_SHARE = 1 / 10;
const ANSWER_TIMEOUT_LEAST = 3_000;

/** What is counted of attempts, by the issuer's name. */
export interface AttemptCounters {
  attempted(issuer: string): void;
  failed(issuer: string, error: IssuerError): void;
}

export interface OrderAttemptsParts {
  readonly settings: AttemptSettings;
  readonly responder: ChallengeResponder;
  /** Removes what an earlier run of an order has left in DNS. */
  readonly clear: (order: string) => Promise<void>;
  readonly limits: RateLimits;
  readonly hosts: ManagedHosts;
  readonly clock: Clock;
  readonly counters: AttemptCounters;
}

/** One attempt to get a certificate: the self-check, then issuer by issuer, each with the challenge types that are most likely to work. */
export class OrderAttempts {
  readonly #parts: OrderAttemptsParts;
  #settings: AttemptSettings;

  constructor(parts: OrderAttemptsParts) {
    this.#parts = parts;
    this.#settings = parts.settings;
  }

  /** For attempts from now on. */
  reconfigure(proofs: Proofs): void {
    this.#settings = { ...this.#settings, ...proofs };
  }

  /** The certificate is stored and served when this resolves. @throws {AttemptFailed} `notes` is filled either way; {FencedError} */
  async run(task: AttemptTask, notes: AttemptNotes): Promise<AttemptOutcome> {
    const challenges = await this.#challengesFor(task, notes);
    if (challenges.includes('dns-01')) await this.#parts.clear(task.host);
    const problems: IssuerError[] = [];
    for (const issuer of this.#settings.issuers) {
      try {
        return { certificate: await this.#ask(issuer, challenges, task, notes), refused: problems };
      } catch (error) {
        task.signal.throwIfAborted();
        if (error instanceof FencedError) throw error;
        const problem = error instanceof IssuerError ? error : this.#unexpected(error, issuer);
        problems.push(problem);
        if (issuer !== this.#settings.issuers.at(-1)) {
          const step = problem.type === 'waiting' ? 'later' : 'refused';
          task.onStep({ step, message: `${issuer.name}: ${problem.message}; the next CA is asked` });
        }
        if (problem.type === 'waiting') continue;
        if (problem.retryAfter !== null) notes.holds[issuer.directory] = this.#parts.clock.now() + problem.retryAfter;
      }
    }
    const [first, ...rest] = problems;
    throw new AttemptFailed([first ?? new IssuerError('internal', 'acme.issuers is empty'), ...rest]);
  }

  /** Challenge types to try, the most promising first. */
  async #challengesFor(task: AttemptTask, notes: AttemptNotes): Promise<readonly ChallengeType[]> {
    const wildcard = isWildcard(task.host);
    const isName = !isAddress(task.host);
    // RFC 8555 §7.4.1 leaves it to CAs; all of them want a wildcard proved in DNS. An address has no record there (RFC 8738 §7).
    const challenges = this.#settings.challenges.filter((kind) => (kind === 'dns-01' ? isName : !wildcard));
    if (challenges.length === 0) {
      const needs = 'http-01 needs listen.http, tls-alpn-01 needs listen.https, dns-01 needs acme.dns';
      const why = wildcard
        ? 'a wildcard is proved by dns-01 alone: name it in acme.challenges, and a provider in acme.dns'
        : `no challenge of acme.challenges can be answered: ${needs}`;
      throw new AttemptFailed([new IssuerError('challengeUnavailable', why)]);
    }
    // What worked last comes first: a CA counts failed validations.
    const { challenge } = notes;
    const preferred = challenge === null || !challenges.includes(challenge) ? challenges : first(challenge, challenges);
    if (!this.#settings.selfCheck) {
      task.onStep({ step: 'resolve', message: 'not checked (acme.selfCheck is off)' });
      return preferred;
    }
    // Records in DNS are looked for once they are there.
    const byAddress = challenges.filter((kind) => kind !== 'dns-01');
    if (byAddress.length === 0) return preferred;
    const result = await selfCheck({
      host: task.host,
      domain: this.#parts.hosts.domain,
      challenges: byAddress,
      resolvers: this.#settings.resolvers,
      ports: this.#settings.ports,
      responder: this.#parts.responder,
      signal: task.signal,
    });
    if (byAddress.length < challenges.length) {
      return preferred.filter((kind) => kind === 'dns-01' || result.passed.includes(kind));
    }
    if (result.passed.length > 0) {
      const what = `${result.records.join(', ') || task.host}, and this gateway answers there`;
      notes.found = { what, next: '', leadsHere: true };
      task.onStep({ step: 'resolve', message: what });
      return [
        ...preferred.filter((one) => result.passed.includes(one)),
        ...preferred.filter((one) => !result.passed.includes(one)),
      ];
    }
    this.#allowUnchecked(task, notes, result);
    // A CA counts each kind that fails.
    return result.everyKind ? preferred.slice(0, 1) : preferred;
  }

  /** The self-check failed. That is a warning: a CA is asked all the same once an hour, or when the certificate is about to run out. */
  #allowUnchecked(task: AttemptTask, notes: AttemptNotes, { problems, records }: SelfCheckResult): void {
    const now = this.#parts.clock.now();
    const what = [
      ...(records.length > 0 ? [`found ${records.join(', ')}`] : []),
      ...problems.map((problem) => problem.what),
    ].join('; ');
    notes.found = findingOf(problems);
    const last = notes.uncheckedAt;
    const runsOut = task.held !== null && task.held.notAfter - now < UNCHECKED_INTERVAL;
    if (last !== null && now - last < UNCHECKED_INTERVAL && !runsOut) {
      task.onStep({ step: 'resolve', message: `warning: ${what}` });
      throw new AttemptFailed([new IssuerError('selfCheck', what)]);
    }
    notes.uncheckedAt = now;
    task.onStep({
      step: 'resolve',
      message: `warning: ${what}; the CA is asked all the same, once an hour, in case only this machine sees it so`,
    });
  }

  async #ask(
    issuer: Issuer,
    challenges: readonly ChallengeType[],
    task: AttemptTask,
    notes: AttemptNotes,
  ): Promise<StoredCertificate> {
    const { host, held } = task;
    const replaces = held !== null && held.directory === issuer.directory ? held.chain : null;
    const tried: Tried[] = [];
    for (const challenge of challenges) {
      // The CA's own limits exempt renewals that follow its ARI.
      const exempt = replaces !== null && task.record.renewal !== null;
      const wait = await this.#wait(issuer, host, exempt, notes);
      if (wait !== null) {
        tried.push({ challenge, problem: wait });
        break;
      }
      this.#parts.counters.attempted(issuer.name);
      try {
        const material = await issuer.obtain({
          host,
          names: namesOf(host),
          challenge,
          replaces,
          responder: this.#parts.responder,
          onStep: task.onStep,
          timeout: this.#timeout(held),
          signal: task.signal,
          under: task.under,
          onOrder: () => this.#parts.limits.ordered(issuer.directory, host, exempt, task.under),
        });
        notes.challenge = challenge;
        return await this.#keep(issuer, task, material);
      } catch (error) {
        if (error instanceof FencedError) throw error;
        const problem = error instanceof IssuerError ? error : this.#unexpected(error, issuer);
        const outcome = problem.challengeFailed ? 'failedValidation' : 'failed';
        await this.#parts.limits.ended(issuer.directory, host, outcome, task.under);
        task.signal.throwIfAborted();
        tried.push({ challenge, problem });
        this.#parts.counters.failed(issuer.name, problem);
        if (!problem.challengeFailed && !problem.unanswered) break;
        if (challenge !== challenges.at(-1))
          task.onStep({ step: 'validate', message: `${challenge} failed (${problem.message}); trying the next kind` });
      }
    }
    throw combine(tried);
  }

  /** Null where this CA may be asked for this host now. */
  async #wait(issuer: Issuer, host: string, exempt: boolean, notes: AttemptNotes): Promise<IssuerError | null> {
    const now = this.#parts.clock.now();
    const hold = notes.holds[issuer.directory] ?? 0;
    const postponed = exempt ? null : await this.#parts.limits.postponement(issuer.directory, host);
    const at = Math.max(hold, postponed?.at ?? 0);
    if (at <= now) return null;
    const why =
      postponed !== null && postponed.at >= hold ? postponed.why : 'this CA asked to be left alone until then';
    notes.holds[issuer.directory] = at;
    return new IssuerError('waiting', `${issuer.name} is not asked before ${new Date(at).toISOString()}: ${why}`, {
      directory: issuer.directory,
    });
  }

  async #keep(issuer: Issuer, { host, under }: AttemptTask, material: CertificateMaterial): Promise<StoredCertificate> {
    const stored: StoredCertificate = {
      ...material,
      source: 'acme',
      name: host,
      directory: issuer.directory,
      obtainedAt: this.#parts.clock.now(),
    };
    await this.#parts.hosts.keep(stored, under);
    await this.#parts.limits.ended(issuer.directory, host, 'certificate', under);
    return stored;
  }

  #timeout(held: StoredCertificate | null): number {
    if (held === null) return ANSWER_TIMEOUT;
    const left = held.notAfter - this.#parts.clock.now();
    const share = left > 0 ? Math.round(left * ANSWER_SHARE) : ANSWER_TIMEOUT;
    return Math.max(ANSWER_TIMEOUT_LEAST, Math.min(ANSWER_TIMEOUT, share));
  }

  #unexpected(error: unknown, issuer: Issuer): IssuerError {
    const detail = error instanceof Error ? error.message : String(error);
    return new IssuerError('internal', detail, { directory: issuer.directory, cause: error });
  }
}

interface Tried {
  readonly challenge: ChallengeType;
  readonly problem: IssuerError;
}

/** These say that a challenge type was not tried, so they explain less than the failure of another. */
const UNTRIED: readonly string[] = ['challengeUnavailable', 'waiting'] satisfies OwnProblem[];

/** Each thing that is wrong is told once, with what to do about it. */
function findingOf(problems: SelfCheckResult['problems']): Finding {
  return {
    what: problems.map(({ what }) => what).join('; '),
    next: [...new Set(problems.map(({ next }) => next))].join('; '),
    leadsHere: false,
  };
}

/** What went wrong with one CA: the problem of the challenge type that was tried last, then those of the others where they differ. */
function combine(tried: readonly Tried[]): IssuerError {
  const lead = tried.findLast(({ problem }) => !UNTRIED.includes(problem.type)) ?? tried.at(-1);
  if (lead === undefined) return new IssuerError('internal', 'no challenge was tried');
  const { problem, challenge } = lead;
  const others = tried.filter((one) => one.problem.message !== problem.message);
  if (others.length === 0) return problem;
  const rest = others.map((one) => `by ${one.challenge}: ${one.problem.message}`);
  return new IssuerError(problem.type, [`${problem.detail} (by ${challenge})`, ...rest].join('; '), {
    ...(problem.status === null ? {} : { status: problem.status }),
    retryAfter: problem.retryAfter,
    challengeFailed: problem.challengeFailed,
    directory: problem.directory,
    cause: problem,
  });
}

function first<T>(one: T, all: readonly T[]): T[] {
  return [one, ...all.filter((other) => other !== one)];
}
