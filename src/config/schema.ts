import { z } from 'zod';
import { parseDomain } from './domain.ts';
import {
  BadValue,
  parseBoolean,
  parseChoice,
  parseCidr,
  parseDirectory,
  parseDuration,
  parseEmail,
  parseInteger,
  parseList,
  parseListen,
  parseMacKey,
  parseProxy,
  parseResolver,
  parseSize,
  parseText,
} from './values.ts';

/** A setting: raw value of the file or text of the environment in, checked value out. */
function setting<T>(parse: (raw: unknown) => T) {
  return z
    .unknown()
    .transform((raw, context): T => {
      try {
        return parse(raw);
      } catch (error) {
        if (!(error instanceof BadValue)) throw error;
        context.addIssue({ code: 'custom', message: error.message });
        return z.NEVER;
      }
    })
    .optional();
}

/** More connections than this to one host look like an attack. */
const MAX_CONNECTIONS = 32;
const MAX_WORKERS = 256;

const workers = parseInteger(1, MAX_WORKERS);
const listen = setting(parseListen);
const size = setting(parseSize);
const duration = setting(parseDuration);
const flag = setting(parseBoolean);
const networks = setting(parseList(parseCidr));

const issuer = z.strictObject({
  directory: setting(parseDirectory),
  caFile: setting(parseText('the path of a PEM file')),
  eab: z
    .strictObject({
      keyId: setting(parseText('the key identifier that the CA gave')),
      hmacKey: setting(parseMacKey),
    })
    .optional(),
  profile: setting(parseText('the name of a profile')),
});

const sections = {
  listen: { https: listen, http: listen, workers: setting((raw) => (raw === 'auto' ? 'auto' : workers(raw))) },
  tls: { mode: setting(parseChoice(['acme', 'internal', 'off'])) },
  acme: {
    email: setting(parseEmail),
    issuers: z.array(issuer, { error: 'is not a list; each issuer starts with "- directory: https://…"' }).optional(),
    challenges: setting(parseList(parseChoice(['http-01', 'tls-alpn-01']))),
    selfCheck: flag,
    resolvers: setting(parseList(parseResolver)),
  },
  cache: { maxSize: size, minFree: size, tagTtl: duration, staleFor: duration },
  upstream: {
    proxy: setting(parseProxy),
    stallTimeout: duration,
    connections: setting(parseInteger(1, MAX_CONNECTIONS)),
  },
  access: { anonymous: flag, allow: networks, deny: networks },
  limits: {
    requestsPerMinute: setting(parseInteger(1, 1_000_000_000)),
    bytesPerDay: size,
    bytesPerMonth: size,
  },
  metrics: { listen },
  log: {
    level: setting(parseChoice(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])),
    format: setting(parseChoice(['json', 'pretty'])),
  },
};

const tops = {
  domain: setting(parseDomain),
  dataDir: setting(parseText('the path of a directory')),
  trustedProxies: networks,
};

/** The file after the environment was laid over it: every key optional, unknown ones refused. */
export const settingsSchema = z.strictObject({
  ...tops,
  listen: z.strictObject(sections.listen).optional(),
  tls: z.strictObject(sections.tls).optional(),
  acme: z.strictObject(sections.acme).optional(),
  cache: z.strictObject(sections.cache).optional(),
  upstream: z.strictObject(sections.upstream).optional(),
  access: z.strictObject(sections.access).optional(),
  limits: z.strictObject(sections.limits).optional(),
  metrics: z.strictObject(sections.metrics).optional(),
  log: z.strictObject(sections.log).optional(),
});

export type Settings = z.output<typeof settingsSchema>;

type Path = readonly (string | number)[];

/** Keys that a mapping at `path` may have, for "did you mean". */
export function keysAt(path: Path): string[] {
  if (path.length === 0) return [...Object.keys(tops), ...Object.keys(sections)];
  if (path[0] === 'acme' && path[1] === 'issuers')
    return path[3] === 'eab' ? ['keyId', 'hmacKey'] : Object.keys(issuer.shape);
  return Object.keys((sections as Record<string, object>)[String(path[0])] ?? {});
}

/** Environment variable → where its value goes. The first issuer alone can be set by the environment. */
export const ENVIRONMENT: ReadonlyMap<string, Path> = new Map<string, Path>([
  ...Object.keys(tops).map((key): [string, Path] => [variable([key]), [key]]),
  ...Object.entries(sections)
    .flatMap(([section, keys]) => Object.keys(keys).map((key) => [section, key]))
    .filter(([section, key]) => !(section === 'acme' && key === 'issuers'))
    .map((path): [string, Path] => [variable(path), path]),
  ['GATEWAY_ACME_DIRECTORY', ['acme', 'issuers', 0, 'directory']],
  ['GATEWAY_ACME_CA_FILE', ['acme', 'issuers', 0, 'caFile']],
]);

function variable(path: readonly string[]): string {
  return ['GATEWAY', ...path.map((part) => part.replace(/[A-Z]/g, '_$&').toUpperCase())].join('_');
}
