import type { AliasStore, StoredTable, TableChange } from '../aliases/store.ts';
import type { RegistryEntry } from '../aliases/table.ts';
import type { Sealer } from '../kit/sealed.ts';
import type { NamedCredentials } from '../oci/credentials.ts';
import type { PostgresDatabase, Query } from './database.ts';
import type { PostgresFeed } from './feed.ts';

const TOPIC = 'aliases';

interface RegistryRow {
  readonly host: string;
  readonly endpoints: string[];
  readonly sealed_proxy: string | null;
  readonly username: string | null;
  readonly sealed_password: string | null;
  readonly public: boolean;
  readonly realms: string[];
  readonly ca: string | null;
}

interface CredentialsRow {
  readonly registry: string;
  readonly name: string;
  readonly id: number;
  readonly repositories: string[];
  readonly username: string;
  readonly sealed_password: string;
}

/** The alias table in PostgreSQL: a change is one transaction of a few statements, however many rows it has. Passwords, and the URLs of proxies that may have some, are sealed. */
export class PostgresAliasStore implements AliasStore {
  readonly #database: PostgresDatabase;
  readonly #feed: PostgresFeed;
  readonly #sealer: Sealer;

  constructor(database: PostgresDatabase, feed: PostgresFeed, sealer: Sealer) {
    this.#database = database;
    this.#feed = feed;
    this.#sealer = sealer;
  }

  load(): Promise<StoredTable> {
    return this.#database.read(async (query) => {
      const { rows } = await query<{ version: number }>('SELECT version FROM alias_table');
      const version = rows[0]?.version ?? 0;
      const registries = await query<RegistryRow>('SELECT * FROM registries');
      const credentials = await query<CredentialsRow>('SELECT * FROM registry_credentials ORDER BY name');
      const named = Map.groupBy(credentials.rows, ({ registry }) => registry);
      // A row a registry, since rows cost more than what is in them: a table of ten thousand aliases is read in a third of the time.
      const aliases = await query<{ names: string; registry: string; certificate: boolean }>(
        "SELECT string_agg(name, ' ') AS names, registry, certificate FROM aliases GROUP BY registry, certificate",
      );
      return {
        version,
        isNew: version === 0,
        registries: registries.rows.map((row) => this.#fromRow(row, named.get(row.host) ?? [])),
        aliases: aliases.rows.flatMap(({ names, registry, certificate }) =>
          names.split(' ').map((name) => ({ name, registry, certificate })),
        ),
      };
    });
  }

  apply(change: TableChange, basedOn: number): Promise<number | null> {
    return this.#database.write<number | null>({ by: this, topic: TOPIC }, async (query) => {
      const { rows } = await query<{ version: number }>(
        'UPDATE alias_table SET version = version + 1 WHERE version = $1 RETURNING version',
        [basedOn],
      );
      const [updated] = rows;
      if (updated === undefined) return { result: null, changed: false };
      await this.#change(query, change);
      return { result: updated.version, changed: true };
    });
  }

  watch(listener: () => void): () => void {
    return this.#feed.watch(TOPIC, this, listener);
  }

  /** In this order no alias is ever without its registry. */
  async #change(query: Query, change: TableChange): Promise<void> {
    const { removeAliases = [], putRegistries = [], putAliases = [], removeRegistries = [] } = change;
    if (removeAliases.length > 0) await query('DELETE FROM aliases WHERE name = ANY ($1)', [removeAliases]);
    if (putRegistries.length > 0) {
      const rows = lastOf(putRegistries, ({ host }) => host);
      await query(
        `INSERT INTO registries SELECT * FROM jsonb_populate_recordset(NULL::registries, $1)
         ON CONFLICT (host) DO UPDATE SET endpoints = excluded.endpoints, sealed_proxy = excluded.sealed_proxy, username = excluded.username,
           sealed_password = excluded.sealed_password, public = excluded.public, realms = excluded.realms, ca = excluded.ca`,
        [JSON.stringify(rows.map((entry) => this.#toRow(entry)))],
      );
      await query('DELETE FROM registry_credentials WHERE registry = ANY ($1)', [rows.map(({ host }) => host)]);
      const credentials = rows.flatMap(({ host, named }) => named.map((one) => this.#toCredentialsRow(host, one)));
      if (credentials.length > 0) {
        await query(
          'INSERT INTO registry_credentials SELECT * FROM jsonb_populate_recordset(NULL::registry_credentials, $1)',
          [JSON.stringify(credentials)],
        );
      }
    }
    if (putAliases.length > 0) {
      await query(
        `INSERT INTO aliases SELECT * FROM jsonb_populate_recordset(NULL::aliases, $1)
         ON CONFLICT (name) DO UPDATE SET registry = excluded.registry, certificate = excluded.certificate`,
        [JSON.stringify(lastOf(putAliases, ({ name }) => name))],
      );
    }
    if (removeRegistries.length > 0) await query('DELETE FROM registries WHERE host = ANY ($1)', [removeRegistries]);
  }

  #toRow({ host, endpoints, proxy, credentials, public: open, realms, ca }: RegistryEntry): RegistryRow {
    return {
      host,
      endpoints: [...endpoints],
      sealed_proxy: proxy === null ? null : this.#sealer.seal(proxy, proxyOf(host)),
      username: credentials?.username ?? null,
      sealed_password: credentials === null ? null : this.#sealer.seal(credentials.password, passwordOf(host)),
      public: open,
      realms: [...realms],
      ca,
    };
  }

  #toCredentialsRow(registry: string, { for: patterns, password, ...row }: NamedCredentials): CredentialsRow {
    const sealed = this.#sealer.seal(password, namedPasswordOf(registry, row.name));
    return { registry, ...row, repositories: [...patterns], sealed_password: sealed };
  }

  #fromCredentialsRow({ registry, repositories, sealed_password: sealed, ...row }: CredentialsRow): NamedCredentials {
    return { ...row, for: repositories, password: this.#sealer.open(sealed, namedPasswordOf(registry, row.name)) };
  }

  #fromRow(
    { sealed_password: sealed, sealed_proxy: sealedProxy, username, ...row }: RegistryRow,
    credentialsRows: readonly CredentialsRow[],
  ): RegistryEntry {
    const { host, endpoints, public: open, realms, ca } = row;
    const proxy = sealedProxy === null ? null : this.#sealer.open(sealedProxy, proxyOf(host));
    const credentials =
      username === null || sealed === null ? null : { username, password: this.#sealer.open(sealed, passwordOf(host)) };
    const named = credentialsRows.map((one) => this.#fromCredentialsRow(one));
    return { host, endpoints, proxy, credentials, named, public: open, realms, ca };
  }
}

/** Where a password is sealed for: see `Sealer`. */
function passwordOf(host: string): string {
  return `registries.password ${host}`;
}

function namedPasswordOf(host: string, name: string): string {
  return `registry_credentials.sealed_password ${host} ${name}`;
}

/** A proxy's URL may have a password. */
function proxyOf(host: string): string {
  return `registries.proxy ${host}`;
}

/** The last of each key: one statement must not put a row twice. */
function lastOf<T>(rows: readonly T[], key: (row: T) => string): T[] {
  return [...new Map(rows.map((row) => [key(row), row])).values()];
}
