import { randomBytes, type X509Certificate } from 'node:crypto';
import { lookup, Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { request } from 'node:http';
import { isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { connect } from 'node:tls';
import type { ChallengeType } from '../config/config.ts';
import { readBounded } from '../kit/http.ts';
import { bracketed, parseAddress } from '../kit/networks.ts';
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
  /** Exactly what is wrong, and what to do about it. */
  readonly problems: readonly Problem[];
  /** What is wrong is wrong for every kind of challenge: nothing is learned by trying more than one. */
  readonly everyKind: boolean;
}

interface Problem {
  /** One sentence. */
  readonly what: string;
  readonly next: string;
}

export interface SelfCheckOptions {
  readonly host: string;
  /** The gateway's own: a record for all names below it may be what is missing. */
  readonly domain: string;
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
  const { addresses, records, problem, missing = false } = await resolveHost(host, options.resolvers);
  if (problem !== null) {
    const problems = [{ what: problem, next: missing ? makeRecord(options) : DNS_FAILS }];
    return { passed: [], records, problems, everyKind: true };
  }
  const passed: ChallengeType[] = [];
  const met: Met[] = [];
  for (const challenge of challenges) {
    const check = challenge === 'http-01' ? checkHttp : checkAlpn;
    const found = await check(options, addresses.slice(0, ADDRESSES_MAX));
    if (found.every(({ trouble }) => trouble === null)) passed.push(challenge);
    met.push(...found);
  }
  const problems = met.filter(({ trouble }) => trouble !== null).map((one) => inProblem(options, one, met));
  // Others answer at each of its ports: it is another machine's name.
  const everyKind = met.length > 0 && met.every(({ trouble }) => trouble?.kind === 'other');
  return { passed, records, problems, everyKind };
}

/** What was met at one port of one address. */
interface Met {
  readonly address: string;
  readonly port: number;
  /** Null where this gateway answered. */
  readonly trouble: { readonly kind: 'other' | 'closed' | 'silent'; readonly what: string } | null;
}

const DNS_FAILS =
  "see that the zone's own servers answer (DNSSEC included), and that acme.resolvers, or this machine's resolver, can ask them";

function makeRecord({ host, domain }: SelfCheckOptions): string {
  const own = `create an A or AAAA record for ${host} that points to this gateway`;
  return host.endsWith(`.${domain}`) ? `${own}, or one for *.${domain}, which serves every alias` : own;
}

/** What is wrong at one port, and what to do: by whose address it is, and by how the name's other addresses fare. */
function inProblem({ host, ports }: SelfCheckOptions, { address, port, trouble }: Met, all: readonly Met[]): Problem {
  const isName = !isAddress(host);
  const where = isName ? `${host} leads to ${address}, and port ${port} there` : `port ${port} of ${address}`;
  const what = `${where} ${trouble?.what}`;
  const record = `${isIPv6(address) ? 'AAAA' : 'A'} record of ${host}`;
  const deadIPv6 = isName && isIPv6(address) && all.some((one) => !isIPv6(one.address) && one.trouble === null);
  if (deadIPv6) {
    const next = `remove the ${record} (${address}), or make it lead here: CAs and many clients try IPv6 first`;
    return { what, next };
  }
  if (trouble?.kind === 'other') {
    const next = isName
      ? `point the ${record} to this gateway, or end what answers there`
      : 'end what answers there, or pass that port on to this gateway';
    return { what, next };
  }
  const key = port === ports.http ? 'listen.http' : 'listen.https';
  const own = isOwnAddress(address);
  if (trouble?.kind === 'closed' && own) {
    const next = `that is this machine: have the gateway listen there (${key}), or pass that port on to where it does`;
    return { what, next };
  }
  const letIn = `let port ${port} through to this gateway (firewall, security group, port forwarding)`;
  return { what, next: isName ? `${letIn}; where ${address} is another machine, correct the ${record}` : letIn };
}

function isOwnAddress(address: string): boolean {
  const asked = parseAddress(address)?.toString();
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return own.some((one) => parseAddress(one.address)?.toString() === asked);
}

async function checkHttp(options: SelfCheckOptions, addresses: readonly string[]): Promise<Met[]> {
  const token = randomBytes(24).toString('base64url');
  const content = randomBytes(24).toString('base64url');
  const withdraw = await options.responder.http(token, content);
  try {
    return await Promise.all(addresses.map((address) => fetchToken(options, address, token, content)));
  } finally {
    await withdraw();
  }
}

async function fetchToken(
  { host, ports, signal }: SelfCheckOptions,
  address: string,
  token: string,
  content: string,
): Promise<Met> {
  const at = { address, port: ports.http };
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
    if (response.statusCode === 200 && body === content) return { ...at, trouble: null };
    return { ...at, trouble: { kind: 'other', what: `answered ${response.statusCode} with ${SOMETHING_ELSE}` } };
  } catch (error) {
    signal.throwIfAborted();
    return { ...at, trouble: troubleOf(error) };
  }
}

