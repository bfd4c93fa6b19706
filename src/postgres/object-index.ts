import {
  type FoundObject,
  type Giver,
  MAX_GIVERS,
  type ObjectIndex,
  type ObjectKind,
  type StoredObject,
} from '../cache/object-index.ts';
import type { Fence } from '../kit/locks.ts';
import { type CredentialId, DEFAULT_CREDENTIAL } from '../oci/credentials.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';
import type { PostgresDatabase } from './database.ts';

const OBJECT = `digest, kind, size, floor(extract(epoch FROM last_use) * 1000)::bigint AS last_use,
  floor(extract(epoch FROM condemned_at) * 1000)::bigint AS condemned_at`;

interface ObjectRow {
  readonly digest: Digest;
  readonly kind: ObjectKind;
  readonly size: number;
  readonly last_use: number;
  readonly condemned_at: number | null;
}

interface GiverRow extends RepositoryKey {
  readonly open: boolean;
  readonly credential: CredentialId;
}

/** The objects of a store that the nodes of a fleet share, in their database. Each method is one transaction; times are the database's. */
export class PostgresObjectIndex implements ObjectIndex {
  readonly #database: Pick<PostgresDatabase, 'query' | 'write'>;

  constructor(database: Pick<PostgresDatabase, 'query' | 'write'>) {
    this.#database = database;
  }

  async find(digest: Digest): Promise<FoundObject | null> {
    const { rows } = await this.#database.query<ObjectRow & { readonly givers: readonly GiverRow[] }>(
      `SELECT ${OBJECT}, (SELECT coalesce(jsonb_agg(
           jsonb_build_object('registry', registry, 'repository', repository, 'open', open, 'credential', credential)), '[]')
         FROM object_givers WHERE object_givers.digest = objects.digest) AS givers
       FROM objects WHERE digest = $1 AND condemned_at IS NULL`,
      [digest],
    );
    const [row] = rows;
    if (row === undefined) return null;
    return {
      object: objectOf(row),
      givers: row.givers.map(({ open, credential, ...repository }) => ({
        repository,
        shown: open ? 'anyone' : credential,
      })),
    };
  }

  async put(
    { digest, kind, size }: Pick<StoredObject, 'digest' | 'kind' | 'size'>,
    givers: readonly Giver[],
  ): Promise<void> {
    await this.#database.write({ by: this, topic: null }, async (query) => {
      await query(
        `INSERT INTO objects (digest, kind, size) VALUES ($1, $2, $3)
         ON CONFLICT (digest) DO UPDATE SET kind = excluded.kind, size = excluded.size, last_use = clock_timestamp(), condemned_at = NULL`,
        [digest, kind, size],
      );
      const rows = givers.map(({ repository, shown }): GiverRow => {
        const open = shown === 'anyone';
        return { ...repository, open, credential: open ? DEFAULT_CREDENTIAL : shown };
      });
      if (rows.length > 0) {
        await query(
          `INSERT INTO object_givers (digest, registry, repository, open, credential)
           SELECT $1, registry, repository, open, credential
           FROM jsonb_to_recordset($2) AS given (registry text, repository text, open boolean, credential integer)
           WHERE (SELECT count(*) FROM object_givers WHERE digest = $1) < $3
           ON CONFLICT (digest, registry, repository) DO UPDATE SET
             open = object_givers.open OR excluded.open, credential = excluded.credential`,
          [digest, JSON.stringify(rows), MAX_GIVERS],
        );
      }
      return { result: undefined, changed: true };
    });
  }

  async deny({ registry, repository }: RepositoryKey, digest?: Digest): Promise<void> {
    await this.#database.query(
      'DELETE FROM object_givers WHERE registry = $1 AND repository = $2 AND ($3::text IS NULL OR digest = $3)',
      [registry, repository, digest ?? null],
    );
  }

  async touch(digests: readonly Digest[]): Promise<void> {
    // In one order, so that two nodes never wait for each other.
    await this.#database.query(
      `UPDATE objects SET last_use = clock_timestamp()
       WHERE digest IN (SELECT digest FROM objects WHERE digest = ANY ($1) ORDER BY digest FOR NO KEY UPDATE)`,
      [digests],
    );
  }

  async drop(digests: readonly Digest[]): Promise<void> {
    await this.#database.query('DELETE FROM objects WHERE digest = ANY ($1)', [digests]);
  }

  async bytes(): Promise<number> {
    const { rows } = await this.#database.query<{ readonly bytes: number }>(
      'SELECT coalesce(sum(size), 0)::bigint AS bytes FROM objects WHERE condemned_at IS NULL',
    );
    return rows[0]?.bytes ?? 0;
  }

  async after(digest: Digest | null, limit: number): Promise<readonly StoredObject[]> {
    const { rows } = await this.#database.query<ObjectRow>(
      `SELECT ${OBJECT} FROM objects WHERE digest > $1 ORDER BY digest LIMIT $2`,
      [digest ?? '', limit],
    );
    return rows.map(objectOf);
  }

  async condemn(bytes: number, limit: number, under?: Fence): Promise<number> {
    return this.#database.write({ by: this, topic: null, under }, async (query) => {
      // Those before whom too much was left.
      const { rowCount } = await query(
        `WITH total AS (SELECT coalesce(sum(size), 0) AS bytes FROM objects WHERE condemned_at IS NULL),
           oldest AS (SELECT digest, size, last_use FROM objects WHERE condemned_at IS NULL ORDER BY last_use, digest LIMIT $2),
           summed AS (SELECT digest, sum(size) OVER (ORDER BY last_use, digest) - size AS before FROM oldest)
         UPDATE objects SET condemned_at = clock_timestamp() FROM summed, total
         WHERE objects.digest = summed.digest AND objects.condemned_at IS NULL AND total.bytes - summed.before > $1`,
        [bytes, limit],
      );
      return { result: rowCount ?? 0, changed: true };
    });
  }

  async doomed(graceMs: number, limit: number): Promise<readonly StoredObject[]> {
    const { rows } = await this.#database.query<ObjectRow>(
      `SELECT ${OBJECT} FROM objects WHERE condemned_at <= clock_timestamp() - $1 * interval '1 millisecond' ORDER BY condemned_at LIMIT $2`,
      [graceMs, limit],
    );
    return rows.map(objectOf);
  }

  async forget(digests: readonly Digest[], under?: Fence): Promise<readonly Digest[]> {
    return this.#database.write({ by: this, topic: null, under }, async (query) => {
      const { rows } = await query<{ readonly digest: Digest }>(
        'DELETE FROM objects WHERE digest = ANY ($1) AND condemned_at IS NOT NULL RETURNING digest',
        [digests],
      );
      return { result: rows.map(({ digest }) => digest), changed: true };
    });
  }
}

function objectOf({ digest, kind, size, last_use: lastUse, condemned_at: condemnedAt }: ObjectRow): StoredObject {
  return { digest, kind, size, lastUse, condemnedAt };
}
