import type { AliasRow, AliasStore, TableChange } from '../aliases/store.ts';
import type { RegistryEntry } from '../aliases/table.ts';
import type { Database } from './database.ts';

interface RegistryRecord {
  host: string;
  endpoints: string;
  proxy: string | null;
  username: string | null;
  password: string | null;
  public: number;
}

/** The alias table in `gateway.db`. A change is one transaction, so kill -9 leaves all of it or nothing. */
export class SqliteAliasStore implements AliasStore {
  readonly #database: Database;
  readonly #apply: (change: TableChange) => void;

  constructor(database: Database) {
    this.#database = database;
    const putRegistry = database.prepare(`
      INSERT INTO registries (host, endpoints, proxy, username, password, public)
      VALUES (:host, :endpoints, :proxy, :username, :password, :public)
      ON CONFLICT (host) DO UPDATE SET endpoints = excluded.endpoints, proxy = excluded.proxy,
        username = excluded.username, password = excluded.password, public = excluded.public`);
    const putAlias = database.prepare(`
      INSERT INTO aliases (name, registry, certificate) VALUES (?, ?, ?)
      ON CONFLICT (name) DO UPDATE SET registry = excluded.registry, certificate = excluded.certificate`);
    const removeAlias = database.prepare('DELETE FROM aliases WHERE name = ?');
    const removeRegistry = database.prepare('DELETE FROM registries WHERE host = ?');
    const fill = database.prepare('INSERT OR IGNORE INTO table_state (filled) VALUES (1)');
    const transaction = database.transaction((change: TableChange) => {
      // In this order no alias is ever without its registry.
      for (const name of change.removeAliases ?? []) removeAlias.run(name);
      for (const one of change.putRegistries ?? []) putRegistry.run(toRecord(one));
      for (const one of change.putAliases ?? []) putAlias.run(one.name, one.registry, Number(one.certificate));
      for (const host of change.removeRegistries ?? []) removeRegistry.run(host);
      fill.run();
    });
    this.#apply = (change) => transaction.immediate(change);
  }

  isNew(): boolean {
    return this.#database.prepare('SELECT 1 FROM table_state').get() === undefined;
  }

  load(): { registries: RegistryEntry[]; aliases: AliasRow[] } {
    const registries = this.#database.prepare<[], RegistryRecord>('SELECT * FROM registries').all();
    const aliases = this.#database
      .prepare<[], { name: string; registry: string; certificate: number }>(
        'SELECT name, registry, certificate FROM aliases',
      )
      .all();
    return {
      registries: registries.map(fromRecord),
      aliases: aliases.map((row) => ({ ...row, certificate: row.certificate === 1 })),
    };
  }

  apply(change: TableChange): void {
    this.#apply(change);
  }
}

function toRecord(entry: RegistryEntry): RegistryRecord {
  return {
    host: entry.host,
    endpoints: JSON.stringify(entry.endpoints),
    proxy: entry.proxy,
    username: entry.credentials?.username ?? null,
    password: entry.credentials?.password ?? null,
    public: Number(entry.public),
  };
}

function fromRecord(record: RegistryRecord): RegistryEntry {
  const { host, proxy, username, password } = record;
  return {
    host,
    endpoints: JSON.parse(record.endpoints) as string[],
    proxy,
    credentials: username === null || password === null ? null : { username, password },
    public: record.public === 1,
  };
}
