import type { Statement } from 'better-sqlite3';
import { LRUCache } from 'lru-cache';
import type { Fact, Givers, KnownFact, RegistryCredential } from '../cache/index-port.ts';
import { type CredentialId, DEFAULT_CREDENTIAL, type Shown } from '../oci/credentials.ts';
import { type Digest, type RepositoryKey, repositoryId } from '../oci/names.ts';
import { type Database, prepareAll } from './database.ts';
import { toBytes } from './digest-bytes.ts';

/** The statements of repositories and facts. All of them find their rows by a key, whatever the number of rows; a test asks SQLite for their plans. */
export const FACT_SQL = {
  repository: 'SELECT id, generation FROM repositories WHERE registry = ? AND name = ?',
  addRepository: 'INSERT INTO repositories (registry, name) VALUES (?, ?) ON CONFLICT DO NOTHING',
  denyRepository: `UPDATE repositories SET generation = generation + 1, live = 0
    WHERE registry = ? AND name = ? AND live = 1`,
  revive: 'UPDATE repositories SET live = 1 WHERE id = ? AND live = 0',
  repositoriesAfter: `SELECT id, registry, name AS repository,
      EXISTS (SELECT 1 FROM facts WHERE facts.repository = repositories.id)
        OR EXISTS (SELECT 1 FROM tags WHERE tags.repository = repositories.id)
        OR EXISTS (SELECT 1 FROM lists WHERE lists.repository = repositories.id) AS used
    FROM repositories WHERE id > ? ORDER BY id LIMIT ?`,
  removeRepository: 'DELETE FROM repositories WHERE id = ?',
  addFact: `INSERT INTO facts (repository, digest, said, said_by, gave, gave_by, generation, seen, media_type)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
      said = CASE generation WHEN excluded.generation THEN max(said, excluded.said) ELSE excluded.said END,
      gave = CASE generation WHEN excluded.generation THEN max(gave, excluded.gave) ELSE excluded.gave END,
      said_by = CASE WHEN generation <> excluded.generation OR excluded.said > 0 THEN excluded.said_by ELSE said_by END,
      gave_by = CASE WHEN generation <> excluded.generation OR excluded.gave > 0 THEN excluded.gave_by ELSE gave_by END,
      media_type = CASE
        WHEN generation <> excluded.generation THEN excluded.media_type
        WHEN excluded.gave > 0 OR gave = 0 THEN coalesce(excluded.media_type, media_type)
        ELSE coalesce(media_type, excluded.media_type) END,
      generation = excluded.generation, seen = max(seen, excluded.seen)`,
  fact: `SELECT said, said_by AS saidBy, gave, gave_by AS gaveBy, media_type AS mediaType FROM facts
    WHERE repository = ? AND digest = ? AND generation = ?`,
  removeFact: 'DELETE FROM facts WHERE repository = ? AND digest = ?',
  openGiver: `SELECT 1 FROM (SELECT repository, generation FROM facts
      WHERE digest = ? AND gave > 0 AND gave = 2 ORDER BY seen DESC LIMIT ?) AS given
    JOIN repositories ON repositories.id = given.repository AND repositories.generation = given.generation LIMIT 1`,
  closedGivers: `SELECT repositories.registry, given.gave_by AS credential FROM (SELECT repository, generation, gave_by FROM facts
      WHERE digest = ? AND gave > 0 AND gave = 1 ORDER BY seen DESC LIMIT ?) AS given
    JOIN repositories ON repositories.id = given.repository AND repositories.generation = given.generation`,
  factsAfter: `SELECT repository, digest, seen,
      generation <> (SELECT generation FROM repositories WHERE repositories.id = facts.repository) AS void,
      EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = facts.digest)
        OR EXISTS (SELECT 1 FROM manifests WHERE manifests.digest = facts.digest) AS here
    FROM facts WHERE (repository, digest) > (?, ?) ORDER BY repository, digest LIMIT ?`,
  onlyOf: `SELECT DISTINCT facts.digest AS digest FROM repositories JOIN facts ON facts.repository = repositories.id
    WHERE repositories.registry = ? AND facts.digest > ? AND facts.gave > 0
      AND (EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = facts.digest)
        OR EXISTS (SELECT 1 FROM manifests WHERE manifests.digest = facts.digest))
      AND NOT EXISTS (SELECT 1 FROM facts AS other JOIN repositories AS owner ON owner.id = other.repository
        WHERE other.digest = facts.digest AND other.gave > 0 AND owner.registry <> repositories.registry)
    ORDER BY facts.digest LIMIT ?`,
  forgetFacts: `DELETE FROM facts WHERE (repository, digest) IN (SELECT facts.repository, facts.digest
    FROM repositories JOIN facts ON facts.repository = repositories.id WHERE repositories.registry = ? LIMIT ?)`,
} as const;

