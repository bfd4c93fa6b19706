import type { CertificateState } from '../../certs/service.ts';
import type { Operation } from '../contract.ts';
import type { OperationsDeps } from '../deps.ts';
import type { StatusReport } from '../rows.ts';

export function statusOperations(deps: OperationsDeps): Record<string, Operation> {
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
        uptimeSeconds: live === null ? null : Math.floor((Date.now() - live.startedAt.getTime()) / 1000),
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
