/** The configuration after defaults, file and environment; every value checked, sizes in bytes, durations in milliseconds. */
export interface Config {
  readonly domain: string;
  /** False for localhost, IP addresses and names under .localhost .test .internal .local .home.arpa. */
  readonly publicDomain: boolean;
  /** Absolute. */
  readonly dataDir: string;
  readonly listen: {
    readonly https: ListenAddress | null;
    readonly http: ListenAddress | null;
    /** Processes that share the listening sockets; `auto` is resolved to a number. */
    readonly workers: number;
  };
  readonly tls: { readonly mode: 'acme' | 'internal' | 'off' };
  readonly trustedProxies: readonly string[];
  readonly acme: {
    readonly email: string | null;
    /** Tried in order. */
    readonly issuers: readonly IssuerConfig[];
    readonly challenges: readonly ChallengeType[];
    readonly selfCheck: boolean;
    readonly resolvers: readonly string[];
  };
  readonly cache: {
    readonly maxSize: number;
    readonly minFree: number;
    readonly tagTtl: number;
    readonly staleFor: number;
  };
  readonly upstream: {
    readonly proxy: string | null;
    readonly stallTimeout: number;
    readonly connections: number;
  };
  readonly access: {
    /** null: open until the first user exists. */
    readonly anonymous: boolean | null;
    readonly allow: readonly string[];
    readonly deny: readonly string[];
  };
  readonly limits: {
    readonly requestsPerMinute: number | null;
    readonly bytesPerDay: number | null;
    readonly bytesPerMonth: number | null;
  };
  readonly metrics: { readonly listen: ListenAddress | null };
  readonly log: { readonly level: LogLevel; readonly format: 'json' | 'pretty' };
}

export interface ListenAddress {
  /** Undefined: every address of the machine. */
  readonly host: string | undefined;
  /** 0 picks a free one (tests). */
  readonly port: number;
}

export type ChallengeType = 'http-01' | 'tls-alpn-01';
export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

export interface IssuerConfig {
  readonly directory: string;
  readonly caFile: string | null;
  readonly eab: { readonly keyId: string; readonly hmacKey: string } | null;
  readonly profile: string | null;
}