type FactStatements = Readonly<Record<keyof typeof FACT_SQL, Statement>>;

const DAY = 24 * 60 * 60 * 1000;
/** Givers of a digest that are looked at: an empty layer is in every other repository, and some of those may be void. */
const GIVERS_SEEN = 64;

/** How the tables hold how far a proof reaches: with a credential or, the greater, without one. */
const WITH_CREDENTIAL = 1;
const ANYONE = 2;

/** What repositories said and gave. Its callers make the transactions. */
export class FactTable {
  readonly #run: FactStatements;
  readonly #repositories: Repositories;
  #staleAt: { repository: number; digest: Buffer } = { repository: -1, digest: Buffer.alloc(0) };
  #emptyAt = -1;

  private constructor(run: FactStatements, repositories: Repositories) {
    this.#run = run;
    this.#repositories = repositories;
  }

  static open(database: Database): { facts: FactTable; repositories: Repositories } {
    const run = prepareAll(database, FACT_SQL);
    run.openGiver.pluck();
    const repositories = new Repositories(database, run);
    return { facts: new FactTable(run, repositories), repositories };
  }

  add(facts: readonly Fact[], at: number): void {
    const day = Math.floor(at / DAY);
    const revived = new Map<string, Repository>();
    for (const { repository, digest, said, gave, mediaType } of facts) {
      const name = repositoryId(repository);
      const { id, generation } = revived.get(name) ?? this.#repositories.revived(repository);
      revived.set(name, { id, generation });
      const shown = [...toColumns(said), ...toColumns(gave)];
      this.#run.addFact.run(id, toBytes(digest), ...shown, generation, day, mediaType);
    }
  }

  of(key: RepositoryKey, digest: Digest): KnownFact | null {
    const repository = this.#repositories.find(key);
    if (repository === undefined) return null;
    const row = this.#run.fact.get(repository.id, toBytes(digest), repository.generation) as RawFact | undefined;
    if (row === undefined) return null;
    const { said, saidBy, gave, gaveBy, mediaType } = row;
    return { said: fromColumns(said, saidBy), gave: fromColumns(gave, gaveBy), mediaType };
  }

  giversOf(digest: Digest): Givers {
    const bytes = toBytes(digest);
    const closedTo = this.#run.closedGivers.all(bytes, GIVERS_SEEN) as RegistryCredential[];
    return {
      open: this.#run.openGiver.get(bytes, GIVERS_SEEN) !== undefined,
      closedTo: closedTo.length > 1 ? distinct(closedTo) : closedTo,
    };
  }

  denyDigest(key: RepositoryKey, digest: Digest): boolean {
    const repository = this.#repositories.find(key);
    return repository !== undefined && this.#run.removeFact.run(repository.id, toBytes(digest)).changes > 0;
  }

  dropStale(before: number, limit: number): boolean {
    const from = this.#staleAt;
    const rows = this.#run.factsAfter.all(from.repository, from.digest, limit) as RawSeen[];
    for (const { repository, digest, seen, here, void: isVoid } of rows) {
      const isStale = isVoid === 1 || (here === 0 && seen < Math.floor(before / DAY));
      if (isStale) this.#run.removeFact.run(repository, digest);
    }
    const last = rows.length < limit ? undefined : rows.at(-1);
    this.#staleAt = last ?? { repository: -1, digest: Buffer.alloc(0) };
    return last !== undefined;
  }

