import type { Config } from '../config/config.ts';
import { RegistryError } from '../oci/errors.ts';
import type { Logger } from '../telemetry/log.ts';
import { type Exceeded, type Quotas, RequestRate } from './limits.ts';
import { clientNetwork, NetworkRules } from './networks.ts';
import type { Users } from './users.ts';

/** Who asks. */
export interface Asker {
  /** Client's IP address, proxies that are trusted already taken off. */
  readonly address: string;
  /** The `Authorization` header as it came. */
  readonly authorization?: string | undefined;
  /** Host name that the client used, for the challenge and messages. */
  readonly host?: string | undefined;
}

/** A client that may go on. */
export interface Grant {
  /** Null for an anonymous client. */
  readonly user: string | null;
  readonly authenticated: boolean;
}

export interface AccessOptions {
  readonly rules: Config['access'];
  readonly limits: Pick<Config['limits'], 'requestsPerMinute'>;
  readonly users: Pick<Users, 'count' | 'verify'>;
  /** Null where no bytes are counted. */
  readonly quotas: Quotas | null;
  readonly log: Logger;
  /** Ms since 1970. */
  readonly now?: () => number;
}

/** Counters are written this often, ms: kill -9 forgives clients at most so much, and the disk sees one small write. */
const FLUSH_EVERY = 10_000;

const ANONYMOUS: Grant = { user: null, authenticated: false };

/** Decides who may pull, and how much: address rules, users, limits. */
export class Access {
  readonly #options: AccessOptions;
  readonly #networks: NetworkRules;
  readonly #rate: RequestRate | null;
  readonly #now: () => number;
  readonly #timer: NodeJS.Timeout;

  constructor(options: AccessOptions) {
    const { rules, limits } = options;
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#networks = new NetworkRules(rules);
    this.#rate = limits.requestsPerMinute === null ? null : new RequestRate(limits.requestsPerMinute);
    this.#timer = setInterval(() => void this.#flush(), FLUSH_EVERY).unref();
  }

  /** Counts as one request. @throws {RegistryError} clientDenied, unauthorized with its challenge, tooManyRequests */
  check(asker: Asker): Grant {
    if (!this.#networks.allows(asker.address)) {
      throw new RegistryError('clientDenied', { facts: { address: asker.address } });
    }
    const grant = this.#identify(asker);
    // A refused guess is a request of its address, too.
    const client = clientKey(asker, grant ?? ANONYMOUS);
    this.#limit(client);
    if (grant === null) throw unauthorized(asker.host);
    const exceeded = this.#options.quotas?.exceeded(client) ?? null;
    if (exceeded !== null) throw overQuota(exceeded);
    return grant;
  }

  /** Body bytes that this client was sent. */
  countBytes(asker: Asker, grant: Grant, bytes: number): void {
    this.#options.quotas?.count(clientKey(asker, grant), bytes);
  }

  /** Writes the counters a last time; never rejects. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#options.quotas?.close();
    await this.#flush();
  }

  /**
   * Null: must log in. Where there are users, wrong credentials are refused even if anonymous clients are welcome, so that `docker login`
   * tells the truth; where there are none, whatever a client sends by habit is ignored.
   */
  #identify({ authorization }: Asker): Grant | null {
    const { users, rules } = this.#options;
    if (authorization !== undefined && users.count > 0) {
      const user = users.verify(authorization);
      if (user !== null) return { user, authenticated: true };
      if (/^basic\b/i.test(authorization)) return null;
    }
    return (rules.anonymous ?? users.count === 0) ? ANONYMOUS : null;
  }

  #limit(client: string): void {
    const wait = this.#rate?.take(client, this.#now()) ?? 0;
    if (wait === 0) return;
    const limit = this.#options.limits.requestsPerMinute;
    throw new RegistryError('tooManyRequests', {
      facts: { what: `this client has made its ${limit} requests a minute` },
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

/** Users are told from addresses by the prefix, which no address has. */
function clientKey(asker: Asker, grant: Grant): string {
  return grant.user === null ? clientNetwork(asker.address) : `user:${grant.user}`;
}

function unauthorized(host: string | undefined): RegistryError {
  // The host is the client's own text: nothing of it may break out of the quoted string.
  const realm = (host ?? '').replace(/[^A-Za-z0-9.:-]/g, '').slice(0, 253) || 'registry gateway';
  return new RegistryError('unauthorized', {
    facts: { host: realm },
    headers: { 'www-authenticate': `Basic realm="${realm}", charset="UTF-8"` },
  });
}

function overQuota({ what, limit, retryAfter }: Exceeded): RegistryError {
  const message =
    what === 'day'
      ? `this client has had its ${limit} bytes of today (UTC)`
      : `this gateway has served its ${limit} bytes of this month (UTC)`;
  return new RegistryError('tooManyRequests', { facts: { what: message }, retryAfter });
}
