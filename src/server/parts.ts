import type { Access } from '../access/access.ts';
import type { LiveGateway } from '../admin/operation.ts';
import type { Cache } from '../cache/cache.ts';
import type { Cluster } from '../cluster/cluster.ts';
import type { Config } from '../config/config.ts';
import type { Edge } from '../edge/edge.ts';
import type { EdgeAddresses } from '../edge/listeners.ts';
import type { Lifecycle } from '../kit/process.ts';
import type { ManagedProxyCore } from '../proxy/core.ts';
import type { RegistryOutline } from '../proxy/outline.ts';
import type { RepliesTally } from '../proxy/reply.ts';
import type { Activity } from '../telemetry/activity.ts';
import type { LineSink, Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { ManagedUpstream } from '../upstream/registry-upstream.ts';
import type { ConnectionTotals } from '../workers/connection-totals.ts';
import type { WorkerSupervisor } from '../workers/supervisor.ts';
import type { Passage } from './policy.ts';
import type { Reloader } from './reload.ts';
import type { State } from './state.ts';

/** What every step of the start is given. A step defers the end of what it has started on the lifecycle. */
export interface Base {
  /** As it was at the start. */
  readonly config: Config;
  readonly reloader: Reloader;
  readonly log: Logger;
  readonly logLines: LineSink;
  readonly wellKnown: readonly string[];
  readonly metrics: Metrics;
  /** Counts replies by kind and origin, in the proxy core and in the cache before it. */
  readonly replies: RepliesTally;
  readonly lifecycle: Lifecycle;
  /** True, or why the gateway is not ready. */
  ready: true | string;
  /** This node is ending, and others of its fleet do its work. */
  draining: boolean;
  /** The other processes that serve; null before they are started, and where this process serves alone. */
  workers: WorkerSupervisor | null;
  /** Encrypt TLS session tickets, in every process of this gateway. */
  ticketKeys: () => Buffer;
  /** Of clients, with all processes. */
  readonly connections: ConnectionTotals;
  /** What all processes saw of clients and troubles. */
  readonly activity: Activity;
}

/** What the steps have built so far; each step names the parts that it needs. */
export interface Parts {
  readonly state: State;
  readonly upstream: ManagedUpstream;
  readonly cache: Cache;
  /** Null for the only gateway of its database. */
  readonly cluster: Cluster | null;
  /** What may pass, asked by the core; it takes its rules with the core's configuration. */
  readonly passage: Passage;
  readonly core: ManagedProxyCore;
  /** The registries of the table as people who pull may know them. */
  readonly outlines: () => readonly RegistryOutline[];
  readonly access: Access;
  readonly edge: Edge;
  readonly bound: EdgeAddresses;
  readonly live: LiveGateway;
}
