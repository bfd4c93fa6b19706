import { randomBytes } from 'node:crypto';
import { isIP, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { bracketed } from '../../kit/networks.ts';
import type { OperationsDeps } from '../operation.ts';
import type { Finding } from './finding.ts';
import { type Answerer, whoAnswers } from './proof.ts';
import type { Names } from './resolver.ts';
import { inTime, type Surroundings } from './surroundings.ts';

/** Names with more addresses than this are checked on the first ones. */
const MAX_ADDRESSES = 4;

/** What the names are checked with. */
export interface NamesContext {
  readonly deps: OperationsDeps;
  readonly names: Names;
  readonly around: Surroundings;
  readonly signal: AbortSignal;
}

/** The gateway's own names: the domain, and the host of each alias that is used. */
export function ownNames({ config, table, certificates }: OperationsDeps): string[] {
  // Where certificates are ordered, a host that is to have none and has none is of no use to anybody yet.
  const ordered = config.tls.mode === 'acme' ? certificates : null;
  const used = [...table.snapshot().hosts.values()].filter(
    ({ host, certificate }) => certificate || ordered === null || ordered.info(host) !== null,
  );
  const hosts = [config.domain, ...used.map(({ host }) => host).sort()].filter((host) => isIP(host) === 0);
  // A resolver knows either all names under localhost or none, so one of them is enough.
  const local = hosts.filter((host) => host.endsWith('.localhost'));
  return hosts.filter((host) => !local.includes(host) || host === local[0]);
}

/** Whether each name resolves, and whether every address of it leads to this gateway, by IPv4 and IPv6. */
export async function checkOwnNames(context: NamesContext): Promise<Finding[]> {
  const { deps, names } = context;
  const { config } = deps;
  if (isIP(config.domain) !== 0) {
    const message = 'the domain is an address and needs no DNS';
    return [
      { name: `dns ${config.domain}`, level: 'ok', message },
      ...(await checkAddress(context, config.domain, [config.domain])),
    ];
  }
  const asked = new Map<string, Promise<Answerer>>();
  const checked = ownNames(deps).map((host) => checkName(context, host, asked));
  return (await Promise.all([...checked, names.canResolve(config.domain) ? checkWildcard(context) : []])).flat();
}

async function checkName(
  context: NamesContext,
  host: string,
  asked: Map<string, Promise<Answerer>>,
): Promise<Finding[]> {
  const { names, signal } = context;
  const name = `dns ${host}`;
  if (!names.canResolve(host)) {
    const message = 'cannot be looked up: no DNS server answers';
    return [{ name, level: 'fail', message, next: 'start the DNS server', because: 'name' }];
  }
  const late = { addresses: [], records: [], problem: `no DNS server said in time where ${host} is` };
  const { addresses, problem } = await inTime(names.resolve(host), signal, () => late);
  if (problem !== null) return [missing(context.deps, host, problem)];
  return await checkAddress(context, host, addresses, asked);
}

function missing({ config }: OperationsDeps, host: string, problem: string): Finding {
  const name = `dns ${host}`;
  // RFC 6761 §6.3: many programs resolve names under localhost themselves, so clients may well find it.
  if (host.endsWith('.localhost')) {
    return {
      name,
      level: 'warn',
      message: 'this machine resolves no names under localhost; some clients do so themselves',
      next: 'pull by prefix (localhost:PORT/REGISTRY/NAME), or set domain to a name with a wildcard DNS record',
    };
  }
  const under = host !== config.domain && host.endsWith(`.${config.domain}`);
  return {
    name,
    level: 'fail',
    message: problem,
    next: under
      ? `make a DNS record *.${config.domain}, or ${host}, that points to this machine`
      : `make an A or AAAA record for ${host} that points to this machine`,
    ...(under ? { because: 'same: no record' } : {}),
  };
}

/** Every address of a name, at the ports that clients and CAs use. */
async function checkAddress(
  context: NamesContext,
  host: string,
  addresses: readonly string[],
  asked = new Map<string, Promise<Answerer>>(),
): Promise<Finding[]> {
  const { deps } = context;
  const name = `dns ${host}`;
  const led: Finding = { name, level: 'ok', message: `leads to ${addresses.join(', ')}` };
  if (deps.live === null)
    return [{ ...led, message: `${led.message}; whether that is this gateway shows when it runs` }];
  const found = await Promise.all(
    addresses
      .slice(0, MAX_ADDRESSES)
      .map(async (address) => ({ address, ...(await reach(context, host, address, asked)) })),
  );
  const wrong = found.filter(({ problem }) => problem !== null);
  if (wrong.length === 0) return [led];
  const well = found.length > wrong.length;
  return wrong.map(({ address, problem, sure }) =>
    judgeAddress(context, host, { address, problem: problem ?? '', sure, well }),
  );
}

/** What is wrong with an address; `sure` where this is not only how it looks from inside. */
interface Reach {
  readonly problem: string | null;
  readonly sure: boolean;
}

async function reach(
  { deps, around, signal }: NamesContext,
  host: string,
  address: string,
  asked: Map<string, Promise<Answerer>>,
): Promise<Reach> {
  const { pseudonym } = deps;
  const own = ownAddresses();
  if (isIPv6(address) && !own.some((one) => isIPv6(one) && one !== '::1'))
    return { problem: 'this machine has no IPv6 address', sure: true };
  const path = '/.well-known/acme-challenge/doctor';
  // A look is no use: where a certificate is ordered at the first one, the domain's name shows who answers, too.
  const named = deps.certificates?.info(host)?.state === 'on demand' ? deps.config.domain : host;
  const ask = (port: number, tls: boolean) => {
    // One answer for all names at an address, where the name does not matter: of plain HTTP.
    const key = `${address} ${port} ${tls ? named : ''}`;
    const known = asked.get(key) ?? whoAnswers(address, port, { host: named, tls, path, pseudonym }, signal);
    asked.set(key, known);
    return known;
  };
  const { https, http } = portsOf(deps, around);
  const isOwnAddress = own.includes(address);
  const problems: { readonly problem: string; readonly sure: boolean }[] = [];
  const check = async (port: number | null, tls: boolean): Promise<void> => {
    if (port === null) return;
    // Before it is asked: a certificate that comes meanwhile makes no fault of what it said without one.
    const certified = deps.certificates?.info(host)?.serial != null;
    const found = await ask(port, tls);
    if (found.kind === 'own') return;
    // Over TLS that is what this gateway does too before there is a certificate, which is a fault of its own.
    if (found.kind === 'no certificate' && !certified) return;
    const what =
      found.kind === 'other'
        ? `answers as ${found.what}, not as this gateway`
        : `gives no answer: ${found.kind === 'nobody' ? found.why : 'it has no certificate for this name'}`;
    problems.push({ problem: `port ${port} there ${what}`, sure: found.kind !== 'nobody' || isOwnAddress });
  };
  await Promise.all([check(https, true), check(http, false)]);
  if (problems.length === 0) return { problem: null, sure: true };
  return { problem: problems.map(({ problem }) => problem).join(', and '), sure: problems.some(({ sure }) => sure) };
}

/** The ports by which a name is reached: what clients are told, and where CAs connect; null for none. */
function portsOf(
  { config, live }: OperationsDeps,
  { ports }: Surroundings,
): { https: number | null; http: number | null } {
  const bound = (addresses: readonly string[] | undefined) => Number(addresses?.[0]?.split(':').at(-1)) || null;
  const { mode } = config.tls;
  const own = { https: bound(live?.addresses.https), http: bound(live?.addresses.http) };
  if (mode === 'off') return { https: null, http: null };
  if (mode === 'internal') return { https: own.https, http: null };
  const byHttp = config.acme.challenges.includes('http-01') && own.http !== null;
  return { https: own.https === null ? null : ports.https, http: byHttp ? ports.http : null };
}

function judgeAddress(
  { deps }: NamesContext,
  host: string,
  { address, problem, sure, well }: { address: string; problem: string; sure: boolean; well: boolean },
): Finding {
  const record = isIPv6(address) ? 'AAAA' : 'A';
  const name = `dns ${host}`;
  const message = `leads to ${address}: ${problem}`;
  const because = `same: ${address} ${problem}`;
  const pending = deps.certificates?.info(host)?.serial == null && deps.config.tls.mode === 'acme';
  if (isIPv6(address) && well) {
    return {
      name: `ipv6 ${host}`,
      level: 'fail',
      message: `its AAAA record ${message}; CAs and many clients try IPv6 first`,
      next: `remove the AAAA record of ${host}, or make it lead here: an address of this machine, listened on (listen.https: "[::]:443") and let through`,
      because,
    };
  }
  if (!sure) {
    const next = `let the port through (firewall, security group, port forwarding) and check the ${record} record of ${host}; behind NAT without hairpin this is only how it looks from inside: ask from outside (curl -v http://${bracketed(host)}/healthz)`;
    return { name, level: pending ? 'fail' : 'warn', message, next, because };
  }
  return {
    name,
    level: 'fail',
    message,
    next: `correct the ${record} record of ${host}: it is to point to this machine; or end what answers there`,
    because,
  };
}

function ownAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return all.filter(({ address }) => !address.startsWith('fe80:')).map(({ address }) => address);
}

