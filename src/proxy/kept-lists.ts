import { LRUCache } from 'lru-cache';
import type { RegistryEntry } from '../aliases/table.ts';
import { ownCopy } from '../kit/own-copy.ts';
import { elapsed } from '../kit/time.ts';
import { RegistryError } from '../oci/errors.ts';
import { repositoryId } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import { type Pull, type Reply, withWarning } from './reply.ts';
import { flightId, isTransient, type RepositoryAccess } from './repository-access.ts';
import { StaleIfError, staleWarning } from './stale.ts';

/** Bytes of lists in memory; a page of tags or referrers is some KiB. */
const MOST_BYTES = 16 * 1024 * 1024;
/** Charged for an entry beside its body. */
const OVERHEAD = 512;

export interface KeptListsOptions {
  readonly access: RepositoryAccess;
  /** How old a list may be that is served while its registry fails, ms; read at each use. */
  readonly config: { readonly staleFor: number };
  readonly log: Logger;
  readonly now: () => number;
}

interface KeptList {
  readonly reply: Reply & { readonly body: Uint8Array };
  readonly checkedAt: number;
  /** When it was asked for, in the count of denials. */
  readonly asked: number;
}

/**
 * The last lists of tags and referrers that registries gave, for while they fail. Every request asks the registry; a list is kept in memory
 * alone. Without it, clients that ask for referrers as they pull (Docker from 29 on, for images with attestations) could not pull what is kept.
 */
export class KeptLists {
  readonly #options: KeptListsOptions;
  readonly #kept = new LRUCache<string, KeptList>({
    maxSize: MOST_BYTES,
    sizeCalculation: ({ reply }, id) => reply.body.length + id.length + OVERHEAD,
  });
  readonly #staleIfError: StaleIfError;

  constructor(options: KeptListsOptions) {
    this.#options = options;
    this.#staleIfError = new StaleIfError(options.now);
  }

  /** Forgets all: the table has changed. */
  clear(): void {
    this.#kept.clear();
    this.#staleIfError.clear();
  }

  /**
   * The registry's answer, or the last one with a warning while it fails.
   * @throws {RegistryError} the registry's, where no list that is kept may be served in its place
   */
  async serve(pull: Pull, entry: RegistryEntry, ask: () => Promise<Reply>): Promise<Reply> {
    const { base, name, ns, target } = pull;
    const id = flightId(entry, JSON.stringify([repositoryId(target), base, name, ns, target.what]));
    const before = this.#usable(id, pull);
    if (before !== null && this.#staleIfError.isFailing(id)) return this.#stale(id, pull, before);
    const asked = this.#ask(id, ask);
    if (before === null) return asked;
    // Where it comes too late nobody waits for it any more.
    asked.catch(() => {});
    try {
      const answer = await this.#staleIfError.within(id, asked, `${entry.host} does not answer`);
      if (answer !== null) return answer;
    } catch (error) {
      if (!isTransient(error)) throw error;
      const { registry, repository } = target;
      const reason = error instanceof RegistryError ? error.logged : String(error);
      const { kind } = target.what;
      this.#options.log.warn(
        { registry, repository, kind, reason },
        'the registry fails; a kept list is served in its place',
      );
    }
    // The registry may have closed the repository meanwhile, in answer to another request.
    const still = this.#usable(id, pull);
    return still === null ? asked : this.#stale(id, pull, still);
  }

  async #ask(id: string, ask: () => Promise<Reply>): Promise<Reply> {
    const { access, now } = this.#options;
    const { generation } = access;
    const asked = access.denials.now;
    try {
      const reply = await ask();
      if (reply.from === 'stale') return reply;
      this.#staleIfError.succeeded(id);
      // What was asked of the table before proves nothing after its change.
      if (reply.body instanceof Uint8Array && generation === access.generation) {
        this.#kept.set(id, { reply: { ...reply, body: ownCopy(reply.body) }, checkedAt: now(), asked });
      }
      return reply;
    } catch (error) {
      this.#staleIfError.failed(id, error);
      if (!isTransient(error)) this.#kept.delete(id);
      throw error;
    }
  }

  /** What is kept and not too old, of a repository that was not denied since. */
  #usable(id: string, { target }: Pull): KeptList | null {
    const { access, config, now } = this.#options;
    const kept = this.#kept.get(id);
    if (kept === undefined || access.denials.since(kept.asked, repositoryId(target))) return null;
    return elapsed(kept.checkedAt, now()) <= config.staleFor ? kept : null;
  }

  #stale(id: string, { target, method }: Pull, { reply, checkedAt }: KeptList): Reply {
    const trouble = this.#staleIfError.trouble(id, `${target.registry} cannot be connected to`);
    const warning = staleWarning(trouble, checkedAt, this.#options.now());
    return {
      ...reply,
      headers: withWarning(reply.headers, warning),
      body: method === 'HEAD' ? null : reply.body,
      from: 'stale',
      since: checkedAt,
    };
  }
}
