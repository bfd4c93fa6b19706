import { resolve } from 'node:path';
import { type ImageRule, parseImagePatterns, parseImageRules } from './images.ts';
import {
  type ConfigOf,
  type Facts,
  Key,
  KeyList,
  type KeyTree,
  list,
  listen,
  optional,
  plain,
  type SettingsOf,
} from './keys.ts';
import {
  type ListenAddress,
  nonEmpty,
  parseAnonymous,
  parseApi,
  parseAuto,
  parseBoolean,
  parseBucket,
  parseChoice,
  parseCidr,
  parseDatabase,
  parseDirectory,
  parseDomain,
  parseDuration,
  parseEmail,
  parseEndpoint,
  parseInteger,
  parseList,
  parseListen,
  parseMacKey,
  parseNameServer,
  parseNodeAddress,
  parsePrefix,
  parseProxy,
  parsePublicUrl,
  parseRedirect,
  parseResolver,
  parseScrub,
  parseSecret,
  parseSize,
  parseText,
} from './values.ts';

export type { ListenAddress };
export type ChallengeType = 'http-01' | 'tls-alpn-01' | 'dns-01';
export type DnsProviderName = 'rfc2136' | 'exec' | 'cloudflare' | 'alidns' | 'dnspod';

const nodeAddress = ({ host = '', port }: ListenAddress): string =>
  `${host.includes(':') ? `[${host}]` : host}:${port}`;
const everywhere = (port: number): ListenAddress => ({ host: undefined, port });
const loopback = (port: number): ListenAddress => ({ host: '127.0.0.1', port });

export const DEFAULT_DOMAIN = 'localhost';
const LETS_ENCRYPT = 'https://acme-v02.api.letsencrypt.org/directory';
/** More connections than this to one host look like an attack. */
const MAX_CONNECTIONS = 32;
/** As many as a blob may have unless the operator says otherwise; a long and lossy way gives each of them some tens of KiB a second. */
const AUTO_CONNECTIONS = 16;
const MAX_WORKERS = 256;
const MAX_REQUESTS = 1_000_000_000;
/** No process has more descriptors. */
const MAX_OPEN = 1_000_000_000;

export interface IssuerConfig {
  readonly directory: string;
  readonly caFile: string | null;
  readonly eab: { readonly keyId: string; readonly hmacKey: string } | null;
  readonly profile: string | null;
}

const BY_ADDRESS = ['http-01', 'tls-alpn-01'] as const satisfies ChallengeType[];
const DNS_ALONE = ['dns-01'] as const satisfies ChallengeType[];
const CHALLENGES = [...BY_ADDRESS, ...DNS_ALONE];

/** Its own keys have no rows in the README but those that the environment can set. */
const ISSUER = {
  directory: optional(parseDirectory, "Let's Encrypt's", 'GATEWAY_ACME_DIRECTORY'),
  caFile: optional(parseText('the path of a PEM file'), "none: the system's roots", 'GATEWAY_ACME_CA_FILE'),
  eab: {
    keyId: optional(parseText('the key identifier that the CA gave'), ''),
    hmacKey: optional(parseMacKey, ''),
  },
  profile: optional(parseText('the name of a profile'), ''),
};

function issuersOf(set: readonly SettingsOf<typeof ISSUER>[] | undefined, { cwd }: Facts): readonly IssuerConfig[] {
  return (set === undefined || set.length === 0 ? [{}] : set).map(
    ({ directory, caFile, eab, profile }: SettingsOf<typeof ISSUER>) => ({
      directory: directory ?? LETS_ENCRYPT,
      caFile: caFile === undefined ? null : resolve(cwd, caFile),
      eab: eab?.keyId === undefined || eab.hmacKey === undefined ? null : { keyId: eab.keyId, hmacKey: eab.hmacKey },
      profile: profile ?? null,
    }),
  );
}

/**
 * Every key of the configuration, in the order of the README's tables. The type `Config`, the environment's names, the defaults and the
 * rows of the documentation follow from it: a new key is one entry here, a row in README.md and README.zh-CN.md (a test compares
 * them with this), and its use.
 */