/** Where names of the domain lead that nobody has made a record for: so will the next alias. */
async function checkWildcard({ deps, names, signal }: NamesContext): Promise<Finding[]> {
  const { domain } = deps.config;
  if (domain === 'localhost' || domain.endsWith('.localhost')) return [];
  const host = `doctor-${randomBytes(4).toString('hex')}.${domain}`;
  const nothing = { addresses: [], records: [], problem: '' };
  const [any, base] = await Promise.all(
    [host, domain].map((name) => inTime(names.resolve(name), signal, () => nothing)),
  );
  const name = `wildcard *.${domain}`;
  if (any === undefined || base === undefined || base.addresses.length === 0) return [];
  if (any.addresses.length === 0) {
    const message =
      'there is no wildcard record: each new alias needs a DNS record of its own before it gets a certificate';
    return [{ name, level: 'ok', message }];
  }
  const elsewhere = any.addresses.filter((address) => !base.addresses.includes(address));
  if (elsewhere.length === 0) return [{ name, level: 'ok', message: `leads where ${domain} leads` }];
  return [
    {
      name,
      level: 'warn',
      message: `leads to ${any.addresses.join(', ')}, and ${domain} to ${base.addresses.join(', ')}: a new alias leads elsewhere`,
      next: `let *.${domain} point where ${domain} points, or remove it and make a record for each alias`,
    },
  ];
}
