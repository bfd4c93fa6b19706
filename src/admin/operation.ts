import type { z } from 'zod';
import type { LimitsUsage } from '../access/access.ts';
import { parseExpiry } from '../access/expiry.ts';
import type { Users } from '../access/users.ts';
import type { AliasTable } from '../aliases/alias-table.ts';
import { isHostless } from '../aliases/names.ts';
import type { AliasEntry, RegistryEntry } from '../aliases/table.ts';
import type { CacheAdmin } from '../cache/admin.ts';
import type { BlobTier } from '../cache/blob-tier.ts';
import type { CertificateInfo, CertificateOperations, CertificateService } from '../certs/service.ts';
import { CLIENT_KINDS } from '../clients/facts.ts';
import type { Nodes } from '../cluster/nodes.ts';
import type { Config } from '../config/config.ts';
import { parseDuration } from '../config/values.ts';
import { parseImageName } from '../images/image-name.ts';
import type { ImageSource } from '../images/image-source.ts';
import { parsePlatform } from '../images/platform.ts';
import { redactUrl } from '../kit/http.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Cooldown } from '../policy/cooldown.ts';
import type { ImageHistory } from '../policy/history.ts';
import type { Unplugged } from '../proxy/unplugged.ts';
import type { Activity } from '../telemetry/activity.ts';
import type { History } from '../telemetry/history.ts';
import type { Reading } from '../telemetry/metrics.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { WarmService } from '../warm/service.ts';
import type { AliasRow, RegistryRow, ReloadReport, SecretsRotated, SharedDatabase } from './contract.ts';
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
  /** All metrics as they are now. */
  reading(): Promise<Reading>;
  readonly activity: Activity;
  readonly history: History;
  limits(): LimitsUsage;
  /** Asks the gateway's own listener `GET /v2/` under this host name. */
  probe(host: string, signal: AbortSignal): Promise<ProbeAnswer>;
  /** Resolves once every process of the gateway works with the table and the certificates as they are now. */
  settled(): Promise<void>;
  /** Reads the configuration again. @throws {OperatorError} where it has problems; nothing has changed then */
  reload(): Promise<ReloadReport>;
  /** Whether the bucket behind the disk can be used: see `BlobTier.check`. Null where there is none. */
  readonly checkStore: BlobTier['check'] | null;
  /** The cache was pruned or found damaged: answers that are ready in memory are made anew. */
  forget(): void;
}

/** A database that several gateways share, as operators work with it. */
export interface SharedState {
  describe(): SharedDatabase;
  /** Asks it now. `roundTrip` in ms; `clock`: its clock minus ours, ms. @throws {OperatorError} */
  measure(): Promise<{ readonly roundTrip: number; readonly clock: number; readonly encrypted: boolean }>;
  /** Encrypts all that is in it under the first key. */
  reseal(): Promise<SecretsRotated>;
}

/** What the operations act on; without `live`, on a data directory that no gateway works on. */
export interface OperationsDeps {
  /** As it is now: `reload` replaces it. */
  readonly config: Config;
  readonly version: string;
  /** As `Via` names this gateway. */
  readonly pseudonym: string;
  readonly table: AliasTable;
  readonly users: Users;
  /** Null with `tls.mode: off`. */
  readonly certificates: (CertificateService & CertificateOperations) | null;
  /** Opened when it is first asked for: most commands need no cache. */
  readonly cache: () => CacheAdmin;
  /** Images as the gateway would give them; opened when it is first asked for. */
  readonly images: () => ImageSource;
  /** What was seen of images, and how old they have to be; opened when it is first asked for. */
  readonly passage: () => {
    readonly history: Pick<ImageHistory, 'spans' | 'tags'>;
    readonly cooldown: Pick<Cooldown, 'passesFrom'>;
  };
  /** The gateway as it would be with every registry out of reach: to ask it changes nothing. To be closed afterwards. */
  readonly unplugged: (signal: AbortSignal) => Promise<Unplugged>;
  /** What is kept at hand; opened when it is first asked for. */
  readonly warm: () => WarmService;
  /** Copies the database into a new file, consistent, while it is used; resolves to the number of its schema. */
  readonly snapshot: (path: string) => Promise<number>;
  /** The gateways that share this state; this one alone where it has it for itself. */
  readonly nodes: Nodes;
  /** The database that they share; null where there is none. */
  readonly shared: SharedState | null;
  readonly live: LiveGateway | null;
}

const NO_CERTIFICATE = { state: 'none', notAfter: null } as const;

export function aliasRow(
  deps: OperationsDeps,
  alias: AliasEntry,
  held: CertificateInfo | null = deps.certificates?.info(alias.host) ?? null,
): AliasRow {
  const { name, registry } = alias;
  if (isHostless(name, deps.config.domain)) return { name, host: null, registry, certificate: NO_CERTIFICATE };
  // Nothing held: either none is wanted, or the gateway orders it when it runs.
  const wanted = alias.certificate && deps.certificates !== null;
  const state = held?.state ?? (wanted ? 'pending' : 'none');
  return { name, host: alias.host, registry, certificate: { state, notAfter: held?.notAfter ?? null } };
}

/** Credentials are named, never shown, and neither are those in a proxy's URL. */
export function registryRow(entry: RegistryEntry): RegistryRow {
  return {
    host: entry.host,
    endpoints: entry.endpoints,
    proxy: entry.proxy === null ? null : redactUrl(entry.proxy),
    credentials: entry.credentials !== null,
    named: entry.named.map(({ name, for: patterns, username }) => ({ name, for: patterns, username })),
    public: entry.public,
    realms: entry.realms,
  };
}

