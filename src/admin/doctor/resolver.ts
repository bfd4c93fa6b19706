import { randomBytes } from 'node:crypto';
import { Resolver } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { type Resolution, resolveHost } from '../../certs/self-check.ts';
import type { Config } from '../../config/config.ts';
import type { Finding } from './finding.ts';
import type { Surroundings } from './surroundings.ts';

/** A DNS server that is well answers in a tenth of it, ms. */
const ANSWER_TIMEOUT = 2_000;
/** Names that a server is asked for: one may be gone, or its zone broken. */
const ASKED = 3;

/** How one DNS server answers. */
interface ServerState {
  readonly server: string;
  /** Null where it answers as it should. */
  readonly problem: string | null;
  /** Where a name leads that does not exist; null where it says so. */
  readonly lie: string | null;
}

/** What is known of the DNS servers before anything else is looked up. */
export class Names {
  readonly findings: readonly Finding[];
  readonly #local: ReadonlySet<string>;
  /** Null: asked as every program of the machine does. */
  readonly #direct: readonly string[] | null;
  /** Servers that answer. */
  readonly #alive: readonly string[];
  readonly #dead: boolean;

  private constructor(
    findings: readonly Finding[],
    local: ReadonlySet<string>,
    direct: readonly string[] | null,
    alive: readonly string[],
    dead: boolean,
  ) {
    this.#alive = alive;
    this.findings = findings;
    this.#local = local;
    this.#direct = direct;
    this.#dead = dead;
  }

  /**
   * Asks every DNS server by itself. The system's own way (getaddrinfo) waits ten seconds and more for one that is dead, on one of the few threads
   * that files are read with too: so it is never taken before a server has answered.
   * @param hosts that are to be looked up later; some of them are asked for
   */
  static async open(
    config: Pick<Config, 'acme' | 'publicDomain'>,
    around: Surroundings,
    hosts: readonly string[],
  ): Promise<Names> {
    const { resolvers } = config.acme;
    const servers = resolvers.length > 0 ? resolvers : around.servers();
    const local = namesIn(await readFile(around.hostsFile, 'utf8').catch(() => ''));
    const asked = hosts.filter((host) => needsServer(host, local) && !host.endsWith('.localhost')).slice(0, ASKED);
    if (asked.length === 0) return new Names([], local, null, [], false);
    const where = resolvers.length > 0 ? 'acme.resolvers' : '/etc/resolv.conf';
    if (servers.length === 0) {
      const next = 'name one in /etc/resolv.conf, or start systemd-resolved';
      const finding: Finding = { name: 'resolver', level: 'fail', message: 'this machine has no DNS server', next };
      return new Names([finding], local, null, [], true);
    }
    const states = await Promise.all(servers.map((server) => askServer(server, asked)));
    const alive = states.filter(({ problem }) => problem === null).map(({ server }) => server);
    // What CAs and clients elsewhere see of a public name is not in this machine's own files.
    const direct = config.publicDomain || resolvers.length > 0 ? alive : null;
    const name = resolvers.length > 0 ? 'resolver for own names' : 'resolver';
    return new Names(
      [...judgeServers(states, where)].map((one) => ({ ...one, name: one.name.replace(/^resolver$/, name) })),
      local,
      direct,
      alive,
      alive.length === 0,
    );
  }

  /** Whether a host can be looked up: a server answers, or none is needed. */
  canResolve(host: string): boolean {
    return !this.#dead || !needsServer(host, this.#local);
  }

