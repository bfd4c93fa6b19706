import { accessSync, constants } from 'node:fs';
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import type { Config, IssuerConfig, ListenAddress } from './config.ts';
import { isPublicDomain } from './domain.ts';
import type { Settings } from './schema.ts';

const LETS_ENCRYPT = 'https://acme-v02.api.letsencrypt.org/directory';
const GIB = 2 ** 30;
const MINUTE = 60_000;
const DAY = 86_400_000;

/** What is wrong between values that are each fine; `involves` are the keys it was concluded from. */
export interface Contradiction {
  readonly path: readonly (string | number)[];
  readonly message: string;
  readonly involves: readonly string[];
}

export function contradictions(settings: Settings, cwd: string): Contradiction[] {
  const found: Contradiction[] = [];
  const { listen, limits, upstream } = settings;
  const plain = settings.tls?.mode === 'off';
  const involves = ['listen.https', 'listen.http', 'tls.mode', 'domain'];
  if (listen?.https === null && !plain) {
    found.push({
      path: ['listen', 'https'],
      message: 'is off, which is only for tls.mode off (another program in front terminates TLS)',
      involves,
    });
  }
  if (listen?.http === null && plain) {
    found.push({
      path: ['listen', 'http'],
      message: 'is off while tls.mode is off too: nothing would listen',
      involves,
    });
  }
  if (listen?.http && listen.https && listen.http.port !== 0 && sameAddress(listen.http, listen.https) && !plain) {
    found.push({ path: ['listen', 'http'], message: 'is the same address as listen.https', involves });
  }
  for (const key of ['bytesPerDay', 'bytesPerMonth'] as const) {
    if (limits?.[key] === 0) found.push(atLeastOne(['limits', key], 'leave it out for no limit'));
  }
  if (upstream?.stallTimeout === 0)
    found.push(atLeastOne(['upstream', 'stallTimeout'], 'write how long to wait for a byte, like 20s'));
  if (settings.acme?.challenges?.length === 0) {
    found.push(atLeastOne(['acme', 'challenges'], 'name http-01, tls-alpn-01 or both'));
  }
  for (const [index, issuer] of (settings.acme?.issuers ?? []).entries()) {
    const path = ['acme', 'issuers', index];
    // The first one alone may leave its directory out: it then is Let's Encrypt's.
    if (index > 0 && issuer.directory === undefined) {
      found.push(missing([...path, 'directory']));
    }
    if (issuer.caFile !== undefined && !readable(resolve(cwd, issuer.caFile))) {
      found.push({
        path: [...path, 'caFile'],
        message: `"${issuer.caFile}" cannot be read`,
        involves: [[...path, 'caFile'].join('.')],
      });
    }
    for (const key of ['keyId', 'hmacKey'] as const) {
      if (issuer.eab !== undefined && issuer.eab[key] === undefined) {
        found.push(missing([...path, 'eab', key]));
      }
    }
  }
  return found;
}

function atLeastOne(path: readonly [string, string], hint: string): Contradiction {
  return { path, message: `must not be empty or 0; ${hint}`, involves: [path.join('.')] };
}

function missing(path: readonly (string | number)[]): Contradiction {
  return { path, message: 'is missing', involves: [path.join('.')] };
}

function sameAddress(one: ListenAddress, other: ListenAddress): boolean {
  return one.port === other.port && one.host === other.host;
}

function readable(file: string): boolean {
  try {
    accessSync(file, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

/** Fills in what was left out; `notes` are things that are allowed and probably not meant. */
export function complete(
  settings: Settings,
  { cwd, cores, terminal }: { cwd: string; cores: number; terminal: boolean },
): { config: Config; notes: string[] } {
  const notes: string[] = [];
  const domain = settings.domain ?? 'localhost';
  const publicDomain = isPublicDomain(domain);
  const mode = settings.tls?.mode ?? (publicDomain ? 'acme' : 'internal');
  const { listen, acme, cache, upstream, access, limits, metrics, log } = settings;
  const workers = listen?.workers ?? 'auto';
  const https = given(listen?.https, publicDomain ? everywhere(443) : loopback(8443));
  const http = given(listen?.http, publicDomain ? everywhere(80) : loopback(8080));
  if (mode === 'off' && listen?.https)
    notes.push('tls.mode is off, so listen.https is not used; the registry is served on listen.http');
  const challenges = acme?.challenges ?? ['http-01', 'tls-alpn-01'];
  if (mode === 'acme') {
    if (http === null && !challenges.includes('tls-alpn-01')) {
      notes.push(
        'listen.http is off, so http-01 is not tried, and acme.challenges names no other: no certificate can be issued',
      );
    }
    if (isIP(domain) === 0 && !domain.includes('.'))
      notes.push(`no public CA gives a certificate to "${domain}", a name of one part`);
  }
  return {
    notes,
    config: {
      domain,
      publicDomain,
      dataDir: resolve(cwd, settings.dataDir ?? 'data'),
      listen: {
        https: mode === 'off' ? null : https,
        http,
        workers: workers === 'auto' ? Math.max(1, cores) : workers,
      },
      tls: { mode },
      trustedProxies: settings.trustedProxies ?? [],
      acme: {
        email: acme?.email ?? null,
        issuers: issuers(settings, cwd),
        challenges: [...new Set(challenges)],
        selfCheck: acme?.selfCheck ?? true,
        resolvers: acme?.resolvers ?? [],
      },
      cache: {
        maxSize: cache?.maxSize ?? 20 * GIB,
        minFree: cache?.minFree ?? GIB,
        tagTtl: cache?.tagTtl ?? MINUTE,
        staleFor: cache?.staleFor ?? 7 * DAY,
      },
      upstream: {
        proxy: upstream?.proxy ?? null,
        stallTimeout: upstream?.stallTimeout ?? 20_000,
        connections: upstream?.connections ?? 4,
      },
      access: { anonymous: access?.anonymous ?? null, allow: access?.allow ?? [], deny: access?.deny ?? [] },
      limits: {
        requestsPerMinute: limits?.requestsPerMinute ?? null,
        bytesPerDay: limits?.bytesPerDay ?? null,
        bytesPerMonth: limits?.bytesPerMonth ?? null,
      },
      metrics: { listen: given(metrics?.listen, loopback(9464)) },
      log: { level: log?.level ?? 'info', format: log?.format ?? (terminal ? 'pretty' : 'json') },
    },
  };
}

/** Null is a choice (off), undefined is none. */
function given(value: ListenAddress | null | undefined, otherwise: ListenAddress): ListenAddress | null {
  return value === undefined ? otherwise : value;
}

function everywhere(port: number): ListenAddress {
  return { host: undefined, port };
}

function loopback(port: number): ListenAddress {
  return { host: '127.0.0.1', port };
}

function issuers(settings: Settings, cwd: string): IssuerConfig[] {
  const list = settings.acme?.issuers ?? [];
  return (list.length === 0 ? [{}] : list).map((issuer: NonNullable<typeof list>[number]) => ({
    directory: issuer.directory ?? LETS_ENCRYPT,
    caFile: issuer.caFile === undefined ? null : resolve(cwd, issuer.caFile),
    eab:
      issuer.eab?.keyId === undefined || issuer.eab.hmacKey === undefined
        ? null
        : { keyId: issuer.eab.keyId, hmacKey: issuer.eab.hmacKey },
    profile: issuer.profile ?? null,
  }));
}
