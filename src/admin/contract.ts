import type { CacheStats } from '../cache/admin.ts';
import type { FillProgress } from '../cache/running-fills.ts';
import type { CertificateInfo, CertificateState } from '../certs/service.ts';
import type { Node } from '../cluster/nodes.ts';
import type { ConfigChange } from '../config/reload.ts';
import type { Authority } from '../kit/authorities.ts';
import type { ClientUse, Trouble } from '../telemetry/activity.ts';
import type { TimedSample } from '../telemetry/history.ts';
import type { BudgetRow, EndpointHealth } from '../upstream/upstream.ts';
import type { WarmOutcome } from '../warm/warmer.ts';
import type { BackupManifest } from './backup/archive.ts';

/**
 * The operator's contract: named operations, JSON in, a stream of JSON lines out. The CLI calls them through `<dataDir>/admin.sock`
 * where a gateway runs, and in its own process, on the same data directory, where none does.
 */
export type AdminLine =
  /** Progress, as it happens; `data` for bars (`{done, total}`). */
  | { readonly type: 'step'; readonly step: string; readonly message: string; readonly data?: unknown }
  /** The last line of a success. */
  | { readonly type: 'result'; readonly result: unknown }
  /** The last line of a failure; `usage` makes the CLI exit 2, else 1. */
  | {
      readonly type: 'error';
      readonly code: string;
      readonly message: string;
      readonly next?: string;
      readonly usage: boolean;
      readonly result?: unknown;
    };

/** One operation: validates its input itself, so that both ways in are checked alike. */
export type Operation = (input: unknown, context: OperationContext) => Promise<unknown>;

export interface OperationContext {
  readonly step: (step: string, message: string, data?: unknown) => void;
  /** Resolves when whoever follows the steps has taken those that there were; for an operation whose steps are many bytes. */
  readonly drained?: () => Promise<void>;
  /** Aborted when the person presses Ctrl-C. */
  readonly signal: AbortSignal;
}

/** `none`: no certificate is wanted (`--no-cert`, `tls.mode: off`). */
export type AliasCertificateState = CertificateState | 'none';

/** A row of `alias ls --json`. */
export interface AliasRow {
  readonly name: string;
  /** Null for a label where the domain is an IP address: its registry is pulled by prefix. */
  readonly host: string | null;
  readonly registry: string;
  readonly certificate: { readonly state: AliasCertificateState; readonly notAfter: string | null };
}

/** A row of `registry ls --json`. */
export interface RegistryRow {
  readonly host: string;
  readonly endpoints: readonly string[];
  /** Without its credentials. */
  readonly proxy: string | null;
  /** Whether it has some of its own, for every repository without others; what they are is never shown. */
  readonly credentials: boolean;
  /** Those for some of its repositories. */
  readonly named: readonly NamedCredentialsRow[];
  readonly public: boolean;
  /** Hosts outside its own domain that may be sent its credentials. */
  readonly realms: readonly string[];
}

/** Credentials of a registry for the repositories that match its patterns; the password is never shown. */
export interface NamedCredentialsRow {
  readonly name: string;
  readonly for: readonly string[];
  readonly username: string;
}

/** How an endpoint of a registry answers, as `alias add`, `registry set` and `doctor` say it. */
export interface EndpointVerdict {
  readonly endpoint: string;
  readonly level: 'ok' | 'warn' | 'fail';
  /** One sentence that begins with the endpoint. */
  readonly message: string;
  readonly next: string | null;
  /** What kind of failure it is: as `reasonClass` has it, or `scheme`, `no registry`, `credentials`, `loop`, `status 503`; empty where there is none. */
  readonly because: string;
}

export interface AliasAdded {
  /** Null where its registry was not tried (`--no-check`). */
  readonly check: readonly EndpointVerdict[] | null;
  readonly alias: AliasRow;
  readonly created: { readonly alias: boolean; readonly registry: boolean };
  readonly certificate: CertificateInfo | null;
  /** Whether a gateway serves it now. */
  readonly running: boolean;
  /** As names of its images begin: host and port, and behind them the registry where the alias has no host. */
  readonly address: string;
}

export interface AliasDetails extends AliasRow {
  readonly details: { readonly registry: RegistryRow; readonly certificate: CertificateInfo | null };
}