async function checkAlpn(options: SelfCheckOptions, addresses: readonly string[]): Promise<Met[]> {
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
    return await Promise.all(addresses.map((address) => meetMarker(options, address, marker.certificate)));
  } finally {
    await withdraw();
  }
}

async function meetMarker(
  { host, ports, signal }: SelfCheckOptions,
  address: string,
  marker: X509Certificate,
): Promise<Met> {
  const at = { address, port: ports.https };
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
    if (socket.alpnProtocol === ACME_TLS && met?.fingerprint256 === marker.fingerprint256)
      return { ...at, trouble: null };
    return { ...at, trouble: { kind: 'other', what: `answered with ${SOMETHING_ELSE}` } };
  } catch (error) {
    signal.throwIfAborted();
    return { ...at, trouble: troubleOf(error) };
  } finally {
    socket.destroy();
  }
}

const SOMETHING_ELSE =
  "something other than this gateway's token: another program answers, or another machine has that address";

function troubleOf(error: unknown): Met['trouble'] {
  const { code, name, cause } = error as { code?: unknown; name?: unknown; cause?: { name?: unknown } };
  if (name === 'TimeoutError' || cause?.name === 'TimeoutError' || name === 'AbortError') {
    return { kind: 'silent', what: `gave no answer within ${ANSWER_TIMEOUT / 1000} s` };
  }
  if (code === 'ECONNREFUSED') return { kind: 'closed', what: 'refuses connections' };
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH') return { kind: 'silent', what: 'cannot be reached from here' };
  // A server that has no such name or protocol, or speaks no TLS at all.
  if (String(code).startsWith('ERR_SSL_') || code === 'EPROTO') {
    return { kind: 'other', what: `refused the handshake (${String(code)}) that this gateway answers` };
  }
  return { kind: 'silent', what: `broke off (${String(code ?? name)})` };
}

/** Where a host name leads, and by which records. */
export interface Resolution {
  readonly addresses: readonly string[];
  /** `hub.example.com → gw.example.com` … the aliases on the way; empty where the system's resolver hides them. */
  readonly records: readonly string[];
  /** Why there is no address, in words; null where there is one. */
  readonly problem: string | null;
  /** DNS has answered, and that there is none. */
  readonly missing?: boolean;
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
    const code = codeOf(error);
    const problem = whyMissing(host, host, code, "this machine's resolver");
    return { addresses: [], records: [], problem, missing: isMissing(code) };
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
  return { addresses, records, problem: whyMissing(host, name, code, who), missing: isMissing(code) };
}

function recordOf(name: string, address: string): string {
  return `${name} ${address.includes(':') ? 'AAAA' : 'A'} ${address}`;
}

function isMissing(code: string): boolean {
  return code === 'ENOTFOUND' || code === 'ENODATA';
}

function whyMissing(host: string, name: string, code: string, who: string): string {
  const target = name === host ? '' : ` (its CNAME points to ${name})`;
  if (isMissing(code)) {
    return `there is no A or AAAA record for ${name === host ? host : name}${target === '' ? '' : `, which ${host} is a CNAME of`}, says ${who}`;
  }
  return `${who} did not say where ${host}${target} is (${code})`;
}

function codeOf(error: unknown): string {
  return String((error as { code?: unknown }).code ?? 'unknown');
}
