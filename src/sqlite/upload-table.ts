import type { Statement } from 'better-sqlite3';
import type { UploadIndex, UploadRow } from '../cache/index-port.ts';
import type { ObjectKind } from '../cache/object-index.ts';
import type { Digest } from '../oci/names.ts';
import { type Database, prepareAll } from './database.ts';
import { fromBytes, toBytes } from './digest-bytes.ts';

const SQL = {
  add: 'INSERT INTO uploads (digest, kind, registry, repository) VALUES (?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING',
  remove: 'DELETE FROM uploads WHERE digest = ?',
  postpone: 'UPDATE uploads SET place = (SELECT max(place) + 1 FROM uploads) WHERE digest = ?',
  oldest: 'SELECT digest, kind, registry, repository FROM uploads ORDER BY place LIMIT ?',
  count: 'SELECT count(*) FROM uploads',
} as const;

interface RawUpload {
  readonly digest: Buffer;
  readonly kind: ObjectKind;
  readonly registry: string;
  readonly repository: string;
}

/** What waits to be put into a shared store. */
export class UploadTable implements UploadIndex {
  readonly #run: Readonly<Record<keyof typeof SQL, Statement>>;
  /** Known once it was counted: this process alone writes. */
  #count: number | undefined;

  constructor(database: Database) {
    this.#run = prepareAll(database, SQL);
    this.#run.count.pluck();
  }

  add({ digest, kind, repository }: UploadRow): void {
    const { changes } = this.#run.add.run(toBytes(digest), kind, repository.registry, repository.repository);
    if (this.#count !== undefined) this.#count += changes;
  }

  remove(digest: Digest): void {
    const { changes } = this.#run.remove.run(toBytes(digest));
    if (this.#count !== undefined) this.#count -= changes;
  }

  postpone(digest: Digest): void {
    this.#run.postpone.run(toBytes(digest));
  }

  oldest(limit: number): UploadRow[] {
    return (this.#run.oldest.all(limit) as RawUpload[]).map(({ digest, kind, registry, repository }) => ({
      digest: fromBytes(digest),
      kind,
      repository: { registry, repository },
    }));
  }

  count(): number {
    this.#count ??= this.#run.count.get() as number;
    return this.#count;
  }

  /** Rows were lost that had been written. */
  recount(): void {
    this.#count = undefined;
  }
}