export const KEYS = {
  domain: plain(parseDomain, DEFAULT_DOMAIN),
  publicUrl: optional(
    parsePublicUrl,
    'none: `https://<domain>` with the port of `listen.https`; what clients are told where another terminator or a port mapping stands before the gateway',
  ),
  dataDir: new Key(parseText('the path of a directory'), (set = 'data', { cwd }) => resolve(cwd, set), '`./data`'),
  listen: {
    https: new Key(
      parseListen,
      (set, { publicDomain, tlsMode }) => {
        if (tlsMode === 'off') return null;
        return set === undefined ? (publicDomain ? everywhere(443) : loopback(8443)) : set;
      },
      '`:443` for a public domain, else `127.0.0.1:8443`; `off` with `tls.mode: off`',
    ),
    http: listen(
      ({ publicDomain }) => (publicDomain ? everywhere(80) : loopback(8080)),
      '`:80` for a public domain, else `127.0.0.1:8080`; `off` allowed',
    ),
    /** Processes that share the listening sockets. */
    workers: new Key(
      parseAuto(parseInteger(1, MAX_WORKERS)),
      (set = 'auto', { cores }) => (set === 'auto' ? Math.max(1, cores) : set),
      '`auto`: a process for each core shares the listening sockets',
    ),
  },
  tls: {
    mode: new Key(
      parseChoice(['acme', 'internal', 'off']),
      (_, { tlsMode }) => tlsMode,
      '`acme` for a public domain or address, else `internal`; `off` behind another TLS terminator',
    ),
  },
  trustedProxies: list(parseCidr, 'none: CIDRs whose `X-Forwarded-*` is believed'),
  acme: {
    email: optional(parseEmail, 'none'),
    /** Tried in order. */
    issuers: new KeyList({
      item: ISSUER,
      value: issuersOf,
      doc: "Let's Encrypt; each `{directory, caFile, eab: {keyId, hmacKey}, profile}`, tried in order",
      noList: 'is not a list; each issuer starts with "- directory: https://…"',
    }),
    challenges: new Key<ChallengeType[], readonly ChallengeType[]>(
      nonEmpty(parseList(parseChoice(CHALLENGES)), `name one or more of ${CHALLENGES.join(', ')}`),
      (set, { dnsProvider }) => [...new Set(set ?? (dnsProvider ? DNS_ALONE : BY_ADDRESS))],
      '`http-01,tls-alpn-01`; with `acme.dns` `dns-01`, which needs no open port',
    ),
    /** Where records for dns-01 are put. */
    dns: {
      provider: optional(
        parseChoice<DnsProviderName>(['rfc2136', 'exec', 'cloudflare', 'alidns', 'dnspod']),
        'none; `rfc2136`, `exec`, `cloudflare`, `alidns`, `dnspod`: what puts the records for dns-01, see *DNS-01* below',
      ),
      server: optional(parseNameServer, 'none; `rfc2136`: `host:port` of the server that takes updates'),
      algorithm: plain(
        parseChoice(['hmac-sha256', 'hmac-sha384', 'hmac-sha512']),
        'hmac-sha256',
        '; `rfc2136`: of the TSIG key',
      ),
      keyId: optional(
        parseText('the name of a key'),
        'none; the name of the TSIG key, the AccessKey ID, or the ID of the DNSPod token',
      ),
      secret: optional(
        parseSecret,
        'none; the TSIG secret (base64), the AccessKey secret, or the API token; never shown',
      ),
      secretFile: new Key(
        parseText('the path of a file'),
        (set, { cwd }) => (set === undefined ? null : resolve(cwd, set)),
        'none; a file with the secret in place of `acme.dns.secret`, read at each use',
      ),
      program: new Key(
        parseText('the path of a program'),
        (set, { cwd }) => (set === undefined ? null : resolve(cwd, set)),
        'none; `exec`: the program that puts and removes records',
      ),
      endpoint: optional(
        parseApi,
        "the provider's own; the base of its API, such as `https://api.dnspod.com` for accounts of DNSPod International",
      ),
      propagationTimeout: plain(
        nonEmpty(parseDuration, 'write how long to wait for a server of the zone, like 2m'),
        '2m',
        ': how long every server of the zone may take to get a record',
      ),
    },
    wildcard: plain(
      parseBoolean,
      'false',
      ': one certificate for the domain and `*.<domain>` in place of one for each alias (needs dns-01)',
    ),
    selfCheck: plain(parseBoolean, 'true', ': look whether a name leads here before the CA is asked'),
    resolvers: list(
      parseResolver,
      "the system's; `host:port` of the DNS servers for that check and for the zones of dns-01",
    ),
  },
  cache: {
    maxSize: plain(parseSize, '20GiB', '; `0` streams without keeping'),
    minFree: plain(parseSize, '1GiB', ' of free disk that the cache leaves alone'),
    tagTtl: plain(parseDuration, '1m', ': how long a tag is believed before the registry is asked again'),
    staleFor: plain(parseDuration, '7d', ": how old a tag's answer may be while its registry fails"),
    scrub: new Key<number | null, number | null>(
      parseScrub,
      (set) => (set === undefined ? parseScrub('30d') : set),
      '`30d`: in so long all that is kept is read again, to find damage; `off` looks at nothing',
    ),
    prefetch: plain(
      parseChoice(['off', 'manifest']),
      'off',
      "; `manifest`: an image's layers begin to come when its manifest is asked for",
    ),
    /** A store that several gateways share; none where `bucket` is null. */
    s3: {
      bucket: optional(
        parseBucket,
        'none: the bucket of an S3 store that holds content for several gateways, behind the disk',
      ),
      prefix: optional(parsePrefix, 'none: what the keys in the bucket begin with, like `gateway/`'),
      region: optional(
        parseText('the name of a region'),
        '`AWS_REGION`, else that of the AWS configuration file; `us-east-1` where there is an `endpoint`',
      ),
      endpoint: optional(parseEndpoint, "AWS's; the URL of another store, like `https://minio.example.com`"),
      pathStyle: plain(
        parseBoolean,
        'false',
        ': the bucket is in the path and not in the host name; most stores but AWS need `true`',
      ),
      maxSize: optional(
        nonEmpty(parseSize, 'leave it out for no limit'),
        'none: what was used longest ago is removed from the bucket beyond this',
      ),
      redirect: plain(
        parseRedirect,
        'false',
        '; `true`: clients get complete blobs from the bucket themselves, by a 307 to a signed URL; `all`: those that only credentials opened, too',
      ),
    },
  },
  upstream: {
    proxy: optional(parseProxy, 'none; `http://`, `https://`, `socks5://`, `socks5h://`'),
    caFile: new Key(
      parseText('the path of a PEM file'),
      (set, { cwd }) => (set === undefined ? null : resolve(cwd, set)),
      "none: CAs that registries may have beside the system's",
    ),
    stallTimeout: plain(
      nonEmpty(parseDuration, 'write how long to wait for a byte, like 20s'),
      '20s',
      ' without a byte',
    ),
    /** The most for one blob. */
    connections: new Key(
      parseAuto(parseInteger(1, MAX_CONNECTIONS)),
      (set = 'auto') => (set === 'auto' ? AUTO_CONNECTIONS : set),
      '`auto`: as many connections for one slow blob as help, 16 at most; a number is the most, `1` turns them off',
    ),
  },
  database: optional(
    parseDatabase,
    'none: SQLite in `dataDir`; `postgres://user@host/name`, shared by several gateways. Its password: the file that `GATEWAY_DATABASE_PASSWORD_FILE` names, `PGPASSWORD` or a passfile',
  ),
  secretFile: new Key(
    parseText('the path of a file'),
    (set, { cwd }) => (set === undefined ? null : resolve(cwd, set)),
    'none; needed with a shared database: the keys that encrypt private keys and passwords in it',
  ),
  cluster: {
    /** Null: other gateways do not reach this one. */
    listen: new Key<ListenAddress | null, ListenAddress | null>(
      parseListen,
      (set, { cluster }) => {
        if (set !== undefined || cluster.address === undefined) return set ?? null;
        return everywhere(Number(cluster.address.slice(cluster.address.lastIndexOf(':') + 1)));
      },
      'the port of `cluster.address`; with a shared database, where this gateway listens for the others',
    ),
    /** Null: other gateways do not reach this one. */
    address: new Key<string, string | null>(
      parseNodeAddress,
      (set, { cluster: { listen } }) => set ?? (listen?.host === undefined ? null : nodeAddress(listen)),
      'that of `cluster.listen`, where it names a host; `host:port` where the others reach this one',
    ),
  },
  access: {
    /** Null: open until a first user was ever made. A list: open to these networks. */
    anonymous: optional(
      parseAnonymous,
      '`true` until a first user was ever added, then `false`; or CIDRs whose clients need no credentials',
    ),
    allow: list(parseCidr, 'none: CIDRs; where given, all others are refused'),
    deny: list(parseCidr, 'none: CIDRs that are refused'),
  },
  limits: {
    requestsPerMinute: optional(
      parseInteger(1, MAX_REQUESTS),
      'none; of one client: a user, an IPv4 address, or the /64 of an IPv6 address',
    ),
    bytesPerDay: optional(
      nonEmpty(parseSize, 'leave it out for no limit'),
      'none; of one client: the larger of what it was sent and what was fetched for it',
    ),
    bytesPerMonth: optional(
      nonEmpty(parseSize, 'leave it out for no limit'),
      'none; of all together: what they were sent and what was fetched for them',
    ),
    connections: plain(parseInteger(1, MAX_OPEN), '1024', ' open at a time, of one client (by its address)'),
    minRate: plain(
      nonEmpty(parseSize, 'write bytes a second, like 1KiB'),
      '1KiB',
      ' a second: a reader that takes less over two minutes is ended where it holds others up',
    ),
  },
  policy: {
    /** What may pass, in order. */
    images: new Key<ImageRule[], readonly ImageRule[]>(
      parseImageRules,
      (set) => set ?? [],
      'none: patterns of images that may pass, like `docker.io/library/*`; `!` before one refuses; the last that matches decides, see *What may pass* below',
    ),
    cooldown: optional(
      nonEmpty(parseDuration, 'leave it out for none'),
      'none; `3d`: so old must a manifest be, by the first time this gateway saw it, before it passes, see *Cooldown* below',
    ),
    /** To which images the cooldown applies, in order; to all where it is empty. */
    cooldownImages: new Key<ImageRule[], readonly ImageRule[]>(
      parseImagePatterns,
      (set) => set ?? [],
      'all: patterns of images to which `policy.cooldown` applies; `!` before one excepts it',
    ),
  },
  metrics: {
    listen: listen(() => loopback(9464), '`127.0.0.1:9464` (Prometheus); `off` allowed'),
  },
  log: {
    level: plain(parseChoice(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']), 'info'),
    format: new Key(
      parseChoice(['json', 'pretty']),
      (set, { terminal }) => set ?? (terminal ? 'pretty' : 'json'),
      '`json`, `pretty` on a terminal',
    ),
  },
} as const satisfies KeyTree;

export type Settings = SettingsOf<typeof KEYS>;

/** The configuration after defaults, file and environment; every value checked, sizes in bytes, durations in milliseconds, paths absolute. */
export type Config = ConfigOf<typeof KEYS> & {
  /** False for localhost, names under .localhost .test .internal .local .home.arpa, and addresses that are not globally reachable. */
  readonly publicDomain: boolean;
  /** `GATEWAY_DATABASE_PASSWORD_FILE`, which has no key: a secret's place belongs to the machine. Null where it is not set. */
  readonly databasePasswordFile: string | null;
};
