import type { Statement } from 'better-sqlite3';
import type { PinIndex, PinRow } from '../cache/index-port.ts';
import { type Digest, parseDigest } from '../oci/names.ts';
import { type Database, prepareAll } from './database.ts';

const SQL = {
  all: 'SELECT id, registry, repository, tag, variant, root, checked_at AS checkedAt, manifests, blobs FROM pins ORDER BY id',
  put: `INSERT INTO pins (id, registry, repository, tag, variant, root, checked_at, manifests, blobs)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET registry = excluded.registry, repository = excluded.repository, tag = excluded.tag,
      variant = excluded.variant, root = excluded.root, checked_at = excluded.checked_at, manifests = excluded.manifests, blobs = excluded.blobs`,
  remove: 'DELETE FROM pins WHERE id = ?',
} as const;

type RawPin = Omit<PinRow, 'manifests' | 'blobs'> & { readonly manifests: string; readonly blobs: string };

/** What operators have pinned. It is read whole, at the start. */
export class PinTable implements PinIndex {
  readonly #run: Readonly<Record<keyof typeof SQL, Statement>>;

  constructor(database: Database) {
    this.#run = prepareAll(database, SQL);
  }

  all(): PinRow[] {
    return (this.#run.all.all() as RawPin[]).map(({ manifests, blobs, ...row }) => ({
      ...row,
      manifests: (JSON.parse(manifests) as string[]).map(parseDigest).filter((digest) => digest !== null),
      blobs: (JSON.parse(blobs) as [Digest, number][]).map(([digest, size]) => ({ digest, size })),
    }));
  }

  put({ id, registry, repository, tag, variant, root, checkedAt, manifests, blobs }: PinRow): void {
    const held = JSON.stringify(blobs.map(({ digest, size }) => [digest, size]));
    this.#run.put.run(id, registry, repository, tag, variant, root, checkedAt, JSON.stringify(manifests), held);
  }

  remove(id: string): void {
    this.#run.remove.run(id);
  }
}
