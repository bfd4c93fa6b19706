import { isDeepStrictEqual } from 'node:util';
import { type Config, KEYS } from './config.ts';
import { Key, KeyList, type KeyTree } from './keys.ts';
import { valueText } from './text.ts';

/** `live`: a change takes effect when the configuration is read again. `restart`: at the next start. */
type Reloading = 'live' | 'restart';

type ReloadingOf<T> = {
  readonly [N in keyof T]: T[N] extends Key<infer _P, infer _V> | KeyList<infer _I, infer _W>
    ? Reloading
    : ReloadingOf<T[N]>;
};

/**
 * Of every key, whether a running gateway takes a change of it. A new key does not compile before it is here. What is `live` here is taken by the
 * parts that `src/server/reload.ts` lists, each by its `reconfigure`; test/integration/reload-keys.test.ts and reload-acme.test.ts see each of them take effect.
 */
export const RELOADING: ReloadingOf<typeof KEYS> = {
  domain: 'restart',
  publicUrl: 'live',
  dataDir: 'restart',
  listen: { https: 'restart', http: 'restart', workers: 'restart' },
  tls: { mode: 'restart' },
  trustedProxies: 'live',
  acme: {
    email: 'live',
    issuers: 'restart',
    challenges: 'live',
    dns: {
      provider: 'live',
      server: 'live',
      algorithm: 'live',
      keyId: 'live',
      secret: 'live',
      secretFile: 'live',
      program: 'live',
      endpoint: 'live',
      propagationTimeout: 'live',
    },
    wildcard: 'live',
    selfCheck: 'live',
    resolvers: 'live',
  },
  cache: {
    maxSize: 'live',
    minFree: 'live',
    tagTtl: 'live',
    staleFor: 'live',
    scrub: 'live',
    prefetch: 'live',
    s3: {
      bucket: 'restart',
      prefix: 'restart',
      region: 'restart',
      endpoint: 'restart',
      pathStyle: 'restart',
      maxSize: 'live',
      redirect: 'live',
    },
  },
  upstream: { proxy: 'live', caFile: 'live', stallTimeout: 'live', connections: 'live' },
  database: 'restart',
  secretFile: 'restart',
  cluster: { listen: 'restart', address: 'restart' },
  access: { anonymous: 'live', allow: 'live', deny: 'live' },
  limits: {
    requestsPerMinute: 'live',
    bytesPerDay: 'live',
    bytesPerMonth: 'live',
    connections: 'live',
    minRate: 'live',
  },
  policy: { images: 'live', cooldown: 'live', cooldownImages: 'live' },
  metrics: { listen: 'restart' },
  log: { level: 'live', format: 'live' },
};

/** A key whose value is another one now; both as the file would have them, without secrets. */
export interface ConfigChange {
  readonly key: string;
  readonly from: string;
  readonly to: string;
}

export interface ConfigDifference {
  /** The running configuration with the live keys of the new one. */
  readonly config: Config;
  readonly changed: readonly ConfigChange[];
  /** What is written otherwise, and waits for the next start. */
  readonly restart: readonly ConfigChange[];
}

type Values = Readonly<Record<string, unknown>>;
type Table = { readonly [name: string]: Reloading | Table };

/** What a newly read configuration means for a gateway that runs with another one. */
export function compareConfigs(running: Config, written: Config): ConfigDifference {
  const changes: Record<Reloading, ConfigChange[]> = { live: [], restart: [] };
  const values = taken(KEYS, RELOADING, running, written, '', changes);
  return { config: { ...running, ...values } as Config, changed: changes.live, restart: changes.restart };
}

function taken(
  keys: KeyTree,
  table: Table,
  before: Values,
  after: Values,
  path: string,
  changes: Record<Reloading, ConfigChange[]>,
): Values {
  const entries = Object.entries(keys).map(([name, entry]): [string, unknown] => {
    const [was, is, kind] = [before[name], after[name], table[name]];
    const key = path === '' ? name : `${path}.${name}`;
    if (!(entry instanceof Key || entry instanceof KeyList)) {
      return [name, taken(entry, kind as Table, was as Values, is as Values, key, changes)];
    }
    if (isDeepStrictEqual(was, is)) return [name, was];
    changes[kind as Reloading].push({ key, from: valueText(entry, was), to: valueText(entry, is) });
    return [name, kind === 'live' ? is : was];
  });
  return Object.fromEntries(entries);
}