  /**
   * Whether there is a host of this name, as far as DNS servers say; true where they say nothing of it. Many names at once would wait for one
   * another in the system's own way, where one lost packet costs five seconds.
   */
  async exists(host: string): Promise<boolean> {
    if (this.#alive.length === 0 || !needsServer(host, this.#local) || !host.includes('.')) return true;
    const resolver = new Resolver({ timeout: ANSWER_TIMEOUT / 2, tries: 2 });
    resolver.setServers([...this.#alive]);
    const answers = await Promise.all([addressOf(resolver, host).then(({ code }) => code), sixOf(resolver, host)]);
    return answers.some((code) => code !== 'ENOTFOUND');
  }

  /** Where one of the gateway's own names leads. */
  resolve(host: string): Promise<Resolution> {
    return resolveHost(host, this.#direct ?? []);
  }
}

/** Names under localhost too: not every machine knows them by itself. */
function needsServer(host: string, local: ReadonlySet<string>): boolean {
  return isIP(host) === 0 && host !== 'localhost' && !local.has(host.toLowerCase());
}

/** Names in hosts(5). */
function namesIn(text: string): Set<string> {
  const lines = text.split('\n').map((line) => line.replace(/#.*/, '').trim().toLowerCase());
  return new Set(lines.flatMap((line) => line.split(/\s+/).slice(1)));
}

async function askServer(server: string, hosts: readonly string[]): Promise<ServerState> {
  const resolver = new Resolver({ timeout: ANSWER_TIMEOUT, tries: 1 });
  try {
    resolver.setServers([server]);
  } catch {
    return { server, problem: 'is no address of a DNS server', lie: null };
  }
  const unknown = `gateway-doctor-${randomBytes(8).toString('hex')}.com`;
  const [lie, ...answers] = await Promise.all([unknown, ...hosts].map((host) => addressOf(resolver, host)));
  const codes = answers.map(({ code }) => code);
  const problem = codes.some((code) => ANSWERS.has(code)) ? null : inWords(codes[0] ?? '');
  return { server, problem, lie: lie?.address ?? null };
}

/** An answer, be it that there is no such name or no such record. */
const ANSWERS = new Set(['', 'ENOTFOUND', 'ENODATA']);

async function sixOf(resolver: Resolver, host: string): Promise<string> {
  try {
    await resolver.resolve6(host);
    return '';
  } catch (error) {
    return String((error as { code?: unknown }).code);
  }
}

async function addressOf(resolver: Resolver, host: string): Promise<{ address: string | null; code: string }> {
  try {
    const [address = null] = await resolver.resolve4(host);
    return { address, code: '' };
  } catch (error) {
    return { address: null, code: String((error as { code?: unknown }).code) };
  }
}

function inWords(code: string): string {
  if (code === 'ETIMEOUT') return `does not answer (${ANSWER_TIMEOUT / 1000} s)`;
  if (code === 'ECONNREFUSED') return 'refuses: no DNS server is there';
  if (code === 'ESERVFAIL')
    return 'answers that it cannot find out (SERVFAIL): what it asks itself is down, or the way to it';
  if (code === 'EREFUSED') return 'refuses to answer this machine (REFUSED)';
  return `fails (${code})`;
}

function* judgeServers(states: readonly ServerState[], where: string): Generator<Finding> {
  const ill = states.filter(({ problem }) => problem !== null);
  const told = ill.map(({ server, problem }) => `${server} ${problem}`).join(', ');
  const next = `start it, let UDP and TCP port 53 through to it, or name another one in ${where}`;
  if (ill.length === states.length) {
    yield { name: 'resolver', level: 'fail', message: `no name can be looked up: DNS server ${told}`, next };
    return;
  }
  if (ill.length > 0) {
    const message = `DNS server ${told}; another one answers, but each look-up may wait for it first`;
    yield { name: 'resolver', level: 'warn', message, next: `take it out of ${where}, or start it` };
  } else yield { name: 'resolver', level: 'ok', message: `${states.map(({ server }) => server).join(', ')} answers` };

  for (const { server, lie } of states) {
    if (lie === null) continue;
    const message = `DNS server ${server} leads names that do not exist to ${lie}: a mistyped registry answers there, and a missing record looks like one`;
    yield {
      name: 'resolver lies',
      level: 'warn',
      message,
      next: `name a DNS server in ${where} that says NXDOMAIN (a provider's "search help" can often be turned off)`,
    };
  }
}
