import type { RepositoryKey } from '../oci/target.ts';
import type { CacheStatements } from './cache-statements.ts';
import type { Database } from './database.ts';

/** Ids kept in memory. */
const HOT = 10_000;

/** Numbers that stand for repositories in the index's other tables. */
export class RepositoryIds {
  readonly #database: Pick<Database, 'inTransaction'>;
  readonly #run: Pick<CacheStatements, 'repository' | 'addRepository'>;
  readonly #known = new Map<string, number>();

  constructor(database: Pick<Database, 'inTransaction'>, run: Pick<CacheStatements, 'repository' | 'addRepository'>) {
    this.#database = database;
    this.#run = run;
  }

  /** Undefined where nothing was ever noted of the repository. */
  find(repository: RepositoryKey): number | undefined {
    return this.#known.get(`${repository.registry}/${repository.repository}`) ?? this.#look(repository);
  }

  /** Of a repository that gets one now if it has none. */
  ensure(repository: RepositoryKey): number {
    const known = this.find(repository);
    if (known !== undefined) return known;
    this.#run.addRepository.run(repository.registry, repository.repository);
    return this.#look(repository) ?? 0;
  }

  #look({ registry, repository }: RepositoryKey): number | undefined {
    const row = this.#run.repository.get(registry, repository) as { id: number } | undefined;
    // Inside a transaction that fails in the end the id would be of a row that never came to be.
    if (row === undefined || this.#database.inTransaction) return row?.id;
    if (this.#known.size >= HOT) this.#known.clear();
    this.#known.set(`${registry}/${repository}`, row.id);
    return row.id;
  }
}
