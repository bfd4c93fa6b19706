import { readFile } from 'node:fs/promises';
import type { DnsPlace, DnsRecord, DnsZones } from '../certs/dns-01.ts';
import { IssuerError } from '../certs/issuer.ts';
import type { Config } from '../config/config.ts';
import { Alidns } from './alidns.ts';
import { Cloudflare } from './cloudflare.ts';
import { Dnspod } from './dnspod.ts';
import { Exec } from './exec.ts';
import { Lookup } from './lookup.ts';
import { settle } from './propagation.ts';
import type { DnsProvider, Secret } from './provider.ts';
import { Rfc2136 } from './rfc2136.ts';

/** Zones that are looked up in DNS itself, and changed through one provider. */
export class ProviderZones implements DnsZones {
  readonly #provider: DnsProvider;
  readonly #lookup: Lookup;
  readonly #bound: number;
  readonly #port: number | undefined;

  /** @param options.port where servers of zones listen: 53 without it. `bound`: how long they may take to get a record, ms */
  constructor(options: {
    readonly provider: DnsProvider;
    readonly resolvers: readonly string[];
    readonly bound: number;
    readonly port?: number;
  }) {
    this.#provider = options.provider;
    this.#lookup = new Lookup(options.resolvers);
    this.#bound = options.bound;
    this.#port = options.port;
  }

  get kind(): string {
    return this.#provider.kind;
  }

  get provider(): string {
    return this.#provider.name;
  }

  find(host: string, signal: AbortSignal): Promise<DnsPlace> {
    return this.#lookup.place(host, signal);
  }

  add(record: DnsRecord, signal: AbortSignal): Promise<void> {
    return this.#provider.add(record, signal);
  }

  remove(record: DnsRecord, signal: AbortSignal): Promise<void> {
    return this.#provider.remove(record, signal);
  }

  settle(record: DnsRecord, signal: AbortSignal, onWait: (message: string) => void): Promise<readonly string[]> {
    const port = this.#port === undefined ? {} : { port: this.#port };
    return settle(record, { lookup: this.#lookup, bound: this.#bound, ...port }, signal, onWait);
  }

  check(place: DnsPlace, signal: AbortSignal): Promise<void> {
    return this.#provider.check(place, signal);
  }
}

/** The zones that `acme.dns` gives this gateway to change; null where it names no provider. */
export function openZones({ dns, resolvers }: Pick<Config['acme'], 'dns' | 'resolvers'>): DnsZones | null {
  const provider = providerOf(dns);
  return provider === null ? null : new ProviderZones({ provider, resolvers, bound: dns.propagationTimeout });
}

/** What each needs was checked with the configuration. */
function providerOf(dns: Config['acme']['dns']): DnsProvider | null {
  const { endpoint } = dns;
  const [keyId, secret] = [dns.keyId ?? '', secretOf(dns)];
  switch (dns.provider) {
    case null:
      return null;
    case 'rfc2136': {
      const { host, port } = hostAndPort(dns.server ?? '');
      return new Rfc2136({ host, port, keyName: keyId, algorithm: dns.algorithm, secret });
    }
    case 'exec':
      return new Exec(dns.program ?? '');
    case 'cloudflare':
      return new Cloudflare(secret, endpoint);
    case 'alidns':
      return new Alidns(keyId, secret, endpoint);
    case 'dnspod':
      return new Dnspod(keyId, secret, endpoint);
  }
}

function secretOf({ secret, secretFile }: Config['acme']['dns']): Secret {
  return async () => {
    if (secretFile === null) return secret ?? '';
    try {
      return (await readFile(secretFile, 'utf8')).trim();
    } catch (cause) {
      const detail = `acme.dns.secretFile ${secretFile} cannot be read: ${(cause as Error).message.split(',')[0]}`;
      throw new IssuerError('dnsProvider', detail, { cause });
    }
  };
}

function hostAndPort(server: string): { host: string; port: number } {
  const colon = server.lastIndexOf(':');
  return { host: server.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(server.slice(colon + 1)) };
}
