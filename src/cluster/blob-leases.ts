import type { Lock, Locks } from '../kit/locks.ts';
import { type GrowingKey, growingId } from './peer-protocol.ts';

/** The longest that a blob waits for the database, ms; then it counts as away … */
const MAX_WAIT = 1_000;
/** … for so long, ms, without being asked for each blob. */
const AWAY_FOR = 3_000;

/** Who may fetch a blob from its registry: a lease for each registry and digest, which says who has it. */
export class BlobLeases {
  readonly #locks: Locks;
  readonly #node: string;
  readonly #leaseMs: number;
  #awayUntil = 0;

  constructor(locks: Locks, node: string, leaseMs: number) {
    this.#locks = locks;
    this.#node = node;
    this.#leaseMs = leaseMs;
  }

  /** The lease; or the id of the node that has it, empty where that one has just given it back; `away` where the database does not answer. */
  async take(key: GrowingKey): Promise<Lock | string | 'away'> {
    return this.#ask(async () => {
      const name = `blob ${growingId(key)}`;
      const lock = await this.#locks.tryAcquire(name, { leaseMs: this.#leaseMs, note: this.#node });
      return lock ?? (await this.#locks.holder(name)) ?? '';
    });
  }

  /** Whether another node is known to have it. */
  async isAnothers(key: GrowingKey): Promise<boolean> {
    const holder = await this.#ask(() => this.#locks.holder(`blob ${growingId(key)}`));
    return holder !== null && holder !== 'away' && holder !== this.#node;
  }

  async #ask<T>(task: () => Promise<T>): Promise<T | 'away'> {
    if (performance.now() < this.#awayUntil) return 'away';
    let late: NodeJS.Timeout | undefined;
    const asked = task();
    const timeout = new Promise<'away'>((resolve) => {
      late = setTimeout(resolve, MAX_WAIT, 'away');
    });
    try {
      const answer = await Promise.race([asked, timeout]);
      if (answer === 'away') {
        this.#awayUntil = performance.now() + AWAY_FOR;
        // A lease that comes when nobody waits for it any more is given back.
        asked.then((late) => releaseLate(late)).catch(() => {});
      }
      return answer;
    } catch {
      this.#awayUntil = performance.now() + AWAY_FOR;
      return 'away';
    } finally {
      clearTimeout(late);
    }
  }
}

function releaseLate(answer: unknown): void {
  if (typeof answer === 'object' && answer !== null) void (answer as Lock).release();
}
