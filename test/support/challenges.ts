import type { Challenge, Challenges } from '../../src/certs/challenges.ts';
import type { Fence } from '../../src/kit/locks.ts';
import { LockTable } from './locks.ts';
import { SharedBacking } from './store-harness.ts';

/** What a challenge takes the place of, and what it says there. */
function partsOf(challenge: Challenge): { id: string; answer: string } {
  switch (challenge.type) {
    case 'http-01':
      return { id: challenge.token, answer: challenge.keyAuthorization };
    case 'tls-alpn-01':
      return { id: challenge.host, answer: challenge.chain + challenge.key };
    case 'dns-01':
      return {
        id: `${challenge.name} ${challenge.value}`,
        answer: `${challenge.zone} ${challenge.provider} ${challenge.host}`,
      };
  }
}
const idOf = (challenge: Challenge) => `${challenge.type} ${partsOf(challenge).id}`;
const answerOf = (challenge: Challenge) => partsOf(challenge).answer;

/** What several holders share. */
class Shared extends SharedBacking {
  readonly pending = new Map<string, Challenge>();
  readonly locks: LockTable;

  constructor(locks: LockTable) {
    super();
    this.locks = locks;
  }
}

/** Challenges that live as long as the test. */
export class MemoryChallenges implements Challenges {
  readonly #shared: Shared;

  /** @param beside another holder of the same store; or the locks that its writes may be made under */
  constructor(beside: MemoryChallenges | LockTable = new LockTable()) {
    this.#shared = beside instanceof MemoryChallenges ? beside.#shared : new Shared(beside);
  }

  async put(challenge: Challenge, under?: Fence): Promise<void> {
    this.#shared.locks.check(under);
    this.#shared.pending.set(idOf(challenge), challenge);
    this.#shared.changedBy(this);
  }

  async remove(challenge: Challenge): Promise<void> {
    const held = this.#shared.pending.get(idOf(challenge));
    if (held === undefined || answerOf(held) !== answerOf(challenge)) return;
    this.#shared.pending.delete(idOf(challenge));
    this.#shared.changedBy(this);
  }

  async list(now: number): Promise<Challenge[]> {
    return [...this.#shared.pending.values()].filter(({ expiresAt }) => expiresAt > now);
  }

  watch(listener: () => void): () => void {
    return this.#shared.watch(this, listener);
  }
}
