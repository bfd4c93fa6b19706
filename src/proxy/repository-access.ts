import { LRUCache } from 'lru-cache';
import { registryOf } from '../aliases/lookup.ts';
import type { RegistryEntry, TableSnapshot } from '../aliases/table.ts';
import type { FactStore, SharedDenials } from '../cache/facts.ts';
import type { SharedContent } from '../cache/shared-store.ts';
import { type CredentialId, hasCredential, haveSameOpeners, openerOf, type Shown } from '../oci/credentials.ts';
import { RegistryError } from '../oci/errors.ts';
import { type BlobKey, type Digest, type RepositoryKey, repositoryId } from '../oci/names.ts';
import { Denials } from './denials.ts';
import type { Pull } from './reply.ts';

/** Refusals of an upstream that a client is told of: what was given before must not be given again in their place. */
const REFUSALS: ReadonlySet<string> = new Set(['upstreamUnauthorized', 'upstreamDenied']);

/**
 * Failures that say nothing about the image, so that a kept answer may stand in: network, 408, 429, 5xx, and an answer that is no
 * registry's at all (a portal or a proxy's page in between); or the gateway itself was too busy to ask.
 */
const TRANSIENT: ReadonlySet<string> = new Set([
  'upstreamFailed',
  'upstreamLoop',
  'upstreamTimeout',
  'upstreamRateLimited',
  'upstreamBudgetSpent',
  'upstreamWrong',
  'credentialsWithheld',
  'unavailable',
  'gatewayBusy',
]);

/** Content that a repository says it holds; the media type of a manifest, without parameters, where it says that too. */
export interface Claim {
  readonly digest: Digest;
  readonly mediaType?: string | undefined;
}

/**
 * Which client may be given what, by what registries said and gave. What a registry says is proof for that registry alone:
 *
 * - Content is *open* while some repository gave it without a credential, or a registry that is `--public` now gave it; else it is closed to the
 *   credentials of registries that it was given to.
 * - A repository gets kept content if it said or gave it itself, and it is open or its own registry gave it to the credentials that this repository has.
 * - What was said or given to credentials counts for a repository only while it has the very same (`CredentialId`): where others took their place,
 *   or none, it is opened anew.
 * - A denial voids what the repository said and gave before; a denial by digest, what it said and gave of that digest.
 *
 * Clients that show no credentials of the gateway get nothing of repositories with credentials, unless the registry is `--public`: see {@link admit}.
 */
export class RepositoryAccess {
  /** What was denied, for those who keep replies in memory. */
  readonly denials = new Denials();
  readonly #table: () => TableSnapshot;
  readonly #facts: FactStore | null;
  readonly #shared: SharedContent | null;
  #announce: SharedDenials['announce'] = () => {};
  #generation = 0;
  /** The rows when the table was last looked at, and the moments when their credentials were last others, by host. */
  #rows: TableSnapshot['registries'];
  readonly #changed = new Map<string, number>();

  /** `facts`: null where nothing is kept. `shared`: what other gateways know of who gave what; null where there are none. */
  constructor(table: () => TableSnapshot, facts: FactStore | null, shared: SharedContent | null = null) {
    this.#table = table;
    this.#facts = facts;
    this.#shared = shared;
    this.#rows = table().registries;
  }

  /** From now on what other gateways of this table were denied counts here too, and what this one is denied there. The function returned ends the first. */
  shareDenials(shared: SharedDenials): () => void {
    this.#announce = (denial, known) => shared.announce(denial, known);
    return shared.watch(({ digest, ...repository }) => {
      const known = this.#facts?.deny(repository, digest) ?? true;
      this.#shared?.deniedElsewhere(repository, digest);
      if (known) this.denials.add(repositoryId(repository));
    });
  }

  /** Grows with each change after which no reply that was given before may be given again. Denials are counted for themselves. */
  get generation(): number {
    return this.#generation;
  }

  /** The table has changed, or what is kept. */
  invalidate(): void {
    this.#generation++;
    const rows = this.#table().registries;
    const before = this.#rows;
    if (rows === before) return;
    this.#rows = rows;
    for (const host of new Set([...before.keys(), ...rows.keys()])) {
      const [one, other] = [before.get(host), rows.get(host)];
      if (one !== other && !haveSameOpeners(one, other)) this.#changed.set(host, this.denials.tick());
    }
  }