/** What `registry set` did. */
export interface RegistrySet extends RegistryRow {
  /** Null where it was not tried (`--no-check`). */
  readonly check: readonly EndpointVerdict[] | null;
}

export interface RegistryDetails extends RegistryRow {
  /** Authorities that its certificates may be signed by, besides those that the machine trusts. */
  readonly ca: readonly Authority[];
  readonly aliases: readonly string[];
  /** Empty where no gateway runs: only a running one knows. */
  readonly health: readonly EndpointHealth[];
  /** The same. */
  readonly budgets: readonly BudgetRow[];
}

/** One line of `doctor`. */
export interface Check {
  readonly name: string;
  readonly level: 'ok' | 'warn' | 'fail';
  readonly message: string;
  /** What to do, where something is wrong. */
  readonly next?: string;
  /** Names of the checks that fail for this very cause, and are not told by themselves. */
  readonly explains?: readonly string[];
}

export interface DoctorReport {
  readonly checks: readonly Check[];
  readonly counts: { readonly ok: number; readonly warn: number; readonly fail: number };
}

/** How it stands between a gateway and the database that it shares with others. */
export interface SharedDatabase {
  /** Without user and password. */
  readonly where: string;
  readonly reachable: boolean;
  /** Since when that is so, ISO 8601. */
  readonly since: string;
  /** Why it is not reachable. */
  readonly trouble: string | null;
}

/** What `secret rotate` did: values that are encrypted under the first key from now on, and those that were already. */
export interface SecretsRotated {
  readonly sealed: number;
  readonly current: number;
}

/** One of the gateways that share a database. */
export type NodeRow = Node & { readonly self: boolean };

/** What `status --json` shows. `null`s where no gateway runs. */
export interface StatusReport {
  readonly running: boolean;
  readonly version: string;
  readonly dataDir: string;
  readonly domain: string;
  readonly pid: number | null;
  readonly startedAt: string | null;
  readonly uptimeSeconds: number | null;
  readonly workers: number | null;
  readonly addresses: {
    readonly https: readonly string[];
    readonly http: readonly string[];
    readonly metrics: string | null;
  };
  readonly tls: string;
  readonly aliases: number;
  readonly registries: number;
  readonly certificates: Readonly<Record<CertificateState, number>>;
  /** The next certificate to end. */
  readonly nextExpiry: { readonly host: string; readonly notAfter: string } | null;
  readonly cache: Pick<CacheStats, 'bytes' | 'maxBytes' | 'blobs' | 'hitRatio' | 'pinnedBytes' | 'pins'>;
  /** Images on a schedule or pinned whose last run failed, as this gateway knows. */
  readonly warmFailing: readonly { readonly image: string; readonly error: string; readonly retryAt: string | null }[];
  /** Blobs' bytes since the cache was made: what clients read, what was fetched for that, and the difference. */
  readonly saved: { readonly served: number; readonly fetched: number; readonly bytes: number };
  readonly fills: readonly FillProgress[];
  readonly traffic: Readonly<Record<string, number>> | null;
  /** Since the start; registries that nobody asked for are left out. */
  readonly byRegistry: readonly RegistryTraffic[];
  /** Since the start; those that were sent most, first. */
  readonly byClient: readonly ClientRow[];
  /** Null where none is set, or nothing runs. */
  readonly limits: LimitsRow | null;
  /** Endpoints that are not asked in their turn, since they could not be connected to or failed. */
  readonly setAside: readonly EndpointRow[];
  /** What registries allow this gateway, as far as they said so since the start. */
  readonly budgets: readonly BudgetRow[];
  /** What went wrong lately, the latest first. */
  readonly troubles: readonly Trouble[];
  readonly users: number;
  /** Null where the gateway has its state for itself. */
  readonly database: SharedDatabase | null;
  /** The gateways that share the state, as far as this one knows; itself alone where it has it for itself. */
  readonly nodes: readonly NodeRow[];
  /** What an operator should know, a sentence each. */
  readonly warnings: readonly string[];
}

/** What `reload` did. */
export interface ReloadReport {
  readonly changed: readonly ConfigChange[];
  /** Written otherwise than the gateway runs; for the next start. */
  readonly restart: readonly ConfigChange[];
  readonly warnings: readonly string[];
}

