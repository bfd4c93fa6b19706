import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { LRUCache } from 'lru-cache';
import type { Config } from '../config/config.ts';
import { embeddedIPv4, isIPv6, NetworkList, parseAddress } from '../kit/networks.ts';
import { RegistryError } from '../oci/errors.ts';
import type { Logger } from '../telemetry/log.ts';
import { AnonymousRule } from './anonymous.ts';
import type { ByteQuota, ByteUsage, FillBudget, Quotas } from './quotas.ts';
import { RequestRate } from './request-rate.ts';
import type { UserSnapshot } from './user-snapshot.ts';

/** What is known of a client that asks. */
export interface AccessRequest {
  /** The client's IP address, behind any trusted proxies. */
  readonly address: string;
  /** The `Authorization` header as it came. */
  readonly authorization?: string | undefined;
  /** Host name that the client used, for the challenge and messages. */
  readonly host?: string | undefined;
}

/** A client that was let in. */
export interface Grant {
  /** Null for an anonymous client. */
  readonly user: string | null;
  readonly authenticated: boolean;
  /** Whether its operator knows it: by its credentials, or by its network, which `access.anonymous` or `access.allow` names. */
  readonly known: boolean;
  /** Who counts as one client: `user:<name>`, else the IPv4 address or the /64 of the IPv6 address. */
  readonly client: string;
}

export interface AccessOptions {
  readonly rules: Config['access'];
  readonly limits: Pick<Config['limits'], 'requestsPerMinute'>;
  readonly users: Pick<UserSnapshot, 'count' | 'everAdded' | 'verify'>;
  /** Called when a user is let in, with each request. */
  readonly used?: (user: string) => void;
  /** Null where no bytes are counted. */
  readonly quotas: Quotas | null;
  readonly log: Logger;
  /** Monotonic, ms. */
  readonly now?: () => number;
}

/** How much of the limits is used. Null: no such limit. */
export interface LimitsUsage extends ByteUsage {
  /** Requests that clients have not got back yet. */
  readonly minute: { readonly limit: number; readonly clients: ReadonlyMap<string, number> } | null;
}

/** How often the counters are stored, ms. A process that is killed loses the bytes counted since then; each flush is one small write. */
const FLUSH_EVERY = 10_000;

/** Decides who may pull, and how much: address rules, users, limits. */
export class Access {
  readonly #options: Omit<AccessOptions, 'rules' | 'limits'>;
  readonly #now: () => number;
  #networks: NetworkRules;
  #anonymous: AnonymousRule;
  #perMinute: number | null;
  #rate: RequestRate | null;
  readonly #timer: NodeJS.Timeout | null;

  constructor(options: AccessOptions) {
    const { rules, limits } = options;
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#networks = new NetworkRules(rules);
    this.#anonymous = new AnonymousRule(rules.anonymous);
    this.#perMinute = limits.requestsPerMinute;
    this.#rate = this.#perMinute === null ? null : new RequestRate(this.#perMinute);
    this.#timer = options.quotas === null ? null : setInterval(() => void this.#flush(), FLUSH_EVERY).unref();
  }