/** Longest text that a name, host or URL of the table can be; what is longer is a mistake before it is anything else. */
const MAX_TEXT = 2048;
/** Hosts that may be sent one registry's credentials; a registry has one token service, seldom two. */
const MAX_REALMS = 100;
/** Patterns given at once; how many may be kept is the table's to say. */
const MAX_PATTERNS = 1_000;

/** Images of one command: more than any cluster runs. */
const MAX_IMAGES = 100_000;
/** Platforms of one command; images have some twenty. */
const MAX_PLATFORMS = 100;

/** What each operation takes, by its name; those that are not here take nothing. */
function inputShapes({ z }: typeof import('zod')) {
  const text = z.string().min(1).max(MAX_TEXT);
  const NameInput = z.strictObject({ name: text });
  const HostInput = z.strictObject({ host: text });

  /** Text that a function reads, which throws in words. */
  const read = <T>(parse: (written: string) => T) =>
    z.string().transform((written, context) => {
      try {
        return parse(written);
      } catch (error) {
        context.addIssue({ code: 'custom', message: (error as Error).message });
        return z.NEVER;
      }
    });
  /** A duration as the configuration writes it. */
  const duration = read(parseDuration);
  const expiry = read((written) => parseExpiry(written, Date.now()));

  const shapes = {
    'alias.add': z.strictObject({
      name: text,
      registry: text,
      endpoints: z.array(text).default([]),
      certificate: z.boolean().default(true),
      check: z.boolean().default(true),
    }),
    'alias.show': NameInput,
    'alias.rm': NameInput,
    'alias.import': z.strictObject({ yaml: z.string(), file: z.string().default('the input') }),
    'alias.presets': z.strictObject({ take: z.boolean().default(false) }),
    'registry.show': HostInput,
    'registry.set': z.strictObject({
      host: text,
      endpoints: z.array(text).min(1).optional(),
      proxy: text.nullable().optional(),
      credentials: z
        .strictObject({ username: text, password: z.string().min(1) })
        .nullable()
        .optional(),
      named: z
        .strictObject({
          name: text,
          for: z.array(text).min(1).max(MAX_PATTERNS).optional(),
          credentials: z
            .strictObject({ username: text, password: z.string().min(1) })
            .nullable()
            .optional(),
        })
        .optional(),
      public: z.boolean().optional(),
      realms: z.array(z.string().max(MAX_TEXT)).max(MAX_REALMS).optional(),
      ca: z.string().nullable().optional(),
      check: z.boolean().default(true),
    }),
    'registry.rm': HostInput,
    'cert.show': HostInput,
    'cert.renew': z.strictObject({ hosts: z.array(text).min(1).max(1000) }),
    'cert.explain': HostInput,
    'cert.import': z.strictObject({
      certificate: z.string().min(1),
      key: z.string().min(1),
      force: z.boolean().default(false),
    }),
    'cert.export': HostInput,
    'cert.rm': HostInput.extend({ now: z.boolean().default(false) }),
    client: z.strictObject({ client: z.enum(CLIENT_KINDS) }),
    'cache.prune': z.strictObject({ olderThan: duration.optional(), registry: text.optional() }),
    drill: z.strictObject({
      images: z.array(read(parseImageName)).max(MAX_IMAGES).optional(),
      platforms: z.array(read(parsePlatform)).max(MAX_PLATFORMS).optional(),
      referrers: z.boolean().default(false),
    }),
    warm: z.strictObject({
      images: z.array(read(parseImageName)).min(1).max(MAX_IMAGES),
      platforms: z.array(read(parsePlatform)).min(1).max(MAX_PLATFORMS).nullable(),
      referrers: z.boolean().default(false),
      pin: z.boolean().default(false),
      schedule: text.nullable().default(null),
    }),
    'warm.rm': z.strictObject({ images: z.array(read(parseImageName)).min(1).max(MAX_IMAGES) }),
    'user.add': z.strictObject({ name: text, expires: expiry.optional() }),
    'user.rotate': z.strictObject({ name: text, expires: expiry.optional(), grace: duration.optional() }),
    'user.rm': NameInput,
    'tag.history': z.strictObject({ image: text }),
    'import.table': z.strictObject({
      rows: z.array(
        z.strictObject({
          host: text,
          endpoints: z.array(text).min(1).optional(),
          credentials: z.strictObject({ username: text, password: z.string().min(1) }).optional(),
          public: z.boolean().optional(),
          aliases: z.array(z.strictObject({ name: text, certificate: z.boolean() })),
        }),
      ),
      take: z.boolean(),
    }),
    'import.layers': z.strictObject({
      root: text,
      registry: text.nullable(),
      closed: z.boolean(),
      link: z.boolean(),
    }),
  };
  return shapes;
}

type Shapes = ReturnType<typeof inputShapes>;
let loaded: Shapes | undefined;

/** Checks what came in against the shape that the operation takes. @throws {OperatorError} usage */
export async function parseInput<N extends keyof Shapes>(operation: N, input: unknown): Promise<z.output<Shapes[N]>> {
  // Loaded by the first command: a gateway that is given none does without zod, which takes 5 MiB.
  loaded ??= inputShapes(await import('zod'));
  const shape: z.ZodType = loaded[operation];
  const parsed = shape.safeParse(input);
  if (parsed.success) return parsed.data as z.output<Shapes[N]>;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'input'}: ${issue.message}`);
  throw new OperatorError('INPUT_INVALID', problems.join('; '), {
    next: 'gateway --help lists the commands and what they take',
  });
}
