import { OperatorError } from '../../kit/operator-error.ts';
import { backupOperations } from '../backup/backup.ts';
import type { Operation, OperationContext, ReloadReport } from '../contract.ts';
import { doctorOperations } from '../doctor/doctor.ts';
import { importOperations } from '../import/operations.ts';
import type { OperationsDeps } from '../operation.ts';
import { aliasOperations } from './alias.ts';
import { cacheOperations } from './cache.ts';
import { certOperations } from './cert.ts';
import { clientOperations } from './client.ts';
import { configOperations } from './config.ts';
import { drillOperations } from './drill.ts';
import { registryOperations } from './registry.ts';
import { secretOperations } from './secret.ts';
import { statusOperations } from './status.ts';
import { tagOperations } from './tag.ts';
import { userOperations } from './user.ts';
import { warmOperations } from './warm.ts';

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
    ...drillOperations(deps),
    ...userOperations(deps),
    ...warmOperations(deps),
    ...backupOperations(deps),
    ...importOperations(deps),
    ...secretOperations(deps),
    ...tagOperations(deps),
    ...reloadOperations(deps),
  };
  return new Map(
    Object.entries(operations).map(([name, operation]): [string, Operation] => [
      name,
      async (input, context) => {
        let result: unknown;
        try {
          result = await operation(input, context);
        } catch (error) {
          await deps.live?.settled();
          // What the database has not taken no other gateway could serve by; what it had taken before it was away each reads once it is back.
          if (!isUnreachable(error)) await takenIntoUse(deps, name, context);
          throw error;
        }
        await deps.live?.settled();
        const behind = await takenIntoUse(deps, name, context);
        return behind.length > 0 && isObject(result) ? { ...result, behind } : result;
      },
    ]),
  );
}

/** Those that change what all gateways of a database share. */
const SHARED_CHANGES: ReadonlySet<string> = new Set([
  ...['alias.add', 'alias.rm', 'alias.import', 'alias.presets', 'import.table'],
  ...['registry.set', 'registry.rm', 'user.add', 'user.rotate', 'user.rm', 'cert.import', 'cert.renew', 'cert.rm'],
]);

/** Gateways that do not serve by a change yet: beside its result, for programs; left out there where all do. */
type Behind = readonly { readonly id: string; readonly address: string | null }[];

/** Waits until every gateway that shares the state serves by what was changed; says which do not. */
async function takenIntoUse({ nodes }: OperationsDeps, name: string, context: OperationContext): Promise<Behind> {
  if (!SHARED_CHANGES.has(name)) return [];
  const behind = (await nodes.settled(context.signal)).nodes.map(({ id, address }) => ({ id, address }));
  for (const { id, address } of behind) {
    const who = address === null ? id : `${id} (${address})`;
    context.step(
      'node',
      `the gateway ${who} does not serve by it yet; it will as soon as it has read it, or at its next start`,
    );
  }
  return behind;
}

function isUnreachable(error: unknown): boolean {
  return error instanceof OperatorError && error.code === 'DATABASE_UNREACHABLE';
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
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
