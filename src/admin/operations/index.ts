import { OperatorError } from '../../kit/operator-error.ts';
import { backupOperations } from '../backup/backup.ts';
import type { Operation, ReloadReport } from '../contract.ts';
import { doctorOperations } from '../doctor/doctor.ts';
import { importOperations } from '../import/operations.ts';
import type { OperationsDeps } from '../operation.ts';
import { aliasOperations } from './alias.ts';
import { cacheOperations } from './cache.ts';
import { certOperations } from './cert.ts';
import { clientOperations } from './client.ts';
import { configOperations } from './config.ts';
import { registryOperations } from './registry.ts';
import { statusOperations } from './status.ts';
import { userOperations } from './user.ts';

/**
 * Every operation by its name, for the admin socket and for commands where nothing runs. One that has ended, well or not, has reached
 * every process of the gateway.
 */
export function createOperations(deps: OperationsDeps): ReadonlyMap<string, Operation> {
  const operations: Record<string, Operation> = {
    ...aliasOperations(deps),
    ...registryOperations(deps),
    ...configOperations(deps),
    ...certOperations(deps),
    ...clientOperations(deps),
    ...statusOperations(deps),
    ...doctorOperations(deps),
    ...cacheOperations(deps),
    ...userOperations(deps),
    ...backupOperations(deps),
    ...importOperations(deps),
    ...reloadOperations(deps),
  };
  const { live } = deps;
  if (live === null) return new Map(Object.entries(operations));
  return new Map(
    Object.entries(operations).map(([name, operation]): [string, Operation] => [
      name,
      (input, context) => operation(input, context).finally(() => live.settled()),
    ]),
  );
}

function reloadOperations({ live, config }: OperationsDeps): Record<string, Operation> {
  return {
    reload: async (): Promise<ReloadReport> => {
      if (live !== null) return await live.reload();
      throw new OperatorError(
        'NOT_RUNNING',
        `nothing runs on ${config.dataDir}: the next start reads the configuration`,
      );
    },
  };
}
