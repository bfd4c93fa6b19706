import type { Statement } from 'better-sqlite3';
import type { FoundObject, Giver, ObjectIndex, StoredObject } from '../cache/object-index.ts';
import { MAX_GIVERS } from '../cache/object-index.ts';
import type { Fence } from '../kit/locks.ts';
import { steadyNow } from '../kit/time.ts';
import type { CredentialId } from '../oci/credentials.ts';
import { DEFAULT_CREDENTIAL } from '../oci/credentials.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';
import { type Database, durable, prepareAll } from './database.ts';
import { fromBytes, toBytes } from './digest-bytes.ts';
import { checkFence } from './locks.ts';

const OBJECT = 'digest, kind, size, last_use AS lastUse, condemned_at AS condemnedAt';

const SQL = {
  find: `SELECT ${OBJECT} FROM objects WHERE digest = ? AND condemned_at IS NULL`,
  givers: 'SELECT registry, repository, open, credential FROM object_givers WHERE digest = ?',
  put: `INSERT INTO objects (digest, kind, size, last_use, condemned_at) VALUES (?, ?, ?, ?, NULL)
    ON CONFLICT (digest) DO UPDATE SET kind = excluded.kind, size = excluded.size,
      last_use = max(last_use, excluded.last_use), condemned_at = NULL`,
  giverCount: 'SELECT count(*) FROM object_givers WHERE digest = ?',
  giver: `INSERT INTO object_givers (digest, registry, repository, open, credential) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (digest, registry, repository) DO UPDATE SET
      open = max(open, excluded.open), credential = excluded.credential`,
  denyRepository: 'DELETE FROM object_givers WHERE registry = ? AND repository = ?',
  denyDigest: 'DELETE FROM object_givers WHERE registry = ? AND repository = ? AND digest = ?',
  touch: 'UPDATE objects SET last_use = max(last_use, ?) WHERE digest = ?',
  drop: 'DELETE FROM objects WHERE digest = ?',
  bytes: 'SELECT bytes FROM object_totals',
  after: `SELECT ${OBJECT} FROM objects WHERE digest > ? ORDER BY digest LIMIT ?`,
  oldest: 'SELECT digest, size FROM objects WHERE condemned_at IS NULL ORDER BY last_use LIMIT ?',
  condemn: 'UPDATE objects SET condemned_at = ? WHERE digest = ?',
  doomed: `SELECT ${OBJECT} FROM objects WHERE condemned_at <= ? ORDER BY condemned_at LIMIT ?`,
  forget: 'DELETE FROM objects WHERE digest = ? AND condemned_at IS NOT NULL',
} as const;

type RawObject = Omit<StoredObject, 'digest'> & { readonly digest: Buffer };
type RawGiver = RepositoryKey & { readonly open: 0 | 1; readonly credential: CredentialId };

/** The objects of a shared store in `gateway.db`, for a single machine. */
export class SqliteObjectIndex implements ObjectIndex {
  readonly #database: Database;
  readonly #run: Readonly<Record<keyof typeof SQL, Statement>>;
  readonly #now: () => number;

  constructor(database: Database, now: () => number = steadyNow) {
    this.#database = database;
    this.#run = prepareAll(database, SQL);
    this.#run.giverCount.pluck();
    this.#run.bytes.pluck();
    this.#now = now;
  }

  async find(digest: Digest): Promise<FoundObject | null> {
    const key = toBytes(digest);
    const row = this.#run.find.get(key) as RawObject | undefined;
    if (row === undefined) return null;
    const givers = this.#run.givers.all(key) as RawGiver[];
    return {
      object: objectOf(row),
      givers: givers.map(({ open, credential, ...repository }) => ({
        repository,
        shown: open === 1 ? 'anyone' : credential,
      })),
    };
  }

  async put(
    { digest, kind, size }: Pick<StoredObject, 'digest' | 'kind' | 'size'>,
    givers: readonly Giver[],
  ): Promise<void> {
    const key = toBytes(digest);
    await this.#change(() => {
      this.#run.put.run(key, kind, size, this.#time());
      for (const { repository, shown } of givers) {
        if ((this.#run.giverCount.get(key) as number) >= MAX_GIVERS) break;
        const open = shown === 'anyone';
        const credential = open ? DEFAULT_CREDENTIAL : shown;
        this.#run.giver.run(key, repository.registry, repository.repository, open ? 1 : 0, credential);
      }
    });
  }

  async deny({ registry, repository }: RepositoryKey, digest?: Digest): Promise<void> {
    await this.#change(() => {
      if (digest === undefined) this.#run.denyRepository.run(registry, repository);
      else this.#run.denyDigest.run(registry, repository, toBytes(digest));
    });
  }

  async touch(digests: readonly Digest[]): Promise<void> {
    const now = this.#time();
    this.#database.transaction(() => {
      for (const digest of digests) this.#run.touch.run(now, toBytes(digest));
    })();
  }

  async drop(digests: readonly Digest[]): Promise<void> {
    await this.#change(() => {
      for (const digest of digests) this.#run.drop.run(toBytes(digest));
    });
  }

  async bytes(): Promise<number> {
    return this.#run.bytes.get() as number;
  }

  async after(digest: Digest | null, limit: number): Promise<readonly StoredObject[]> {
    const from = digest === null ? Buffer.alloc(0) : toBytes(digest);
    return (this.#run.after.all(from, limit) as RawObject[]).map(objectOf);
  }

  async condemn(bytes: number, limit: number, under?: Fence): Promise<number> {
    return this.#change(() => {
      checkFence(this.#database, under);
      let over = (this.#run.bytes.get() as number) - bytes;
      let count = 0;
      for (const { digest, size } of this.#run.oldest.all(limit) as { digest: Buffer; size: number }[]) {
        if (over <= 0) break;
        this.#run.condemn.run(this.#time(), digest);
        over -= size;
        count++;
      }
      return count;
    });
  }

  async doomed(graceMs: number, limit: number): Promise<readonly StoredObject[]> {
    return (this.#run.doomed.all(this.#time() - graceMs, limit) as RawObject[]).map(objectOf);
  }

  async forget(digests: readonly Digest[], under?: Fence): Promise<readonly Digest[]> {
    return this.#change(() => {
      checkFence(this.#database, under);
      return digests.filter((digest) => this.#run.forget.run(toBytes(digest)).changes > 0);
    });
  }

  /** Of the index's clock, in whole ms. */
  #time(): number {
    return Math.floor(this.#now());
  }

  async #change<T>(task: () => T): Promise<T> {
    const result = this.#database.transaction(task).immediate();
    await durable(this.#database);
    return result;
  }
}

function objectOf({ digest, ...rest }: RawObject): StoredObject {
  return { digest: fromBytes(digest), ...rest };
}