  /**
   * Whether a client may use a registry at all. Called before anything of it is looked up, so that a refusal does not depend on what exists.
   * Manifest caches give replies again without calling it: it may decide only by the target, by `authenticated` and by the table, whose change
   * calls `invalidate`. What else a refusal depends on (the client's address, the time) belongs in src/access/access.ts, which every request asks.
   * @throws {RegistryError} registryUnknown, privateContent
   */
  admit(pull: Pull): RegistryEntry {
    const { registry, repository } = pull.target;
    const entry = registryOf(this.#table(), registry);
    if (entry === undefined) throw new RegistryError('registryUnknown', { facts: { registry } });
    if (!entry.public && !pull.authenticated && openerOf(entry, repository) !== null) {
      throw new RegistryError('privateContent', { facts: { registry, repository } });
    }
    return entry;
  }

  /**
   * Whether kept content may be given through this repository without asking its registry.
   * @param said its registry said to another gateway of this table that it holds the content
   */
  mayServe(entry: RegistryEntry, key: RepositoryKey, digest: Digest, said = false): boolean {
    const fact = this.#facts?.of(key, digest) ?? null;
    if (fact === null && !said) return false;
    const opener = openerOf(entry, key.repository);
    if (counts(fact?.gave ?? null, opener)) return true;
    return (said || counts(fact?.said ?? null, opener)) && this.#isOpenTo(entry, opener, digest);
  }

  /**
   * The same, where other gateways may know who gave it: what they know is learnt. Asked only of what this repository is known to hold, since
   * content that it neither said nor gave it gets from its registry alone.
   */
  async mayServeShared(entry: RegistryEntry, key: RepositoryKey, digest: Digest): Promise<boolean> {
    if (this.mayServe(entry, key, digest)) return true;
    if (this.#shared === null || !this.knows(entry, key, digest)) return false;
    const asked = this.denials.now;
    const givers = await this.#shared.givers(digest);
    this.#facts?.add(
      givers
        .filter(({ repository }) => !this.denials.since(asked, repositoryId(repository)))
        .map(({ repository, shown }) => ({ repository, digest, said: null, gave: shown, mediaType: null })),
    );
    return this.mayServe(entry, key, digest);
  }

  /** Whether anybody may be given it: somebody gave it without a credential. */
  isOpen(digest: Digest): boolean {
    return this.#facts?.giversOf(digest).open ?? false;
  }

  /**
   * Whether this repository is known to hold the content: it *said* or *gave* it. Enough to be given what its own registry is just bringing
   * (a growing file is one registry's, by one of its credentials); kept content asks {@link mayServe}.
   */
  knows(entry: RegistryEntry, key: RepositoryKey, digest: Digest): boolean {
    const fact = this.#facts?.of(key, digest) ?? null;
    const opener = openerOf(entry, key.repository);
    return fact !== null && (counts(fact.said, opener) || counts(fact.gave, opener));
  }

  /** Whether a GET of this repository has brought it. */
  hasGiven(entry: RegistryEntry, key: RepositoryKey, digest: Digest): boolean {
    return counts(this.#facts?.of(key, digest)?.gave ?? null, openerOf(entry, key.repository));
  }

  /** What this repository calls the type of a manifest; null where it never said. No other registry's word counts. */
  mediaType(key: RepositoryKey, digest: Digest): string | null {
    return this.#facts?.of(key, digest)?.mediaType ?? null;
  }

  /**
   * This repository *said* that it holds these: a manifest that it gave names them, or its HEAD claims it.
   * @param asked the moment when it was asked, by `denials.now`: what was asked before a denial proves nothing after it
   */
  said(entry: RegistryEntry, key: RepositoryKey, claims: readonly (Digest | Claim)[], asked: number): void {
    const said = this.shownTo(entry, key, asked);
    if (said === null) return;
    this.#facts?.add(
      claims.map((claim) => {
        const { digest, mediaType = null } = typeof claim === 'string' ? { digest: claim } : claim;
        return { repository: key, digest, said, gave: null, mediaType };
      }),
    );
  }

  /**
   * This repository *gave* it: a GET there brought the bytes, and their digest was right.
   * @param asked as for `said`
   * @param mediaType of a manifest
   */
  gave(entry: RegistryEntry, key: RepositoryKey, digest: Digest, asked: number, mediaType: string | null = null): void {
    const gave = this.shownTo(entry, key, asked);
    if (gave === null) return;
    this.#facts?.add([{ repository: key, digest, said: null, gave, mediaType }]);
  }

  /**
   * Draws the conclusion from an upstream's failure: a denial voids what the repository said and gave; where one digest was asked for, what it said
   * and gave of that. Only a denial of something known is remembered: clients must not be able to do anything to others by asking for what
   * is denied.
   */
  failed(asked: RepositoryKey | BlobKey, error: unknown): void {
    if (!isDenial(error)) return;
    const digest = 'digest' in asked ? asked.digest : undefined;
    const known = this.#facts?.deny(asked, digest) ?? true;
    if (known) this.#shared?.denied(asked, digest);
    if (known) this.denials.add(repositoryId(asked));
    // Whether the others know something of it or not, which each finds out for itself.
    this.#announce({ registry: asked.registry, repository: asked.repository, digest }, known);
  }

  /** This repository brought what is not the blob: what it said of it before is void, and so is what it gave. */
  disproved(asked: BlobKey): void {
    this.#facts?.deny(asked, asked.digest);
    this.#shared?.denied(asked, asked.digest);
  }

  /**
   * How far an answer that has just come is a proof; null where the repository was denied since the moment when it was asked. Where credentials
   * came to the repository, or left it, since then, nobody knows whether they were used; where it had first these and then those, which, the more so
   * where the first are back.
   */
  shownTo(entry: RegistryEntry, key: RepositoryKey, asked: number): Shown | null {
    if (asked !== this.denials.now && this.denials.since(asked, repositoryId(key))) return null;
    const before = openerOf(entry, key.repository);
    const row = registryOf(this.#table(), key.registry);
    const now = row === undefined ? null : openerOf(row, key.repository);
    if (before !== null && now !== null && before !== now) return null;
    if (before === now && (this.#changed.get(key.registry) ?? 0) > asked) return null;
    return before ?? now ?? (row === undefined ? null : 'anyone');
  }

  /** Whether a proof counts for the repository as its registry's row is: see above. */
  counts(shown: Shown, entry: RegistryEntry, { repository }: RepositoryKey): boolean {
    return counts(shown, openerOf(entry, repository));
  }

  #isOpenTo(entry: RegistryEntry, opener: CredentialId | null, digest: Digest): boolean {
    const { open, closedTo } = this.#facts?.giversOf(digest) ?? { open: false, closedTo: [] };
    if (open) return true;
    return closedTo.some(({ registry, credential }) => {
      const giver = registryOf(this.#table(), registry);
      if (giver === undefined || !hasCredential(giver, credential)) return false;
      return giver.public || (giver.host === entry.host && credential === opener);
    });
  }
}

/**
 * Names one question to a registry, for those who ask it at the same moment and may share its answer: who comes when the repository has other
 * credentials, or none any more, gets no answer that those opened. `question`: names it among those of the same row.
 */
export function flightId(entry: RegistryEntry, { repository }: RepositoryKey, question: string): string {
  const opener = openerOf(entry, repository);
  return opener === null ? question : `${opener} ${question}`;
}

/** What only some credentials opened has to be opened by those that the repository has now, or by none. */
function counts(shown: Shown | null, opener: CredentialId | null): boolean {
  return shown !== null && (shown === 'anyone' || shown === opener);
}

/** The registry itself refused a GET of this, wherever it was asked: what it gave before is closed. */
export function isDenial(error: unknown): boolean {
  return error instanceof RegistryError && error.options.denied === true;
}

/** 401 or 403, whoever says so. */
export function isRefusal(error: unknown): boolean {
  return error instanceof RegistryError && REFUSALS.has(error.kind);
}

export function isTransient(error: unknown): boolean {
  return error instanceof RegistryError && TRANSIENT.has(error.kind);
}

/** The registry's limit allows no request for it now; it was not sent, or refused. */
export function isSpent(error: unknown): error is RegistryError {
  return error instanceof RegistryError && error.kind === 'upstreamBudgetSpent';
}

export function isMissing(error: unknown): error is RegistryError {
  return error instanceof RegistryError && error.status === 404;
}

/** Long enough for the burst of nodes that all want the same missing image, short enough for the person who then pushes it. */
export const NEGATIVE_TTL = 5_000;
const NEGATIVE_KEPT = 4096;

/** What an upstream did not have a moment ago. Of its answers only 404 is remembered: 401, 403 and 429 may change with the next request. */
export class NegativeCache {
  readonly #now: () => number;
  readonly #entries = new LRUCache<string, { readonly error: RegistryError; readonly until: number }>({
    max: NEGATIVE_KEPT,
  });

  constructor(now: () => number) {
    this.#now = now;
  }

  /** @throws the upstream's error, where it is remembered for this key */
  check(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    if (entry.until > this.#now()) throw entry.error;
    this.#entries.delete(key);
  }

  note(key: string, error: unknown): void {
    if (isMissing(error)) this.#entries.set(key, { error, until: this.#now() + NEGATIVE_TTL });
  }

  /** That a budget allows none: whoever asks meanwhile is told so, and no HEAD is sent for it. */
  noteSpent(key: string, error: unknown): void {
    if (isSpent(error)) this.#entries.set(key, { error, until: this.#now() + NEGATIVE_TTL });
  }

  clear(): void {
    this.#entries.clear();
  }
}
