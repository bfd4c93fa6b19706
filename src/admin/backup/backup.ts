import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Mutex } from '../../kit/async.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import type { BackupMade, Operation } from '../contract.ts';
import type { OperationsDeps } from '../operation.ts';
import { describeFiles, STATE_FILES, writeArchive } from './archive.ts';

/** Of the database, while an archive is made of it. One that a kill left is written over by the next. */
const SNAPSHOT = 'backup.db.new';

/**
 * `backup` sends an archive to whoever asked, a step for each piece of it (`data`: base64): the file belongs where the person is, who may be
 * another user than the gateway and sees another file system.
 */
export function backupOperations(deps: OperationsDeps): Record<string, Operation> {
  const oneAtATime = new Mutex();
  return {
    backup: (_input, context): Promise<BackupMade> =>
      oneAtATime.run(async () => {
        const { dataDir } = deps.config;
        const snapshot = join(dataDir, SNAPSHOT);
        try {
          await rm(snapshot, { force: true });
          const schema = await deps.snapshot(snapshot);
          const files = new Map([['gateway.db', snapshot]]);
          for (const name of STATE_FILES) {
            if (!files.has(name) && existsSync(join(dataDir, name))) files.set(name, join(dataDir, name));
          }
          const manifest = await describeFiles(files, { version: deps.version, schemas: { 'gateway.db': schema } });
          let bytes = 0;
          for await (const piece of writeArchive(manifest, files)) {
            context.signal.throwIfAborted();
            bytes += piece.length;
            context.step('archive', '', Buffer.from(piece.buffer, piece.byteOffset, piece.length).toString('base64'));
            await context.drained?.();
          }
          return { dataDir, bytes, ...manifest };
        } catch (error) {
          if (error instanceof OperatorError || context.signal.aborted) throw error;
          throw new OperatorError(
            'BACKUP_FAILED',
            `no backup of ${dataDir} could be made: ${(error as Error).message}`,
            {
              next: `check that ${dataDir} has room for a copy of gateway.db, and try again`,
              cause: error,
            },
          );
        } finally {
          await rm(snapshot, { force: true });
        }
      }),
  };
}
