import type { Users } from '../access/users.ts';
import type { AliasTable } from '../aliases/alias-table.ts';
import type { CacheAdmin } from '../cache/admin.ts';
import type { CertificateOperations, CertificateService } from '../certs/service.ts';
import type { Config } from '../config/config.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { ProbeAnswer } from './probe.ts';

/** What only a gateway that runs has. */
export interface LiveGateway {
  readonly pid: number;
  readonly startedAt: Date;
  readonly workers: number;
  /** As they were bound: a configured port 0 is a real one here. `host:port`. */
  readonly addresses: {
    readonly https: readonly string[];
    readonly http: readonly string[];
    readonly metrics: string | null;
  };
  readonly upstream: Upstream;
  /** Requests, bytes and the like since the start, by a name that a person understands. */
  traffic(): Promise<Readonly<Record<string, number>>>;
  /** Asks the gateway's own listener `GET /v2/` under this host name. */
  probe(host: string, signal: AbortSignal): Promise<ProbeAnswer>;
  /** Resolves once every process of the gateway works with the table and the certificates as they are now. */
  settled(): Promise<void>;
  /** The cache was pruned or found damaged: answers that are ready in memory are made anew. */
  forget(): void;
}

/** What the operations act on; without `live`, on a data directory that no gateway works on. */
export interface OperationsDeps {
  readonly config: Config;
  readonly version: string;
  readonly table: AliasTable;
  readonly users: Users;
  /** Null with `tls.mode: off`. */
  readonly certificates: (CertificateService & CertificateOperations) | null;
  /** Opened when it is first asked for: most commands need no cache. */
  readonly cache: () => CacheAdmin;
  readonly live: LiveGateway | null;
}
