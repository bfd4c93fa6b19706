import { Resolver } from 'node:dns/promises';
import { isIPv6 } from 'node:net';
import type { DnsRecord } from '../certs/dns-01.ts';
import { IssuerError } from '../certs/issuer.ts';
import { formatSpan, sleep } from '../kit/time.ts';
import type { Lookup } from './lookup.ts';

/** A server that is well answers in a tenth of it, ms. */
const ANSWER_TIMEOUT = 2_000;
/** Between rounds, ms: soon at first, since most have it at once. */
const ROUND_FIRST = 250;
const ROUND_LONGEST = 5_000;
const ROUND_GROWTH = 1.5;
/** Whom is waited for is told after this, ms. */
const TOLD_AFTER = 2_000;
/** A server that has not answered at all for so long is not waited for, where another has the record: a CA's resolver asks the next one, too. */
const SILENT_FOR = 20_000;
const DNS_PORT = 53;

/** One address of one of a zone's own servers, and what it last said. */
interface Server {
  readonly name: string;
  /** Null where the name has none that can be told. */
  readonly address: string | null;
  state: 'has it' | 'lacks it' | 'silent';
  /** Why it is silent: a code. */
  why: string;
}

export interface PropagationOptions {
  readonly lookup: Lookup;
  /** How long every server may take, ms. */
  readonly bound: number;
  /** Where servers of zones listen: 53. */
  readonly port?: number;
}

/** Waits until every one of a zone's own servers has the record; see `DnsZones.settle`. */
export async function settle(
  record: DnsRecord,
  { lookup, bound, port = DNS_PORT }: PropagationOptions,
  signal: AbortSignal,
  onWait: (message: string) => void,
): Promise<readonly string[]> {
  const began = performance.now();
  const servers = await serversOf(record.zone, lookup, signal);
  let told = false;
  for (let wait = ROUND_FIRST; ; wait = Math.min(ROUND_LONGEST, wait * ROUND_GROWTH)) {
    await Promise.all(servers.map((server) => look(server, record, port, signal)));
    const passed = performance.now() - began;
    const behind = servers.filter(({ state }) => state === 'lacks it');
    const silent = servers.filter(({ state }) => state === 'silent');
    const some = servers.some(({ state }) => state === 'has it');
    if (some && behind.length === 0 && (silent.length === 0 || passed >= Math.min(SILENT_FOR, bound))) {
      return silent.map((server) => `${inWords(server)}, and is not waited for`);
    }
    if (passed >= bound) throw tooLate(record, [...behind, ...silent], bound);
    if (passed >= TOLD_AFTER && !told) {
      told = true;
      const whom = [...behind, ...silent].map(inWords).join('; ');
      onWait(`${whom}: waiting, ${formatSpan(bound)} at most (acme.dns.propagationTimeout)`);
    }
    await sleep(Math.min(wait, Math.max(0, bound - passed)), signal);
  }
}

async function serversOf(zone: string, lookup: Lookup, signal: AbortSignal): Promise<Server[]> {
  const names = await lookup.nameServers(zone, signal);
  const all = await Promise.all(
    names.map(async (name): Promise<Server[]> => {
      const addresses = await lookup.addresses(name, signal);
      const found = addresses.length === 0 ? [null] : addresses;
      return found.map((address) => ({ name, address, state: 'silent', why: 'it has no address' }));
    }),
  );
  return all.flat();
}

async function look(server: Server, { name, value }: DnsRecord, port: number, signal: AbortSignal): Promise<void> {
  const { address } = server;
  if (address === null || server.state === 'has it') return;
  const resolver = new Resolver({ timeout: ANSWER_TIMEOUT, tries: 1 });
  resolver.setServers([isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`]);
  const cancel = () => resolver.cancel();
  signal.addEventListener('abort', cancel, { once: true });
  try {
    const values = await resolver.resolveTxt(name);
    server.state = values.some((strings) => strings.join('') === value) ? 'has it' : 'lacks it';
  } catch (error) {
    signal.throwIfAborted();
    server.why = String((error as { code?: unknown }).code);
    server.state = server.why === 'ENOTFOUND' || server.why === 'ENODATA' ? 'lacks it' : 'silent';
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}

function tooLate({ name }: DnsRecord, servers: readonly Server[], bound: number): IssuerError {
  const whom = servers.map(inWords).join('; ');
  return new IssuerError(
    'dnsPropagation',
    `after ${formatSpan(bound)} the record at ${name} is not everywhere: ${whom}`,
  );
}

function inWords({ name, address, state, why }: Server): string {
  const who = address === null ? name : `${name} (${address})`;
  if (state === 'lacks it') return `${who} does not have it`;
  return `${who} gives no answer (${why})`;
}
