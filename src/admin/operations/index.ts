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

/**
 * Every operation by its name, for the admin socket and for commands where nothing runs. One that has ended, well or not, has reached
 * every process of the gateway.
 */
export function createOperations(deps: OperationsDeps): ReadonlyMap<string, Operation> {
  const operations: Record<string, Operation> = {
    ...aliasOperations(deps),
    ...registryOperations(deps),
    ...certOperations(deps),
    ...clientOperations(deps),
    ...statusOperations(deps),
    ...doctorOperations(deps),
    ...cacheOperations(deps),
    ...userOperations(deps),
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
