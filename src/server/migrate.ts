import { copyFileSync, existsSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config/config.ts';
import { PrivateDraft, syncDirectory } from '../kit/durable-files.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { iso } from '../kit/time.ts';
import { type Logger, silentLog } from '../telemetry/log.ts';
import { databaseFile, isDataDirectory, movedMark } from './data-directory.ts';
import { openForMigration, writeSqlite } from './stores.ts';

/** What `migrate --json` shows. */
export interface Migrated {
  /** In words, without user and password. */
  readonly from: string;
  readonly to: string;
  readonly aliases: number;
  readonly registries: number;
  readonly users: number;
  readonly certificates: number;
  /** What was in the place before, where it was kept; null where nothing was. */
  readonly aside: string | null;
}

/**
 * Moves the state of the data directory into a shared database, or that of the shared database into the data directory. No gateway may run on what is
 * moved. What it was moved from stays as it is; a data directory is marked, so that no gateway goes on with it by mistake.
 * @param to `sqlite`, or the URL of a database
 * @throws {OperatorError} `MIGRATE_REFUSED`, `DATA_DIR_IN_USE`, `DATABASE_UNREACHABLE` …
 */
export async function migrateState(config: Config, to: string, log: Logger = silentLog()): Promise<Migrated> {
  const { dataDir } = config;
  if (config.secretFile === null) {
    throw new OperatorError('MIGRATE_REFUSED', 'secretFile is not set: what lies in a shared database is encrypted', {
      next: 'make the keys of the gateways, and name their file: gateway secret new > FILE; chmod 600 FILE; GATEWAY_SECRET_FILE=FILE',
    });
  }
  return to === 'sqlite' ? intoDataDirectory(config, log) : intoDatabase({ ...config, database: to }, dataDir, log);
}

async function intoDatabase(config: Config, dataDir: string, log: Logger): Promise<Migrated> {
  if (!isDataDirectory(dataDir)) {
    throw new OperatorError('MIGRATE_REFUSED', `no gateway has ever run on ${dataDir}: there is nothing to move`, {
      next: 'name its data directory with --data-dir; a new fleet begins with gateway serve',
    });
  }
  const places = await openForMigration(config, log);
  try {
    const state = await places.readSqlite();
    if (state === null) {
      throw new OperatorError('MIGRATE_REFUSED', `${dataDir} has no state of its own: there is nothing to move`, {
        next: 'name the data directory of the gateway that is meant: --data-dir DIR',
      });
    }
    await places.writeShared(state);
    const mark = await PrivateDraft.begin(movedMark(dataDir));
    await mark.write(Buffer.from(`${JSON.stringify({ to: places.where, at: iso(Date.now()) })}\n`));
    await mark.keep({ replace: true });
    return { ...counts(state), from: dataDir, to: places.where, aside: null };
  } finally {
    await places.close();
  }
}

async function intoDataDirectory(config: Config, log: Logger): Promise<Migrated> {
  const { dataDir } = config;
  if (config.database === null) {
    throw new OperatorError('MIGRATE_REFUSED', 'no shared database is configured that could be moved from', {
      next: 'name it with database or GATEWAY_DATABASE',
    });
  }
  const places = await openForMigration(config, log);
  try {
    const file = databaseFile(dataDir);
    const isMarked = existsSync(movedMark(dataDir));
    const isUsed = (await places.readSqlite()) !== null;
    if (isUsed && !isMarked) {
      throw new OperatorError('MIGRATE_REFUSED', `${dataDir} has state of its own`, {
        next: 'name another data directory: --data-dir DIR',
      });
    }
    const state = await places.readShared();
    if (state.table.isNew && !state.users.everAdded && state.certificates.length === 0) {
      throw new OperatorError(
        'MIGRATE_REFUSED',
        `no gateway has ever run on ${places.where}: there is nothing to move`,
        {
          next: 'name the database of the gateways that are meant: database, GATEWAY_DATABASE',
        },
      );
    }
    // What a gateway that was killed has left in the log beside the file is in the file after it, and nothing of it meets the new one.
    places.closeSqlite();
    await places.takeInternalRoot();
    const aside = isUsed ? join(dataDir, `gateway-moved-${iso(Date.now()).replace(/[-:.]/g, '')}.db`) : null;
    if (aside !== null) copyFileSync(file, aside);
    const draft = `${file}.new`;
    for (const name of [draft, `${draft}-wal`, `${draft}-shm`]) rmSync(name, { force: true });
    await writeSqlite(state, draft);
    renameSync(draft, file);
    rmSync(movedMark(dataDir), { force: true });
    await syncDirectory(dataDir);
    return { ...counts(state), from: places.where, to: dataDir, aside };
  } finally {
    await places.close();
  }
}

function counts({ table, users, certificates }: Parameters<typeof writeSqlite>[0]) {
  return {
    aliases: table.aliases.length,
    registries: table.registries.length,
    users: users.users.length,
    certificates: certificates.length,
  };
}
