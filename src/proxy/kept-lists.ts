import type { RegistryEntry } from '../aliases/table.ts';
import type { KeptList, ListStore } from '../cache/list-store.ts';
import { elapsed } from '../kit/time.ts';
import type { Shown } from '../oci/credentials.ts';
import { type RepositoryKey, repositoryId } from '../oci/names.ts';
import { rowOf } from '../upstream/upstream.ts';
import type { ListAnswer, ListQuestion } from './lists.ts';
import type { Pull, Reply } from './reply.ts';
import { flightId, isDenial, isTransient, type RepositoryAccess } from './repository-access.ts';
import { StaleIfError, staleness } from './stale.ts';

export interface KeptListsOptions {
  readonly store: ListStore;
  readonly access: RepositoryAccess;
  /** How old a list may be that is served while its registry fails, ms; read at each use. */
  readonly config: { readonly staleFor: number };
  readonly now: () => number;
}

/**
 * The last lists of tags and referrers that registries gave, for while they fail. Every request asks the registry. Without it, clients that ask for
 * referrers as they pull (Docker from 29 on, for images with attestations) could not pull what is kept.
 *
 * A list is its registry's and repository's alone, whoever asked for it. It may be given while the repository was not denied since, and one that
 * was given to credentials only while they are the repository's (whose clients `admit` has checked).
 */
export class KeptLists {
  readonly #options: KeptListsOptions;
  readonly #staleIfError: StaleIfError;

  constructor(options: KeptListsOptions) {
    this.#options = options;
    this.#staleIfError = new StaleIfError(options.now);
  }

  /** Forgets who fails: the table has changed. */
  clear(): void {
    this.#staleIfError.clear();
  }

  /**
   * The registry's answer, or the last one with a warning while it fails.
   * @throws {RegistryError} the registry's, where no list that is kept may be served in its place
   */
  async serve(pull: Pull, entry: RegistryEntry, question: ListQuestion): Promise<Reply> {
    return question.render(await this.#answer(pull, entry, question));
  }

  async #answer(pull: Pull, entry: RegistryEntry, question: ListQuestion): Promise<ListAnswer> {
    const id = flightId(entry, pull.target, `${repositoryId(pull.target)} ${question.id}`);
    if (this.#staleIfError.isFailing(id)) {
      const kept = this.#usable(entry, pull, question);
      if (kept !== null) return this.#stale(id, pull, kept);
    }
    const asked = this.#ask(id, entry, pull, question);
    if (!this.#isUsable(entry, pull, question)) return asked;
    // Where it comes too late nobody waits for it any more.
    asked.catch(() => {});
    try {
      const answer = await this.#staleIfError.within(id, asked, `${entry.host} does not answer`);
      if (answer !== null) return answer;
    } catch (error) {
      if (!isTransient(error)) throw error;
    }
    // The registry may have closed the repository meanwhile, in answer to another request.
    const still = this.#usable(entry, pull, question);
    return still === null ? asked : this.#stale(id, pull, still);
  }

  async #ask(id: string, entry: RegistryEntry, pull: Pull, question: ListQuestion): Promise<ListAnswer> {
    const { access, store, now } = this.#options;
    const { generation } = access;
    const asked = access.denials.now;
    try {
      const answer = await question.ask();
      if (answer.from === 'stale') return answer;
      this.#staleIfError.succeeded(id);
      const shown = access.shownTo(entry, pull.target, asked);
      // What was asked of the table before proves nothing after its change.
      if (shown === null || generation !== access.generation) return answer;
      store.put(pull.target, question.id, { ...answer.list, shown, checkedAt: now() }, ownersOf(entry, pull));
      return answer;
    } catch (error) {
      this.#staleIfError.failed(id, error);
      if (isDenial(error)) store.dropAll(pull.target);
      else if (!isTransient(error)) store.drop(pull.target, question.id);
      throw error;
    }
  }

  /** What is kept, not too old, and may be given through this row. */
  #usable(entry: RegistryEntry, { target }: Pull, { id }: ListQuestion): KeptList | null {
    const kept = this.#options.store.get(target, id);
    return kept !== null && this.#mayServe(entry, target, kept) ? kept : null;
  }

  #isUsable(entry: RegistryEntry, { target }: Pull, { id }: ListQuestion): boolean {
    const state = this.#options.store.state(target, id);
    return state !== null && this.#mayServe(entry, target, state);
  }

  #mayServe(
    entry: RegistryEntry,
    key: RepositoryKey,
    { shown, checkedAt }: { shown: Shown; checkedAt: number },
  ): boolean {
    const { access, config, now } = this.#options;
    return access.counts(shown, entry, key) && elapsed(checkedAt, now()) <= config.staleFor;
  }

  #stale(id: string, { target }: Pull, { checkedAt, ...list }: KeptList): ListAnswer {
    const trouble = this.#staleIfError.trouble(id, `${target.registry} cannot be connected to`);
    const stale = staleness(trouble, checkedAt, this.#options.now());
    return { list, from: 'stale', since: checkedAt, stale };
  }
}

/** In whose shares of the room a list counts. Hosts of one pattern are one registry here, of which there is no end. */
function ownersOf(entry: RegistryEntry, { client }: Pull): { client: string; registry: string } {
  return { client, registry: rowOf(entry) };
}