  /** Takes other rules and limits; what clients have used so far counts on. */
  async reconfigure({ access, limits }: Pick<Config, 'access' | 'limits'>): Promise<void> {
    await this.#options.quotas?.reconfigure(limits);
    this.#networks = new NetworkRules(access);
    this.#anonymous = new AnonymousRule(access.anonymous);
    if (limits.requestsPerMinute === this.#perMinute) return;
    this.#perMinute = limits.requestsPerMinute;
    this.#rate = this.#perMinute === null ? null : new RequestRate(this.#perMinute, this.#rate);
  }

  /** Counts as one request. @throws {RegistryError} clientDenied, unauthorized with its challenge, tooManyRequests */
  check(request: AccessRequest): Grant {
    if (!this.#networks.allows(request.address)) {
      throw new RegistryError('clientDenied', { facts: { address: request.address } });
    }
    const user = this.#user(request);
    // A request with wrong credentials counts for its address, so that guessing passwords is limited too.
    const client = typeof user === 'string' ? `user:${user}` : clientNetwork(request.address);
    this.#limit(client);
    if (user instanceof RegistryError) throw user;
    if (user !== null) this.#options.used?.(user);
    this.#quotas?.check(client);
    const known = user !== null || this.#anonymous.names(request.address) || this.#networks.names(request.address);
    return { user, authenticated: user !== null, known, client };
  }

  /** A user was let in by another process of this gateway. */
  used(user: string): void {
    this.#options.used?.(user);
  }

  /** Asked before a body is sent; null where no bytes are counted. */
  get quota(): ByteQuota | null {
    return this.#quotas?.forBodies ?? null;
  }

  /** What a fill that this client begins takes of its quotas; null where no bytes are counted. */
  fill(client: string): FillBudget | null {
    return this.#quotas?.fill(client) ?? null;
  }

  /** Bytes that were fetched for this client otherwise. */
  fetched(client: string, bytes: number): void {
    this.#quotas?.fetched(client, bytes);
  }

  /** False for a client whose quota is used up. */
  mayFetch(client: string): boolean {
    return this.#quotas?.mayFetch(client) ?? true;
  }

  /** How much of the limits is used, for the operator. */
  usage(): LimitsUsage {
    const { day = null, month = null } = this.#quotas?.usage() ?? {};
    const limit = this.#perMinute;
    const minute = limit === null ? null : { limit, clients: this.#rate?.used(this.#now()) ?? new Map() };
    return { minute, day, month };
  }

  /** Writes the counters a last time; never rejects. */
  async close(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#options.quotas?.close();
    await this.#flush();
  }

  /** Null while bytes are not limited. */
  get #quotas(): Quotas | null {
    const { quotas } = this.#options;
    return quotas?.areLimited === true ? quotas : null;
  }

  /**
   * The user's name; null: an anonymous client; an error: why it is refused. Wrong credentials are refused even where anonymous clients may
   * pull, since `docker login` takes an answer of 200 for correct ones. Only where there are no users, and everybody may pull, are credentials
   * ignored: some clients send theirs for another registry.
   */
  #user({ address, authorization, host }: AccessRequest): string | null | RegistryError {
    const { users } = this.#options;
    if (authorization !== undefined && (users.count > 0 || !this.#anonymous.isOpen(users))) {
      const proof = users.verify(authorization);
      if (proof?.kind === 'user') return proof.name;
      if (proof?.kind === 'expired') {
        return unauthorized('tokenExpired', host, { user: proof.name, time: proof.expiredAt });
      }
      if (/^basic\b/i.test(authorization)) return unauthorized('credentialsWrong', host, {});
    }
    return this.#anonymous.allows(address, users) ? null : unauthorized('unauthorized', host, {});
  }

  #limit(client: string): void {
    const wait = this.#rate?.take(client, this.#now()) ?? 0;
    if (wait === 0) return;
    throw new RegistryError('tooManyRequests', {
      facts: { what: `this client has made its ${this.#perMinute} requests a minute` },
      client,
      retryAfter: wait,
    });
  }

  async #flush(): Promise<void> {
    try {
      await this.#options.quotas?.flush();
    } catch (error) {
      this.#options.log.error(
        { err: error },
        'the counters of the limits could not be written; they are kept in memory',
      );
    }
  }
}

function unauthorized(
  name: 'unauthorized' | 'credentialsWrong' | 'tokenExpired',
  host: string | undefined,
  facts: Readonly<Record<string, string>>,
): RegistryError {
  // The host is the client's own text: nothing of it may break out of the quoted string.
  const realm = (host ?? '').replace(/[^A-Za-z0-9.:[\]-]/g, '').slice(0, 253) || 'registry gateway';
  return new RegistryError(name, {
    facts: { host: realm, ...facts },
    headers: { 'www-authenticate': `Basic realm="${realm}", charset="UTF-8"` },
  });
}

/** First bits of an IPv6 address that name one customer's network (RFC 6177); within it the customer chooses addresses freely. */
const CLIENT_PREFIX_V6 = 64;

/** Networks of the addresses seen last: parsing an address costs more than everything else that the limits do for a small request. */
const networks = new LRUCache<string, string>({ max: 4096 });

/** `access.allow` and `access.deny`: deny wins; where `allow` names anything, nothing else may come in. */
export class NetworkRules {
  readonly #allow: NetworkList;
  readonly #deny: NetworkList;
  /** There are no rules. */
  readonly #open: boolean;

  /** CIDRs as the configuration gives them, already checked. */
  constructor(rules: { readonly allow: readonly string[]; readonly deny: readonly string[] }) {
    this.#allow = new NetworkList(rules.allow);
    this.#deny = new NetworkList(rules.deny);
    this.#open = this.#allow.isEmpty && this.#deny.isEmpty;
  }

  /** Whether `allow` has the address. */
  names(address: string): boolean {
    return this.#allow.contains(address);
  }

  /** An address that cannot be read passes only where there are no rules. */
  allows(address: string): boolean {
    if (this.#open) return true;
    if (this.#deny.contains(address)) return false;
    return this.#allow.isEmpty ? isIP(address) !== 0 : this.#allow.contains(address);
  }
}

/** What counts as one client without credentials: an IPv4 address, also inside an IPv6 address, or the /64 of any other IPv6 address. */
export function clientNetwork(address: string): string {
  let network = networks.get(address);
  if (network === undefined) {
    network = networkOf(address);
    networks.set(address, network);
  }
  return network;
}

function networkOf(address: string): string {
  const parsed = parseAddress(address);
  if (parsed === null) return 'unknown';
  if (!isIPv6(parsed)) return parsed.toString();
  const embedded = embeddedIPv4(parsed);
  if (embedded !== null) return embedded.toString();
  const parts = parsed.parts.map((part, index) => (index < CLIENT_PREFIX_V6 / 16 ? part : 0));
  return `${new ipaddr.IPv6(parts).toString()}/${CLIENT_PREFIX_V6}`;
}
