import { OperatorError } from '../kit/operator-error.ts';
import type { SecretKeys } from '../kit/sealed.ts';
import type { PostgresDatabase } from './database.ts';

/** A column whose values are sealed, and what each is sealed for, by its row's key. */
interface SealedColumn {
  readonly table: string;
  readonly column: string;
  readonly key: readonly string[];
  readonly context: (...key: string[]) => string;
}

/** Every column of the schema whose name begins with `sealed_`; a test compares. The contexts are those of the stores that write them. */
export const SEALED_COLUMNS: readonly SealedColumn[] = [
  { table: 'registries', column: 'sealed_proxy', key: ['host'], context: (host) => `registries.proxy ${host}` },
  { table: 'registries', column: 'sealed_password', key: ['host'], context: (host) => `registries.password ${host}` },
  {
    table: 'registry_credentials',
    column: 'sealed_password',
    key: ['registry', 'name'],
    context: (registry, name) => `registry_credentials.sealed_password ${registry} ${name}`,
  },
  sealedKey('certificates', 'source', 'name'),
  sealedKey('acme_accounts', 'directory'),
  sealedKey('acme_orders', 'host', 'directory'),
  {
    table: 'acme_challenges',
    column: 'sealed_answer',
    key: ['type', 'id'],
    context: (type, id) => `acme_challenges.sealed_answer ${type} ${id}`,
  },
  { table: 'nodes', column: 'sealed_certificate', key: ['id'], context: (id) => `nodes.sealed_certificate:${id}` },
  { table: 'secrets', column: 'sealed_value', key: ['name'], context: (name) => `secrets.sealed_value:${name}` },
];

function sealedKey(table: string, ...key: string[]): SealedColumn {
  return { table, column: 'sealed_key', key, context: (...row) => `${table}.sealed_key ${row.join(' ')}` };
}

/** What `reseal` did. */
export interface Resealed {
  /** Values that are sealed under the first key from now on, and those that were already. */
  readonly sealed: number;
  readonly current: number;
}

/**
 * Seals everything in the database under the first key, whatever key it was sealed under before. What is changed meanwhile is left as it was changed.
 * @throws {OperatorError} `SECRET_KEY_MISSING` where a gateway that runs has not that key, or this one has not one that something is sealed under
 */
export async function reseal(database: PostgresDatabase, keys: SecretKeys): Promise<Resealed> {
  const [first = ''] = keys.ids;
  const lacking = await database.query<{ id: string }>('SELECT id FROM nodes WHERE live AND NOT key_ids @> $1::jsonb', [
    JSON.stringify([first]),
  ]);
  if (lacking.rows.length > 0) {
    const names = lacking.rows.map(({ id }) => id).join(', ');
    throw new OperatorError('SECRET_KEY_MISSING', `gateways that run do not have the key ${first}: ${names}`, {
      next: 'put that key into the secretFile of each as a further line, restart them one after the other, and try again',
    });
  }
  const done = { sealed: 0, current: 0 };
  for (const { table, column, key, context } of SEALED_COLUMNS) {
    const { rows } = await database.query<Record<string, string>>(
      `SELECT ${[...key, column].join(', ')} FROM ${table} WHERE ${column} IS NOT NULL`,
    );
    for (const row of rows) {
      const sealed = row[column] ?? '';
      if (keys.isCurrent(sealed)) {
        done.current++;
        continue;
      }
      const at = key.map((name) => row[name] ?? '');
      const place = context(...at);
      const where = key.map((name, index) => `${name} = $${index + 3}`).join(' AND ');
      const { rowCount } = await database.query(
        `UPDATE ${table} SET ${column} = $1 WHERE ${column} = $2 AND ${where}`,
        [keys.seal(keys.open(sealed, place), place), sealed, ...at],
      );
      done.sealed += rowCount ?? 0;
    }
  }
  return done;
}
