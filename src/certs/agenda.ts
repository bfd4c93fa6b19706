import type { Logger } from '../telemetry/log.ts';
import type { Clock } from './clock.ts';
import type { Coverage } from './coverage.ts';
import type { Holdings } from './holdings.ts';
import type { HostRecords } from './host-records.ts';
import type { Obtaining } from './obtaining.ts';
import type { RenewalWatch } from './renewal-watch.ts';
import type { ClockSkew } from './skew.ts';
import type { Standing } from './standing.ts';
import type { StoredCertificate } from './store.ts';

/** Attempts in the background at once: one that hangs must not hold up the rest, and a CA must not meet a flood. */
const PARALLEL = 8;
/** The listeners open right after the start; a CA that looks before that would count a failure, ms. */
const START_GRACE = 500;
/** The longest sleep, ms: a machine that was suspended, or whose clock was set, is noticed. */
const LONGEST_SLEEP = 60_000;

export interface AgendaParts {
  readonly coverage: Coverage;
  readonly holdings: Holdings;
  readonly records: HostRecords;
  readonly standing: Standing;
  readonly obtaining: Obtaining;
  readonly watch: RenewalWatch;
  readonly skew: ClockSkew;
  readonly log: Logger;
  readonly clock: Clock;
}

/** What is to be done in the background, and when: first orders, renewals, attempts after failures, questions to CAs when to renew. */
export class Agenda {
  readonly #parts: AgendaParts;
  #live = false;
  #background = 0;
  #callOff: () => void = () => {};

  constructor(parts: AgendaParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#callOff = this.#parts.clock.after(START_GRACE, () => {
      this.#live = true;
      this.look();
    });
  }

  stop(): void {
    this.#live = false;
    this.#callOff();
  }

  /** Looks at every host, begins what is due, and sleeps until the next thing is. To be called after any change. */
  look(): void {
    if (!this.#live) return;
    const { coverage, holdings, standing, obtaining, clock } = this.#parts;
    this.#callOff();
    const now = clock.now();
    let wake = now + LONGEST_SLEEP;
    const due: { host: string; urgency: number }[] = [];
    for (const host of coverage.hosts) {
      if (obtaining.isRunning(host)) continue;
      const own = holdings.own(host);
      if (own !== null) wake = Math.min(wake, this.#watchRenewal(own, now));
      const at = standing.dueAt(host);
      if (at === null) continue;
      if (at > now) wake = Math.min(wake, at);
      else due.push({ host, urgency: own?.notAfter ?? now });
    }
    due.sort((one, other) => one.urgency - other.urgency);
    for (const { host } of due.slice(0, Math.max(0, PARALLEL - this.#background))) this.#runInBackground(host);
    this.#callOff = clock.after(Math.max(0, wake - now), () => this.look());
  }

  #runInBackground(host: string): void {
    this.#background++;
    const done = () => {
      this.#background--;
      this.look();
    };
    this.#parts.obtaining.startOrJoin(host).done.then(done, done);
  }

  /** Asks the CA about this certificate when it is time to; answers when that is next. */
  #watchRenewal(own: StoredCertificate, now: number): number {
    const { holdings, records, watch, skew, log, clock } = this.#parts;
    const { host, renewal } = records.get(own.name);
    return watch.look(own, renewal, now, (answer) => {
      if (holdings.own(host)?.fingerprint !== own.fingerprint) return;
      if (answer !== null) {
        const urgent = answer.windowEnd <= clock.now() && answer.windowEnd !== renewal?.windowEnd;
        records.put({ ...records.get(host), renewal: answer });
        if (urgent) {
          const why = answer.explanation === null ? '' : `: ${answer.explanation}`;
          records.addEvent(host, `the CA wants this certificate replaced at once${why}`);
          log.warn({ host, explanation: answer.explanation }, 'the CA wants a certificate replaced at once');
        }
      }
      skew.notice();
      this.look();
    });
  }
}