/** What `backup --json` shows, `file` besides. */
export interface BackupMade extends BackupManifest {
  readonly dataDir: string;
  /** Of the whole archive. */
  readonly bytes: number;
}

/** What `warm` did; `warm --json` shows its images. */
export interface WarmDone {
  /** In the order in which they were named. */
  readonly images: readonly WarmOutcome[];
  /** Of the gateway whose cache has them now. */
  readonly dataDir: string;
}

/** What `restore --json` shows. */
export interface Restored {
  readonly dataDir: string;
  /** Of the program that made the backup, and when, ISO 8601; null where the backup does not say. */
  readonly version: string | null;
  readonly created: string | null;
  /** Steps of the database's schema. */
  readonly schema: number;
  /** What was put in place. */
  readonly files: readonly string[];
  /** Where what was there before is now; null where there was nothing. */
  readonly aside: string | null;
}

/** What `import … --json` says of layers. */
export interface LayersImported {
  readonly repositories: number;
  readonly manifests: number;
  readonly tags: number;
  /** Blobs that were taken over, with their bytes; of those, hard links. */
  readonly blobs: number;
  readonly bytes: number;
  readonly linked: number;
  /** Blobs that were here. */
  readonly held: number;
  /** Blobs and manifests whose bytes are wrong or gone; the first hundred by name. */
  readonly damaged: number;
  readonly damagedList: readonly { readonly digest: string; readonly repository: string; readonly reason: string }[];
  /** Registries whose repositories are there, and which are not in the table. */
  readonly unknownRegistries: readonly string[];
  /** Repositories that their registry has refused since: nothing of them was taken. */
  readonly denied: readonly string[];
  /** Names that no repository has, and manifests of no known type. */
  readonly notUnderstood: readonly string[];
  /** Repositories for which there was no room. */
  readonly left: number;
}

export interface RegistryTraffic {
  /** A row of the table: of a host that matches a pattern, the pattern. */
  readonly registry: string;
  readonly requests: number;
  readonly bytesSent: number;
  readonly bytesFetched: number;
  /** Requests that the registry failed. */
  readonly failed: number;
}

/** As the limits count it: a user, an IPv4 address, or the /64 of an IPv6 address. */
export type ClientRow = Omit<ClientUse, 'lastAt'> & {
  /** ISO 8601; null where it has not asked since the start. */
  readonly lastAt: string | null;
  /** The larger of what it was sent and what was fetched for it; null without `limits.bytesPerDay`. */
  readonly bytesToday: number | null;
  /** How many of its requests a minute it has not got back yet; null without `limits.requestsPerMinute`. */
  readonly requestsUsed: number | null;
};

export interface LimitsRow {
  /** Of one client. */
  readonly requestsPerMinute: number | null;
  /** Of one client. */
  readonly bytesPerDay: { readonly limit: number; readonly endsAt: string } | null;
  /** Of all together. */
  readonly bytesPerMonth: { readonly limit: number; readonly used: number; readonly endsAt: string } | null;
}

export type EndpointRow = EndpointHealth & { readonly registry: string };

/** What `gateway dashboard` shows. */
export interface DashboardReport {
  readonly at: string;
  readonly status: StatusReport;
  readonly certificates: readonly CertificateInfo[];
  readonly endpoints: readonly EndpointRow[];
  /** Minute by minute, oldest first; the last is of now. */
  readonly history: readonly TimedSample[];
}

/** What a tag stood for: `tag history --json`. Times in ISO 8601. */
export interface TagSpanRow {
  readonly tag: string;
  /** Of what clients accept: clients that accept other types may be given another manifest under the same tag. */
  readonly variant: string;
  readonly digest: string;
  /** When it was first and last seen so. */
  readonly from: string;
  readonly to: string;
  /** When its repository first showed that manifest; null where that is not known any more. */
  readonly firstSeen: string | null;
  /** From when it may be given for the tag, by `policy.cooldown`; null where that is not for it. */
  readonly passesFrom: string | null;
}

export interface TagHistory {
  /** The whole name: of a repository, or of a tag in it. */
  readonly image: string;
  /** The newest first. */
  readonly spans: readonly TagSpanRow[];
}
