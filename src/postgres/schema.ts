import type { Client } from 'pg';
import { OperatorError } from '../kit/operator-error.ts';
import type { Logger } from '../telemetry/log.ts';

/** One step of the schema. Its number is its place in the list, from 1; a step that was ever released is never changed. */
export interface Migration {
  readonly name: string;
  /** Statements; they run in one transaction together with the new version number. */
  readonly sql: string;
}

/** The number that programs of this kind agree on for `pg_advisory_xact_lock`, where one of them makes the schema: any, once chosen. */
const LOCK = 7_431_190_517;
/** How long a step may take, and how long another node's are waited for, ms: they may rebuild a large table. */
export const MIGRATION_TIMEOUT = 300_000;
/** Older than this is not tested, and its makers have stopped mending it. */
const OLDEST = 13;

/**
 * Brings the schema up to date, by one node at a time: the others wait, and find it made.
 * @throws {OperatorError} `DATABASE_NEWER` where a newer program made it, `DATABASE_REFUSED` where this server cannot be used
 */
export async function migrate(
  client: Client,
  where: string,
  log: Pick<Logger, 'info'>,
  steps: readonly Migration[],
): Promise<void> {
  await checkServer(client, where);
  if ((await versionOf(client)) === steps.length) return;
  await client.query(`BEGIN; SET LOCAL statement_timeout = ${MIGRATION_TIMEOUT}`);
  try {
    // With the end of the transaction it is free, whatever becomes of this process.
    await client.query('SELECT pg_advisory_xact_lock($1)', [LOCK]);
    const found = await versionOf(client);
    if (found > steps.length) throw newer(where, found, steps.length);
    if (found === 0) await client.query('CREATE TABLE gateway_schema (version int NOT NULL)');
    if (found === 0) await client.query('INSERT INTO gateway_schema VALUES (0)');
    for (const step of steps.slice(found)) await client.query(step.sql);
    await client.query('UPDATE gateway_schema SET version = $1', [steps.length]);
    await client.query('COMMIT');
    if (found < steps.length)
      log.info({ from: found, to: steps.length }, `the schema of the database ${where} is up to date`);
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {});
    throw error;
  }
}

/** 0 where there is none yet. */
async function versionOf(client: Client): Promise<number> {
  // Not `to_regclass`: a name that was not there is remembered by the connection, whoever made the table meanwhile.
  const { rows } = await client.query(
    "SELECT EXISTS (SELECT FROM pg_tables WHERE tablename = 'gateway_schema' AND schemaname = ANY (current_schemas(false))) AS made",
  );
  if (rows[0]?.made !== true) return 0;
  const version = await client.query<{ version: number }>('SELECT version FROM gateway_schema');
  return version.rows[0]?.version ?? 0;
}

async function checkServer(client: Client, where: string): Promise<void> {
  const { rows } = await client.query(`SELECT current_setting('server_version_num')::int / 10000 AS version,
    current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby`);
  const { version, encoding, standby } = rows[0] ?? {};
  if (Number(version) < OLDEST) {
    throw new OperatorError('DATABASE_REFUSED', `the database ${where} is PostgreSQL ${version}`, {
      next: `use PostgreSQL ${OLDEST} or newer`,
    });
  }
  if (encoding !== 'UTF8') {
    throw new OperatorError('DATABASE_REFUSED', `the database ${where} keeps text as ${encoding}`, {
      next: "make one that keeps UTF-8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
    });
  }
  if (standby === true) {
    throw new OperatorError('DATABASE_UNREACHABLE', `the database ${where} is a standby, which takes no changes`, {
      next: 'let the URL lead to the primary',
    });
  }
}

function newer(where: string, found: number, known: number): OperatorError {
  return new OperatorError(
    'DATABASE_NEWER',
    `the database ${where} was changed by a newer version of this program (schema ${found}, this one knows up to ${known})`,
    { next: 'update this node to the version of the others; every node of a fleet shares one schema' },
  );
}
