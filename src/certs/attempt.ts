import type { ChallengeType } from '../config/config.ts';
import type { CertificateMaterial } from './certificate.ts';
import type { ChallengeBoard } from './challenges.ts';
import type { Clock } from './clock.ts';
import { contextOf } from './contexts.ts';
import { type Issuer, IssuerError, type OwnProblem } from './issuer.ts';
import type { CertificateMetrics } from './metrics.ts';
import type { CaQueue } from './queue.ts';
import { type SelfCheckResult, selfCheck } from './self-check.ts';
import type { Narrator } from './service.ts';
import type { CertStore, HostRecord, StoredCertificate } from './store.ts';

/** What one attempt changes in a host's record, whether it succeeds or not. */
export interface AttemptNotes {
  holds: Record<string, number>;
  uncheckedAt: number | null;
  challenge: ChallengeType | null;
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

export interface AttemptSettings {
  readonly issuers: readonly Issuer[];
  /** Those whose listener is open, in the configured order. */
  readonly challenges: readonly ChallengeType[];
  readonly selfCheck: boolean;
  readonly resolvers: readonly string[];
  /** Where CAs connect: 80 and 443. */
  readonly ports: { readonly http: number; readonly https: number };
}

export interface AttemptTask {
  readonly host: string;
  readonly record: HostRecord;
  /** The certificate that this one follows; null for the first. */
  readonly held: StoredCertificate | null;
  readonly narrate: Narrator;
  readonly signal: AbortSignal;
}

/** With a failing self-check a CA is asked at most this often: it allows 5 failed validations an hour. */
const UNCHECKED_INTERVAL = 3_600_000;
/** The longest wait for one answer of a CA, ms; a finalisation may take several seconds. */
const ANSWER_TIMEOUT = 20_000;
/** A CA that hangs must leave time for the next one: no answer may take more than this share of what is left of the certificate. */
const ANSWER_SHARE = 1 / 10;
const ANSWER_TIMEOUT_LEAST = 3_000;

/** One attempt: the self-check, then issuer by issuer, each with the ways of validation that promise most. */
export class Attempts {
  readonly #settings: AttemptSettings;
  readonly #board: ChallengeBoard;
  readonly #queue: CaQueue;
  readonly #store: CertStore;
  readonly #clock: Clock;
  readonly #metrics: CertificateMetrics;

  constructor(parts: {
    settings: AttemptSettings;
    board: ChallengeBoard;
    queue: CaQueue;
    store: CertStore;
    clock: Clock;
    metrics: CertificateMetrics;
  }) {
    this.#settings = parts.settings;
    this.#board = parts.board;
    this.#queue = parts.queue;
    this.#store = parts.store;
    this.#clock = parts.clock;
    this.#metrics = parts.metrics;
  }

  /** The certificate is in the store when this resolves. @throws {AttemptFailed} `notes` is filled either way. */
  async run(task: AttemptTask, notes: AttemptNotes): Promise<StoredCertificate> {
    const challenges = await this.#challengesFor(task, notes);
    const problems: IssuerError[] = [];
    for (const issuer of this.#settings.issuers) {
      try {
        return await this.#ask(issuer, challenges, task, notes);
      } catch (error) {
        task.signal.throwIfAborted();
        const problem = error instanceof IssuerError ? error : this.#unexpected(error, issuer);
        problems.push(problem);
        if (problem.type === 'waiting') continue;
        if (problem.retryAfter !== null) notes.holds[issuer.directory] = this.#clock.now() + problem.retryAfter;
      }
    }
    const [first, ...rest] = problems;
    throw new AttemptFailed([first ?? new IssuerError('internal', 'acme.issuers is empty'), ...rest]);
  }

  /** Ways of validation to try, the most promising first. */
  async #challengesFor(task: AttemptTask, notes: AttemptNotes): Promise<readonly ChallengeType[]> {
    const { challenges } = this.#settings;
    if (challenges.length === 0) {
      throw new AttemptFailed([
        new IssuerError(
          'challengeUnavailable',
          'no challenge of acme.challenges can be answered: http-01 needs listen.http, tls-alpn-01 needs listen.https',
        ),
      ]);
    }
    // What worked last comes first: a CA counts failed validations.
    const { challenge } = notes;
    const preferred = challenge === null || !challenges.includes(challenge) ? challenges : first(challenge, challenges);
    if (!this.#settings.selfCheck) {
      task.narrate({ step: 'resolve', message: 'not checked (acme.selfCheck is off)' });
      return preferred;
    }
    const result = await selfCheck({
      host: task.host,
      challenges,
      resolvers: this.#settings.resolvers,
      ports: this.#settings.ports,
      responder: this.#board,
      signal: task.signal,
    });
    if (result.passed.length > 0) {
      task.narrate({ step: 'resolve', message: `${result.records.join(', ')}, and this gateway answers there` });
      return [
        ...preferred.filter((one) => result.passed.includes(one)),
        ...preferred.filter((one) => !result.passed.includes(one)),
      ];
    }
    this.#allowUnchecked(task, notes, result);
    return preferred;
  }

