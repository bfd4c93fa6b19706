import { LRUCache } from 'lru-cache';
import { iso } from '../kit/time.ts';

/** Clients remembered at once; beyond it the one that was idle longest is forgotten. About 1 MiB. */
const MAX_CLIENTS = 4_096;
/** Registries whose troubles are remembered at once, and different troubles of one: a registry that words each failure anew leaves room for others. */
const MAX_REGISTRIES = 100;
const MAX_TROUBLES = 10;
/** Characters of a reason and of what was asked for. */
const MAX_TEXT = 500;

/** What one client was given since the gateway started, or since it was forgotten. */
export interface ClientUse {
  /** `user:<name>`, an IPv4 address, or the /64 of an IPv6 address. */
  readonly client: string;
  readonly requests: number;
  /** Of bodies that it was sent. */
  readonly bytes: number;
  /** Requests that were refused since a limit was reached (429). */
  readonly refused: number;
  /** ISO 8601. */
  readonly lastAt: string;
}

/** A request that was failed, or answered with what is kept, and why: as the operator may know it. */
export interface TroubleSeen {
  /** `stale`: a kept answer was served in place of the registry's. `cut`: a body broke off. */
  readonly kind: 'failed' | 'stale' | 'cut';
  /** Null where no registry is concerned. */
  readonly registry: string | null;
  /** The row of the table that it comes from, as which it is counted: of a pattern's hosts there is no end. Empty where there is none. */
  readonly row: string;
  readonly status: number;
  readonly reason: string;
  /** What was asked for: repository, and tag or digest; or a path. */
  readonly what: string;
}

/** Something that went wrong, however often; as it was the last time. */
export interface Trouble extends TroubleSeen {
  readonly count: number;
  /** ISO 8601. */
  readonly firstAt: string;
  readonly lastAt: string;
}

interface Use {
  requests: number;
  bytes: number;
  refused: number;
  /** Ms since 1970. */
  lastAt: number;
}

interface Seen extends TroubleSeen {
  count: number;
  firstAt: number;
  lastAt: number;
}

/** What one process has seen since it last said so. */
export interface ActivityDelta {
  readonly clients: readonly (readonly [client: string, use: Use])[];
  readonly troubles: readonly Seen[];
}

/**
 * Who was served and what went wrong lately, for the operator's eyes: what metrics must not have, since there is no end of clients and reasons.
 * Each process has one; workers hand theirs to the owner's. Bounded, in memory alone.
 */
export class Activity {
  readonly #clients = new LRUCache<string, Use>({ max: MAX_CLIENTS });
  /** By row of the table, then by what went wrong. */
  readonly #troubles = new LRUCache<string, LRUCache<string, Seen>>({ max: MAX_REGISTRIES });

  /** A request of this client was answered, or ended; called with each, so it is a lookup and some additions. */
  answered(client: string, status: number, bytes: number): void {
    const use = this.#use(client);
    use.requests += 1;
    use.bytes += bytes;
    if (status === 429) use.refused += 1;
    use.lastAt = Date.now();
  }

  /** Something went wrong with a request. */
  troubled(seen: TroubleSeen): void {
    const now = Date.now();
    const reason = seen.reason.slice(0, MAX_TEXT);
    this.#note({ ...seen, reason, what: seen.what.slice(0, MAX_TEXT), count: 1, firstAt: now, lastAt: now });
  }

  /** Everything, and starts anew; null where there is nothing. */
  take(): ActivityDelta | null {
    if (this.#clients.size === 0 && this.#troubles.size === 0) return null;
    const delta = { clients: [...this.#clients.entries()].reverse(), troubles: this.#allTroubles().reverse() };
    this.#clients.clear();
    this.#troubles.clear();
    return delta;
  }

  /** What another process has seen. */
  add({ clients, troubles }: ActivityDelta): void {
    for (const [client, { requests, bytes, refused, lastAt }] of clients) {
      const use = this.#use(client);
      use.requests += requests;
      use.bytes += bytes;
      use.refused += refused;
      use.lastAt = Math.max(use.lastAt, lastAt);
    }
    for (const trouble of troubles) this.#note(trouble);
  }

  /** The clients that were sent most, first. */
  clients(most: number): ClientUse[] {
    return [...this.#clients.entries()]
      .map(([client, { lastAt, ...use }]) => ({ client, ...use, lastAt: iso(lastAt) }))
      .sort((one, other) => other.bytes - one.bytes || other.requests - one.requests)
      .slice(0, most);
  }

  /** The latest first. */
  troubles(most: number): Trouble[] {
    return this.#allTroubles()
      .sort((one, other) => other.lastAt - one.lastAt)
      .slice(0, most)
      .map(({ firstAt, lastAt, ...seen }) => ({ ...seen, firstAt: iso(firstAt), lastAt: iso(lastAt) }));
  }

  #use(client: string): Use {
    let use = this.#clients.get(client);
    if (use === undefined) {
      use = { requests: 0, bytes: 0, refused: 0, lastAt: 0 };
      this.#clients.set(client, use);
    }
    return use;
  }

  #allTroubles(): Seen[] {
    return [...this.#troubles.values()].flatMap((ofRow) => [...ofRow.values()]);
  }

  #note(seen: Seen): void {
    // A stale answer's reason says how old it is: that is no other trouble.
    const reason = seen.kind === 'stale' ? '' : seen.reason;
    const key = `${seen.kind}\n${seen.status}\n${reason}`;
    const troubles = this.#troubles.get(seen.row) ?? new LRUCache<string, Seen>({ max: MAX_TROUBLES });
    this.#troubles.set(seen.row, troubles);
    const known = troubles.get(key);
    if (known === undefined) {
      troubles.set(key, seen);
      return;
    }
    const count = known.count + seen.count;
    const firstAt = Math.min(known.firstAt, seen.firstAt);
    const latest = seen.lastAt >= known.lastAt ? seen : known;
    troubles.set(key, { ...latest, count, firstAt });
  }
}
