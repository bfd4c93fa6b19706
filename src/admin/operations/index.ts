import type { Operation } from '../contract.ts';
import type { OperationsDeps } from '../deps.ts';
import { aliasOperations } from './alias.ts';
import { cacheOperations } from './cache.ts';
import { certOperations } from './cert.ts';
import { clientOperations } from './client.ts';
import { doctorOperations } from './doctor.ts';
import { registryOperations } from './registry.ts';
import { statusOperations } from './status.ts';
import { userOperations } from './user.ts';

/** Every operation by its name, for the admin socket and for commands where nothing runs. */
export function createOperations(deps: OperationsDeps): ReadonlyMap<string, Operation> {
  return new Map(
    Object.entries({
      ...aliasOperations(deps),
      ...registryOperations(deps),
      ...certOperations(deps),
      ...clientOperations(deps),
      ...statusOperations(deps),
      ...doctorOperations(deps),
      ...cacheOperations(deps),
      ...userOperations(deps),
    }),
  );
}
