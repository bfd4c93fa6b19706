import type { AliasStore, StoredTable, TableChange } from '../aliases/store.ts';
import type { RegistryEntry } from '../aliases/table.ts';
import type { NamedCredentials } from '../oci/credentials.ts';
import { changeFeed, type Database, durable } from './database.ts';

const TOPIC = 'aliases';

interface RegistryRecord {
  host: string;
  endpoints: string;
  proxy: string | null;
  username: string | null;
  password: string | null;
  public: number;
  realms: string;
  ca: string | null;
}

interface CredentialsRecord {
  registry: string;
  name: string;
  id: number;
  repositories: string;
  username: string;
  password: string;
}

/** The alias table in `gateway.db`. A change is one transaction, so kill -9 leaves all of it or nothing. */
export class SqliteAliasStore implements AliasStore {
  readonly #database: Database;
  readonly #load: () => StoredTable;
  readonly #apply: (change: TableChange, basedOn: number) => number | null;

  constructor(database: Database) {
    this.#database = database;
    const putRegistry = database.prepare(`
      INSERT INTO registries (host, endpoints, proxy, username, password, public, realms, ca)
      VALUES (:host, :endpoints, :proxy, :username, :password, :public, :realms, :ca)
      ON CONFLICT (host) DO UPDATE SET endpoints = excluded.endpoints, proxy = excluded.proxy,
        username = excluded.username, password = excluded.password, public = excluded.public,
        realms = excluded.realms, ca = excluded.ca`);
    const dropCredentials = database.prepare('DELETE FROM registry_credentials WHERE registry = ?');
    const putCredentials = database.prepare(`
      INSERT INTO registry_credentials (registry, name, id, repositories, username, password)
      VALUES (:registry, :name, :id, :repositories, :username, :password)`);
    const putRow = (entry: RegistryEntry) => {
      putRegistry.run(toRecord(entry));
      dropCredentials.run(entry.host);
      for (const one of entry.named) putCredentials.run(toCredentialsRecord(entry.host, one));
    };
    const putAlias = database.prepare(`
      INSERT INTO aliases (name, registry, certificate) VALUES (?, ?, ?)
      ON CONFLICT (name) DO UPDATE SET registry = excluded.registry, certificate = excluded.certificate`);
    const removeAlias = database.prepare('DELETE FROM aliases WHERE name = ?');
    const removeRegistry = database.prepare('DELETE FROM registries WHERE host = ?');
    // One row, made by the first change (migrations 001 and 005); until then the version is 0.
    const readVersion = database.prepare<[], number>('SELECT version FROM table_state').pluck();
    const writeVersion = database.prepare(`
      INSERT INTO table_state (filled, version) VALUES (1, :version)
      ON CONFLICT (filled) DO UPDATE SET version = excluded.version`);
    const transaction = database.transaction((change: TableChange, basedOn: number): number | null => {
      if ((readVersion.get() ?? 0) !== basedOn) return null;
      // In this order no alias is ever without its registry.
      for (const name of change.removeAliases ?? []) removeAlias.run(name);
      for (const one of change.putRegistries ?? []) putRow(one);
      for (const one of change.putAliases ?? []) putAlias.run(one.name, one.registry, Number(one.certificate));
      for (const host of change.removeRegistries ?? []) removeRegistry.run(host);
      const version = basedOn + 1;
      writeVersion.run({ version });
      return version;
    });
    this.#apply = (change, basedOn) => transaction.immediate(change, basedOn);

    const readRegistries = database.prepare<[], RegistryRecord>('SELECT * FROM registries');
    const readCredentials = database.prepare<[], CredentialsRecord>('SELECT * FROM registry_credentials ORDER BY name');
    const readAliases = database.prepare<[], { name: string; registry: string; certificate: number }>(
      'SELECT name, registry, certificate FROM aliases',
    );
    // One transaction: rows and version belong together.
    this.#load = database.transaction((): StoredTable => {
      const version = readVersion.get();
      const named = Map.groupBy(readCredentials.all(), ({ registry }) => registry);
      return {
        version: version ?? 0,
        isNew: version === undefined,
        registries: readRegistries.all().map((record) => fromRecord(record, named.get(record.host) ?? [])),
        aliases: readAliases.all().map((row) => ({ ...row, certificate: row.certificate === 1 })),
      };
    });
  }

  async load(): Promise<StoredTable> {
    return this.#load();
  }

  async apply(change: TableChange, basedOn: number): Promise<number | null> {
    const version = this.#apply(change, basedOn);
    if (version === null) return null;
    await durable(this.#database);
    changeFeed(this.#database).publish(TOPIC, this);
    return version;
  }

  watch(listener: () => void): () => void {
    return changeFeed(this.#database).watch(TOPIC, this, listener);
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
    realms: JSON.stringify(entry.realms),
    ca: entry.ca,
  };
}

function toCredentialsRecord(registry: string, { for: patterns, ...row }: NamedCredentials): CredentialsRecord {
  return { registry, ...row, repositories: JSON.stringify(patterns) };
}

function fromRecord(record: RegistryRecord, named: readonly CredentialsRecord[]): RegistryEntry {
  const { host, proxy, username, password } = record;
  return {
    host,
    endpoints: JSON.parse(record.endpoints) as string[],
    proxy,
    credentials: username === null || password === null ? null : { username, password },
    named: named.map(({ registry: _, repositories, ...row }) => ({
      ...row,
      for: JSON.parse(repositories) as string[],
    })),
    public: record.public === 1,
    realms: JSON.parse(record.realms) as string[],
    ca: record.ca,
  };
}
