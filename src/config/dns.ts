import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { DEFAULT_DOMAIN, type DnsProviderName, type Settings } from './config.ts';

type DnsSettings = NonNullable<NonNullable<Settings['acme']>['dns']>;
type DnsKey = Exclude<keyof DnsSettings, 'provider' | 'propagationTimeout'>;

interface Needs {
  /** All of these; `secret` may be in a file. */
  readonly needed: readonly DnsKey[];
  readonly allowed: readonly DnsKey[];
}

/** What each provider is told, as the table under *DNS-01* in README.md has it. */
const NEEDS: Readonly<Record<DnsProviderName, Needs>> = {
  rfc2136: { needed: ['server', 'keyId', 'secret'], allowed: ['algorithm'] },
  exec: { needed: ['program'], allowed: [] },
  cloudflare: { needed: ['secret'], allowed: ['endpoint'] },
  alidns: { needed: ['keyId', 'secret'], allowed: ['endpoint'] },
  dnspod: { needed: ['keyId', 'secret'], allowed: ['endpoint'] },
};

interface DnsProblem {
  readonly path: readonly string[];
  readonly message: string;
}

/** What is wrong between `acme.challenges`, `acme.dns` and `acme.wildcard`. */
export function dnsProblems({ domain = DEFAULT_DOMAIN, acme = {} }: Settings, cwd: string): DnsProblem[] {
  const { dns = {}, challenges, wildcard = false } = acme;
  const { provider } = dns;
  const found: DnsProblem[] = [];
  const say = (path: readonly string[], message: string) => found.push({ path: ['acme', ...path], message });
  const byDns = challenges === undefined ? provider !== undefined : challenges.includes('dns-01');
  if (challenges?.includes('dns-01') === true && provider === undefined) {
    say(['challenges'], 'names dns-01, which needs acme.dns.provider');
  }
  if (wildcard && !byDns) {
    const how = provider === undefined ? 'set acme.dns.provider' : 'name dns-01 in acme.challenges';
    say(['wildcard'], `is true, and CAs have a wildcard proved by dns-01 alone: ${how}`);
  }
  if (wildcard && (isIP(domain) !== 0 || !domain.includes('.'))) {
    say(['wildcard'], `is true, and "${domain}" is no domain that has names below it`);
  }
  if (provider !== undefined) found.push(...providerProblems(provider, dns, cwd));
  return found;
}

function* providerProblems(provider: DnsProviderName, dns: DnsSettings, cwd: string): Generator<DnsProblem> {
  const { needed, allowed } = NEEDS[provider];
  const path = (key: DnsKey) => ['acme', 'dns', key];
  const { secret, secretFile } = dns;
  for (const key of needed) {
    if (dns[key] !== undefined || (key === 'secret' && secretFile !== undefined)) continue;
    const how = key === 'secret' ? ' (GATEWAY_ACME_DNS_SECRET), or acme.dns.secretFile' : '';
    yield { path: path(key), message: `is missing: ${provider} needs it${how}` };
  }
  const used = [...needed, ...allowed, ...(needed.includes('secret') ? ['secretFile'] : [])];
  for (const key of Object.keys(dns) as (keyof DnsSettings)[]) {
    if (key === 'provider' || key === 'propagationTimeout' || used.includes(key)) continue;
    yield { path: path(key), message: `is set, and ${provider} has no use for it` };
  }
  if (secret !== undefined && secretFile !== undefined) {
    yield { path: path('secretFile'), message: 'is set beside acme.dns.secret: give one of them' };
  }
  if (secretFile === undefined) {
    if (secret !== undefined && provider === 'rfc2136') yield* keyProblems(secret, path('secret'), 'is');
    return;
  }
  try {
    const content = readFileSync(resolve(cwd, secretFile), 'utf8').trim();
    if (content === '') yield { path: path('secretFile'), message: `"${secretFile}" is empty` };
    else if (provider === 'rfc2136') yield* keyProblems(content, path('secretFile'), `"${secretFile}" has`);
  } catch (error) {
    const message = `"${secretFile}" cannot be read: ${(error as Error).message.split(',')[0]}`;
    yield { path: path('secretFile'), message };
  }
}

/** TSIG secrets are shown as base64 by every program that makes them. */
function* keyProblems(secret: string, path: string[], verb: string): Generator<DnsProblem> {
  if (/^[A-Za-z0-9+/]+={0,2}$/.test(secret)) return;
  yield { path, message: `${verb} no base64 text, as tsig-keygen prints a secret` };
}