  dropEmptyRepositories(limit: number): boolean {
    const rows = this.#run.repositoriesAfter.all(this.#emptyAt, limit) as (RepositoryKey & {
      id: number;
      used: number;
    })[];
    for (const { id, used, ...key } of rows) if (used === 0) this.#repositories.remove(id, key);
    const last = rows.length < limit ? undefined : rows.at(-1);
    this.#emptyAt = last?.id ?? -1;
    return last !== undefined;
  }

  onlyOf(registry: string, after: Buffer, limit: number): Buffer[] {
    return (this.#run.onlyOf.all(registry, after, limit) as { digest: Buffer }[]).map(({ digest }) => digest);
  }

  /** Returns how many went. */
  forget(registry: string, limit: number): number {
    return this.#run.forgetFacts.run(registry, limit).changes;
  }
}

interface RawFact {
  readonly said: number;
  readonly saidBy: CredentialId;
  readonly gave: number;
  readonly gaveBy: CredentialId;
  readonly mediaType: string | null;
}

interface RawSeen {
  readonly repository: number;
  readonly digest: Buffer;
  readonly seen: number;
  readonly void: number;
  readonly here: number;
}

function distinct(given: readonly RegistryCredential[]): RegistryCredential[] {
  return [...new Map(given.map((one) => [`${one.registry} ${one.credential}`, one])).values()];
}

/** How far a proof reaches, and by which credentials where it was by any, as the two columns have them. */
export function toColumns(shown: Shown | null): [reach: number, by: CredentialId] {
  if (shown === null) return [0, DEFAULT_CREDENTIAL];
  return shown === 'anyone' ? [ANYONE, DEFAULT_CREDENTIAL] : [WITH_CREDENTIAL, shown];
}

export function fromColumns(reach: number, by: CredentialId): Shown | null {
  return reach === 0 ? null : reach === ANYONE ? 'anyone' : by;
}

/** Repositories kept in memory. */
const MAX_KNOWN = 10_000;

interface Repository {
  readonly id: number;
  readonly generation: number;
}

/** The ids by which the index's other tables name repositories, and their generations. */
export class Repositories {
  readonly #database: Pick<Database, 'inTransaction'>;
  readonly #run: FactStatements;
  readonly #known = new LRUCache<string, Repository>({ max: MAX_KNOWN });

  constructor(database: Pick<Database, 'inTransaction'>, run: FactStatements) {
    this.#database = database;
    this.#run = run;
  }

  /** Undefined where the index knows nothing of the repository. */
  find(key: RepositoryKey): Repository | undefined {
    return this.#known.get(repositoryId(key)) ?? this.#look(key);
  }

  /** Makes it known if it is not. */
  ensure(key: RepositoryKey): Repository {
    const known = this.find(key);
    if (known !== undefined) return known;
    this.#run.addRepository.run(key.registry, key.repository);
    const added = this.#look(key);
    if (added === undefined) throw new Error('a row that was just written is not there');
    return added;
  }

  /** The same for something new that it said or gave: the next denial voids it. */
  revived(key: RepositoryKey): Repository {
    const repository = this.ensure(key);
    this.#run.revive.run(repository.id);
    return repository;
  }

  /** Everything that it said and gave until now is void. False where that is nothing. */
  deny(key: RepositoryKey): boolean {
    const { changes } = this.#run.denyRepository.run(key.registry, key.repository);
    this.#known.delete(repositoryId(key));
    return changes > 0;
  }

  /** Rows were lost. */
  forget(): void {
    this.#known.clear();
  }

  remove(id: number, key: RepositoryKey): void {
    this.#known.delete(repositoryId(key));
    this.#run.removeRepository.run(id);
  }

  #look(key: RepositoryKey): Repository | undefined {
    const row = this.#run.repository.get(key.registry, key.repository) as Repository | undefined;
    // If the transaction under way is rolled back, this row may be gone or another: it is not kept.
    if (row !== undefined && !this.#database.inTransaction) this.#known.set(repositoryId(key), row);
    return row;
  }
}
