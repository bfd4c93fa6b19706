import { createHash } from 'node:crypto';
import { Cron } from 'croner';
import { OperatorError } from '../kit/operator-error.ts';

/** What a run may be late so that not all rows, and not all gateways of a fleet, ask registries at the same moment: a tenth of the time between two runs, … */
const JITTER_SHARE = 0.1;
/** … and no more than this, ms. */
const MOST_JITTER = 10 * 60_000;

/** When an image is to be fetched: a cron expression of five fields, in UTC, so that it means the same on every gateway of a fleet. */
export class Schedule {
  readonly #cron: Cron;

  /** @throws {OperatorError} `SCHEDULE_INVALID` */
  constructor(expression: string) {
    const invalid = (why: string) => new OperatorError('SCHEDULE_INVALID', `"${expression.slice(0, 100)}" ${why}`);
    const fields = expression.trim().split(/\s+/).filter(Boolean).length;
    // `@daily` is one word.
    if (fields !== 5 && !expression.trim().startsWith('@'))
      throw invalid(`is no cron expression: it has ${fields} ${fields === 1 ? 'field' : 'fields'}, not five`);
    try {
      this.#cron = new Cron(expression.trim(), { timezone: 'UTC', mode: '5-part' });
    } catch (error) {
      const why = (error as Error).message.replace(/^\w+: /, '');
      throw invalid(`is no cron expression: ${why}`);
    }
    if (this.#cron.nextRun() === null) throw invalid('never comes: no such day is in the calendar');
  }

  /** The first time behind this one (ms since 1970). */
  after(time: number): number {
    return this.#cron.nextRun(new Date(time))?.getTime() ?? Number.POSITIVE_INFINITY;
  }

  /**
   * The same with the jitter of whoever runs it: always the same for the same `who`, so that a restart moves nothing.
   * @param who the image, and the node where each runs it for itself
   */
  dueAfter(time: number, who: string): number {
    const at = this.after(time);
    if (at === Number.POSITIVE_INFINITY) return at;
    return at + shareOf(who) * Math.min(MOST_JITTER, JITTER_SHARE * (this.after(at) - at));
  }
}

/** Between 0 and 1, evenly spread over texts. */
function shareOf(text: string): number {
  return createHash('sha256').update(text).digest().readUInt32BE(0) / 2 ** 32;
}
