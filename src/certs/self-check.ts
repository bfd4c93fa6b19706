import { randomBytes, type X509Certificate } from 'node:crypto';
import { lookup, Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { request } from 'node:http';
import { isIPv6 } from 'node:net';
import { connect } from 'node:tls';
import type { ChallengeType } from '../config/config.ts';
import { readBounded } from '../kit/http.ts';
import { bracketed } from '../kit/networks.ts';
import { ACME_TLS } from './client-hello.ts';
import { alpnServerName, isAddress } from './identifier.ts';
import type { ChallengeResponder } from './issuer.ts';
import { selfSigned } from './x509.ts';

/** What a CA would find if it validated now. */
export interface SelfCheckResult {
  /** Challenge types that would work. */
  readonly passed: readonly ChallengeType[];
  /** The records found, `host A 203.0.113.7`. */
  readonly records: readonly string[];
  /** Exactly what is wrong, a sentence each. */
  readonly problems: readonly string[];
}

export interface SelfCheckOptions {
  readonly host: string;
  readonly challenges: readonly ChallengeType[];
  readonly resolvers: readonly string[];
  readonly responder: ChallengeResponder;
  /** Where a CA connects: 80 and 443. */
  readonly ports: { readonly http: number; readonly https: number };
  readonly signal: AbortSignal;
}

/** A healthy gateway answers itself at once; a firewall that swallows packets must not hold up an attempt, ms. */
const ANSWER_TIMEOUT = 5_000;
/** Names with more addresses than this are checked on the first ones. */
const ADDRESSES_MAX = 4;
const BODY_MAX = 4_096;

/** Resolves the name and asks for an answer of our own there, as a CA would. It counts against no CA's limits. */
export async function selfCheck(options: SelfCheckOptions): Promise<SelfCheckResult> {
  const { host, challenges } = options;
  const { addresses, records, problem } = await resolveHost(host, options.resolvers);
  if (problem !== null) return { passed: [], records, problems: [problem] };
  const passed: ChallengeType[] = [];
  const problems: string[] = [];
  for (const challenge of challenges) {
    const check = challenge === 'http-01' ? checkHttp : checkAlpn;
    const found = await check(options, addresses.slice(0, ADDRESSES_MAX));
    if (found.length === 0) passed.push(challenge);
    problems.push(...found);
  }
  return { passed, records, problems };
}

async function checkHttp(options: SelfCheckOptions, addresses: readonly string[]): Promise<string[]> {
  const token = randomBytes(24).toString('base64url');
  const content = randomBytes(24).toString('base64url');
  const withdraw = await options.responder.http(token, content);
  try {
    const problems = await Promise.all(addresses.map((address) => fetchToken(options, address, token, content)));
    return problems.filter((problem) => problem !== null);
  } finally {
    await withdraw();
  }
}

async function fetchToken(
  { host, ports, signal }: SelfCheckOptions,
  address: string,
  token: string,
  content: string,
): Promise<string | null> {
  const where = `${host} leads to ${address}, and port ${ports.http} there`;
  const aborted = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT)]);
  try {
    const call = request({
      host: address,
      port: ports.http,
      path: `/.well-known/acme-challenge/${token}`,
      headers: { host: bracketed(host) },
      agent: false,
      signal: aborted,
    });
    call.end();
    const [response] = await once(call, 'response', { signal: aborted });
    const body = (await readBounded(response, BODY_MAX)).toString();
    if (response.statusCode === 200 && body === content) return null;
    return `${where} answered ${response.statusCode} with something other than this gateway's token: another program answers, or another machine has that address`;
  } catch (error) {
    signal.throwIfAborted();
    return `${where} ${inWords(error)}: point the record to this gateway, and let that port through`;
  }
}

async function checkAlpn(options: SelfCheckOptions, addresses: readonly string[]): Promise<string[]> {
  const now = Date.now();
  // Any certificate that only this gateway can have will do.
  const marker = selfSigned({
    commonName: options.host,
    names: [options.host],
    notBefore: now,
    notAfter: now + 60_000,
  });
  const withdraw = await options.responder.alpn(alpnServerName(options.host), marker);
  try {
    const problems = await Promise.all(addresses.map((address) => meetMarker(options, address, marker.certificate)));
    return problems.filter((problem) => problem !== null);
  } finally {
    await withdraw();
  }
}

async function meetMarker(
  { host, ports, signal }: SelfCheckOptions,
  address: string,
  marker: X509Certificate,
): Promise<string | null> {
  const where = `${host} leads to ${address}, and port ${ports.https} there`;
  const aborted = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT)]);
  const socket = connect({
    host: address,
    port: ports.https,
    servername: alpnServerName(host),
    ALPNProtocols: [ACME_TLS],
    // It is compared with the one certificate that is right, which no CA has signed.
    rejectUnauthorized: false,
    ...(isIPv6(address) ? { family: 6 } : {}),
  });
  try {
    await once(socket, 'secureConnect', { signal: aborted });
    const met = socket.getPeerX509Certificate();
    if (socket.alpnProtocol === ACME_TLS && met?.fingerprint256 === marker.fingerprint256) return null;
    return `${where} answered with something other than this gateway's token: another program answers, or another machine has that address`;
  } catch (error) {
    signal.throwIfAborted();
    return `${where} ${inWords(error)}: point the record to this gateway, and let that port through`;
  } finally {
    socket.destroy();
  }
}

function inWords(error: unknown): string {
  const { code, name, cause } = error as { code?: unknown; name?: unknown; cause?: { name?: unknown } };
  if (name === 'TimeoutError' || cause?.name === 'TimeoutError' || name === 'AbortError') {
    return `gave no answer within ${ANSWER_TIMEOUT / 1000} s`;
  }
  if (code === 'ECONNREFUSED') return 'refuses connections';
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH') return 'cannot be reached from here';
  return `broke off (${String(code ?? name)})`;
}

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

/** Asks the given servers (`host:port`), or, where there are none, the system as every program on it would. An address leads to itself. */
export async function resolveHost(host: string, servers: readonly string[]): Promise<Resolution> {
  if (isAddress(host)) return { addresses: [host], records: [], problem: null };
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