  /** The name does not lead here as far as we see. That is a warning: one real attempt an hour, or when time runs out. */
  #allowUnchecked(task: AttemptTask, notes: AttemptNotes, { problems, records }: SelfCheckResult): void {
    const now = this.#clock.now();
    const what = [...(records.length > 0 ? [`found ${records.join(', ')}`] : []), ...problems].join('; ');
    const last = notes.uncheckedAt;
    const runsOut = task.held !== null && task.held.notAfter - now < UNCHECKED_INTERVAL;
    if (last !== null && now - last < UNCHECKED_INTERVAL && !runsOut) {
      task.narrate({ step: 'resolve', message: `warning: ${what}` });
      throw new AttemptFailed([new IssuerError('selfCheck', what)]);
    }
    notes.uncheckedAt = now;
    task.narrate({
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
      const wait = this.#wait(issuer, host, exempt, notes);
      if (wait !== null) {
        tried.push({ challenge, problem: wait });
        break;
      }
      this.#metrics.attempted(issuer.name);
      try {
        const material = await issuer.obtain({
          host,
          challenge,
          replaces,
          responder: this.#board,
          narrate: task.narrate,
          timeout: this.#timeout(held),
          signal: task.signal,
          onOrder: () => this.#queue.ordered(issuer.directory, host, exempt),
        });
        notes.challenge = challenge;
        return this.#keep(issuer, host, material);
      } catch (error) {
        const problem = error instanceof IssuerError ? error : this.#unexpected(error, issuer);
        this.#queue.ended(issuer.directory, host, problem.challengeFailed ? 'failedValidation' : 'failed');
        task.signal.throwIfAborted();
        tried.push({ challenge, problem });
        this.#metrics.failed(issuer.name, problem);
        if (!problem.challengeFailed) break;
        if (challenge !== challenges.at(-1))
          task.narrate({ step: 'validate', message: `${challenge} failed (${problem.message}); trying the next kind` });
      }
    }
    throw together(tried);
  }

  /** Null where it is this host's turn at this CA. */
  #wait(issuer: Issuer, host: string, exempt: boolean, notes: AttemptNotes): IssuerError | null {
    const now = this.#clock.now();
    const hold = notes.holds[issuer.directory] ?? 0;
    const turn = exempt ? null : this.#queue.turn(issuer.directory, host);
    const at = Math.max(hold, turn?.at ?? 0);
    if (at <= now) return null;
    const why = turn !== null && turn.at >= hold ? turn.why : 'this CA asked to be left alone until then';
    notes.holds[issuer.directory] = at;
    return new IssuerError('waiting', `${issuer.name} is not asked before ${new Date(at).toISOString()}: ${why}`, {
      directory: issuer.directory,
    });
  }

  #keep(issuer: Issuer, host: string, material: CertificateMaterial): StoredCertificate {
    const stored: StoredCertificate = {
      ...material,
      source: 'acme',
      name: host,
      directory: issuer.directory,
      obtainedAt: this.#clock.now(),
    };
    // Proves that TLS takes it, before anything depends on it.
    contextOf(stored);
    this.#store.putCertificate(stored);
    this.#queue.ended(issuer.directory, host, 'certificate');
    return stored;
  }

  #timeout(held: StoredCertificate | null): number {
    if (held === null) return ANSWER_TIMEOUT;
    const left = held.notAfter - this.#clock.now();
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

/** These say that a way was not tried, so they explain less than the failure of another. */
const UNTRIED: readonly string[] = ['challengeUnavailable', 'waiting'] satisfies OwnProblem[];

/** What went wrong with one CA, of every way of validation that said something else: the last that was tried leads. */
function together(tried: readonly Tried[]): IssuerError {
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
