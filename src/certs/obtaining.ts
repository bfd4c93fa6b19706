import { OperatorError } from '../kit/operator-error.ts';
import { iso } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import { adviceFor } from './advice.ts';
import { AttemptFailed, type AttemptNotes, type Attempts } from './attempt.ts';
import type { Clock } from './clock.ts';
import type { Coverage } from './coverage.ts';
import type { Holdings } from './holdings.ts';
import type { HostRecords } from './host-records.ts';
import type { Issuer } from './issuer.ts';
import { inWords, recordFailure, recordSuccess } from './outcome.ts';
import { RunningAttempt } from './running.ts';
import type { CertificateInfo, Narrator } from './service.ts';
import type { Standing } from './standing.ts';
import type { StoredCertificate } from './store.ts';

export interface ObtainingParts {
  readonly attempts: Attempts;
  readonly issuers: readonly Issuer[];
  readonly coverage: Coverage;
  readonly holdings: Holdings;
  readonly records: HostRecords;
  readonly standing: Standing;
  readonly log: Logger;
  readonly clock: Clock;
  /** Ends every attempt. */
  readonly signal: AbortSignal;
  /** One ended, well or not. */
  readonly ended: () => void;
}

/** Attempts under way, one a host; what each brings is taken into use, remembered and told. */
export class Obtaining {
  readonly #parts: ObtainingParts;
  readonly #running = new Map<string, RunningAttempt>();

  constructor(parts: ObtainingParts) {
    this.#parts = parts;
  }

  isRunning(host: string): boolean {
    return this.#running.has(host);
  }

  /** Resolves when none runs any more. */
  async idle(): Promise<void> {
    await Promise.allSettled([...this.#running.values()].map(({ done }) => done));
  }

  startOrJoin(host: string): RunningAttempt {
    const running = this.#running.get(host);
    if (running !== undefined) return running;
    const attempt = new RunningAttempt(async (narrate) => {
      try {
        // Begins after the attempt is known as running.
        await null;
        return await this.#attempt(host, narrate);
      } finally {
        this.#running.delete(host);
        this.#parts.ended();
      }
    });
    this.#running.set(host, attempt);
    return attempt;
  }

  async #attempt(host: string, narrate: Narrator): Promise<CertificateInfo> {
    const { attempts, holdings, records, standing, log, signal } = this.#parts;
    const record = records.get(host);
    const held = holdings.own(host);
    const { holds, uncheckedAt, challenge } = record;
    const notes: AttemptNotes = { holds: { ...holds }, uncheckedAt, challenge };
    const tell: Narrator = (step) => {
      log.debug({ host, step: step.step }, step.message);
      if (step.message.startsWith('warning')) records.addEvent(host, step.message);
      narrate(step);
    };
    try {
      const certificate = await attempts.run({ host, record, held, narrate: tell, signal }, notes);
      this.#succeeded(host, certificate, notes);
      tell({ step: 'in use', message: `a certificate from ${certificate.issuer}, until ${iso(certificate.notAfter)}` });
      return standing.describe(host);
    } catch (error) {
      if (!(error instanceof AttemptFailed)) throw error;
      throw this.#failed(host, error, held, notes);
    }
  }

  #succeeded(host: string, certificate: StoredCertificate, notes: AttemptNotes): void {
    const { coverage, holdings, records, log, clock } = this.#parts;
    const { issuer, serial } = certificate;
    const notAfter = iso(certificate.notAfter);
    holdings.take(certificate);
    records.put(recordSuccess(host, notes, clock.now()));
    coverage.publish();
    records.addEvent(host, `${issuer} issued a certificate (by ${notes.challenge}), valid until ${notAfter}`);
    log.info({ host, issuer, serial, notAfter }, 'a new certificate is in use');
  }

  /** Records the failure and gives it in words for whoever waits. */
  #failed(host: string, failure: AttemptFailed, held: StoredCertificate | null, notes: AttemptNotes): OperatorError {
    const { issuers, records, standing, log, clock } = this.#parts;
    const now = clock.now();
    const { main } = failure;
    const record = recordFailure(records.get(host), failure, { notes, held, issuers, now });
    records.put(record);
    // A renewal that a person asked for early is not pressing.
    const again = iso(standing.dueAt(host) ?? record.nextAttempt ?? now);
    const words = inWords(failure, issuers);
    records.addEvent(host, `${words}; next attempt at ${again}`);
    const facts = { host, problem: main.type, detail: main.detail, failures: record.failures, nextAttempt: again };
    const waiting = main.type === 'waiting';
    if (held !== null && held.notAfter <= now) {
      const what = 'CERTIFICATE RAN OUT and cannot be renewed: clients refuse it';
      log.error({ ...facts, notAfter: iso(held.notAfter) }, what);
    } else log.warn(facts, waiting ? 'a certificate waits for its turn' : 'a certificate could not be obtained');
    return new OperatorError(
      `CERTIFICATE_${waiting ? 'WAITING' : 'REFUSED'}`,
      `no new certificate for ${host}: ${words}; the gateway tries again at ${again}`,
      { next: `${adviceFor(main.type)}; the whole story: gateway cert explain ${host}`, cause: failure },
    );
  }
}
