import type { Challenge, Challenges } from '../../src/certs/challenges.ts';
import { Watchers } from './watchers.ts';

const idOf = (challenge: Challenge) =>
  `${challenge.type} ${challenge.type === 'http-01' ? challenge.token : challenge.host}`;
const answerOf = (challenge: Challenge) =>
  challenge.type === 'http-01' ? challenge.keyAuthorization : challenge.chain + challenge.key;

/** Challenges that live as long as the test. */
export class MemoryChallenges implements Challenges {
  readonly #shared: { readonly pending: Map<string, Challenge>; readonly watchers: Watchers };

  /** @param twin another holder of the same store */
  constructor(twin?: MemoryChallenges) {
    this.#shared = twin === undefined ? { pending: new Map(), watchers: new Watchers() } : twin.#shared;
  }

  async put(challenge: Challenge): Promise<void> {
    this.#shared.pending.set(idOf(challenge), challenge);
    this.#shared.watchers.changed(this);
  }

  async remove(challenge: Challenge): Promise<void> {
    const held = this.#shared.pending.get(idOf(challenge));
    if (held === undefined || answerOf(held) !== answerOf(challenge)) return;
    this.#shared.pending.delete(idOf(challenge));
    this.#shared.watchers.changed(this);
  }

  async list(now: number): Promise<Challenge[]> {
    return [...this.#shared.pending.values()].filter(({ expiresAt }) => expiresAt > now);
  }

  watch(listener: () => void): () => void {
    return this.#shared.watchers.add(this, listener);
  }
}
