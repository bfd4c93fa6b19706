import { Resolver } from 'node:dns/promises';
import type { DnsPlace } from '../certs/dns-01.ts';
import { IssuerError } from '../certs/issuer.ts';

/** Most time for one question, ms, and how often it is put. */
const QUESTION_TIMEOUT = 3_000;
const QUESTION_TRIES = 2;
/** A chain of CNAMEs longer than this is a loop, or as good as one: resolvers give up at about as many. */
const CHAIN_MAX = 8;

/** Answers that say: there is nothing of the kind. */
const NOTHING = new Set(['ENOTFOUND', 'ENODATA']);

/** Looks up zones through the given servers (`host:port`), or those of the system. */
export class Lookup {
  readonly #servers: readonly string[];

  constructor(servers: readonly string[]) {
    this.#servers = servers;
  }

  /** Whom it asks, for people. */
  get who(): string {
    return this.#servers.length === 0 ? "this machine's resolver" : this.#servers.join(', ');
  }

  /** Where the answers for a host stand. @throws {IssuerError} `dnsZone` */
  async place(host: string, signal: AbortSignal): Promise<DnsPlace> {
    return this.#asking(signal, async (resolver) => {
      const via = [`_acme-challenge.${host}`];
      for (;;) {
        const name = via.at(-1) ?? '';
        const [target] = await this.#ask(name, () => resolver.resolveCname(name));
        if (target === undefined) return { zone: await this.#zoneOf(resolver, name), name, via };
        const next = target.toLowerCase().replace(/\.$/, '');
        const looped = via.includes(next);
        via.push(next);
        if (looped) throw noZone(`the CNAMEs ${via.join(' → ')} are a loop`);
        if (via.length > CHAIN_MAX + 1) throw noZone(`the CNAMEs ${via.join(' → ')} lead on and on`);
      }
    });
  }

  /** The servers that a zone names as its own. @throws {IssuerError} `dnsZone` */
  async nameServers(zone: string, signal: AbortSignal): Promise<string[]> {
    return this.#asking(signal, async (resolver) => {
      const names = await this.#ask(zone, () => resolver.resolveNs(zone));
      if (names.length === 0) throw noZone(`the zone ${zone} has no NS records, says ${this.who}`);
      return names.map((name) => name.toLowerCase()).toSorted();
    });
  }

  /** Every address of a server; none where it has none, or they cannot be told. */
  async addresses(server: string, signal: AbortSignal): Promise<string[]> {
    return this.#asking(signal, async (resolver) => {
      const found = await Promise.allSettled([resolver.resolve4(server), resolver.resolve6(server)]);
      return found.flatMap((one) => (one.status === 'fulfilled' ? one.value : []));
    });
  }

  /** The closest name above (or the name itself) that has an SOA record. */
  async #zoneOf(resolver: Resolver, name: string): Promise<string> {
    for (let zone = name; zone.includes('.'); zone = zone.slice(zone.indexOf('.') + 1)) {
      const [soa] = await this.#ask(zone, async () => [await resolver.resolveSoa(zone)]);
      if (soa !== undefined) return zone;
    }
    throw noZone(`there is no zone above ${name}: ${this.who} has an SOA record of none`);
  }

  /** None where there is nothing of the kind. */
  async #ask<T>(name: string, question: () => Promise<T[]>): Promise<T[]> {
    try {
      return await question();
    } catch (cause) {
      const code = String((cause as { code?: unknown }).code);
      if (NOTHING.has(code)) return [];
      throw new IssuerError('dnsZone', `${this.who} did not say what there is of ${name} (${code})`, { cause });
    }
  }

  /** With a resolver of its own: an abort ends its questions alone. */
  async #asking<T>(signal: AbortSignal, task: (resolver: Resolver) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const resolver = new Resolver({ timeout: QUESTION_TIMEOUT, tries: QUESTION_TRIES });
    if (this.#servers.length > 0) resolver.setServers([...this.#servers]);
    const cancel = () => resolver.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      return await task(resolver);
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener('abort', cancel);
    }
  }
}

function noZone(detail: string): IssuerError {
  return new IssuerError('dnsZone', detail);
}
