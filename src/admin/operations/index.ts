import type { CertificateState } from '../../certs/service.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { steadyNow } from '../../kit/time.ts';
import { backupOperations } from '../backup/backup.ts';
import type { Operation, ReloadReport, StatusReport } from '../contract.ts';
import { doctorOperations } from '../doctor/doctor.ts';
import { importOperations } from '../import/operations.ts';
import type { OperationsDeps } from '../operation.ts';
import { aliasOperations } from './alias.ts';
import { cacheOperations } from './cache.ts';
import { certOperations } from './cert.ts';
import { clientOperations } from './client.ts';
import { registryOperations } from './registry.ts';
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

function statusOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    status: async (): Promise<StatusReport> => {
      const { live, config, table } = deps;
      const { aliases, registries } = table.snapshot();
      const { bytes, maxBytes, blobs, hitRatio } = deps.cache().stats();
      const certificates: Record<CertificateState, number> = { valid: 0, pending: 0, failed: 0, expired: 0 };
      for (const { state } of deps.certificates?.list() ?? []) certificates[state] += 1;
      return {
        running: live !== null,
        version: deps.version,
        dataDir: config.dataDir,
        domain: config.domain,
        pid: live?.pid ?? null,
        startedAt: live?.startedAt.toISOString() ?? null,
        uptimeSeconds: live === null ? null : Math.floor((steadyNow() - live.startedAt.getTime()) / 1000),
        workers: live?.workers ?? null,
        addresses: live?.addresses ?? { https: [], http: [], metrics: null },
        tls: config.tls.mode,
        aliases: aliases.size,
        registries: registries.size,
        certificates,
        cache: { bytes, maxBytes, blobs, hitRatio },
        traffic: (await live?.traffic()) ?? null,
        warnings: [...table.conflicts(), ...(deps.certificates?.warnings() ?? [])],
      };
    },
  };
}
