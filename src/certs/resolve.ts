import { lookup, Resolver } from 'node:dns/promises';

/** Where a host name leads, and by which records. */
export interface Resolution {
  readonly addresses: readonly string[];
  /** `hub.example.com → gw.example.com` … the aliases on the way; empty where the system's resolver hides them. */
  readonly records: readonly string[];
  /** Why there is no address, in words; null where there is one. */
  readonly problem: string | null;
}

/** Most time for one DNS question, ms, and how often it is put. */
const QUESTION_TIMEOUT = 3_000;
const QUESTION_TRIES = 2;
/** A chain of aliases longer than this is a loop. */
const ALIASES_MAX = 8;

/** Asks the given servers (`host:port`), or, where there are none, the system as every program on it would. */
export async function resolveHost(host: string, servers: readonly string[]): Promise<Resolution> {
  return servers.length === 0 ? bySystem(host) : byServers(host, servers);
}

async function bySystem(host: string): Promise<Resolution> {
  try {
    const found = await lookup(host, { all: true });
    const addresses = found.map(({ address }) => address);
    return { addresses, records: addresses.map((address) => recordOf(host, address)), problem: null };
  } catch (error) {
    return { addresses: [], records: [], problem: missing(host, host, codeOf(error), "this machine's resolver") };
  }
}

async function byServers(host: string, servers: readonly string[]): Promise<Resolution> {
  const resolver = new Resolver({ timeout: QUESTION_TIMEOUT, tries: QUESTION_TRIES });
  const who = servers.join(', ');
  try {
    resolver.setServers([...servers]);
  } catch {
    return { addresses: [], records: [], problem: `acme.resolvers is not usable: ${who}` };
  }
  const records: string[] = [];
  let name = host;
  for (let hop = 0; hop < ALIASES_MAX; hop++) {
    const target = (await resolver.resolveCname(name).catch(() => []))[0];
    if (target === undefined) break;
    records.push(`${name} CNAME ${target}`);
    name = target;
  }
  const [four, six] = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
  const addresses = [
    ...(six.status === 'fulfilled' ? six.value : []),
    ...(four.status === 'fulfilled' ? four.value : []),
  ];
  records.push(...addresses.map((address) => recordOf(name, address)));
  if (addresses.length > 0) return { addresses, records, problem: null };
  const code = four.status === 'rejected' ? codeOf(four.reason) : 'ENODATA';
  return { addresses, records, problem: missing(host, name, code, who) };
}

function recordOf(name: string, address: string): string {
  return `${name} ${address.includes(':') ? 'AAAA' : 'A'} ${address}`;
}

function missing(host: string, name: string, code: string, who: string): string {
  const target = name === host ? '' : ` (its CNAME points to ${name})`;
  if (code === 'ENOTFOUND' || code === 'ENODATA') {
    return `there is no A or AAAA record for ${name === host ? host : name}${target === '' ? '' : `, which ${host} is a CNAME of`}, says ${who}`;
  }
  return `${who} did not say where ${host}${target} is (${code})`;
}

function codeOf(error: unknown): string {
  return String((error as { code?: unknown }).code ?? 'unknown');
}
