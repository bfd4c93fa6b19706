import { randomBytes } from 'node:crypto';
import { Mutex, Reloader } from '../kit/async.ts';
import { didYouMean } from '../kit/did-you-mean.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { iso } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import { type TokenState, tokenState } from './expiry.ts';
import { hashToken, isOver, type KeptUsers, type Proof, type StoredUser, UserSnapshot } from './user-snapshot.ts';

export type { KeptUsers, StoredUser };

/**
 * Port: where users live; several holders may share them. Every method is atomic, and what it changed is durable when its promise
 * resolves. test/conformance/user-store.ts is its contract.
 */
export interface UserStore {
  load(): Promise<KeptUsers>;
  /** False where the name is there already: nothing is changed then. */
  add(row: StoredUser): Promise<boolean>;
  /** Puts this row in place of the one of that name. False where there is none: nothing is changed then. */
  replace(row: StoredUser): Promise<boolean>;
  /** False where there is no such user. That there was one stays known. */
  remove(name: string): Promise<boolean>;
  /** When users were last seen, ISO 8601 by name; those that never were are left out. */
  lastUses(): Promise<ReadonlyMap<string, string>>;
  /** Keeps the later of two times; names that are gone are passed over. Nobody is told by `watch`. */
  noteUses(times: ReadonlyMap<string, string>): Promise<void>;
  /** Calls `listener` after another holder's change; it may also be called after one's own. The function returned ends that. */
  watch(listener: () => void): () => void;
}

/** A user as operators see it; times in ISO 8601. */
export interface UserInfo {
  readonly name: string;
  readonly createdAt: string;
  /** When its present token was made. */
  readonly issuedAt: string;
  readonly expiresAt: string | null;
  /** To the minute. */
  readonly lastUsedAt: string | null;
  readonly state: TokenState;
  /** Until when the token before this one works; null where none does. */
  readonly previousUntil: string | null;
}

/** A token that was just made: it is here and nowhere else. */
export type NewToken = Pick<UserInfo, 'name' | 'createdAt' | 'issuedAt' | 'expiresAt' | 'previousUntil'> & {
  readonly token: string;
};

/** RFC 7617 forbids the colon; the rest keeps names readable in logs and shells. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/;
const TOKEN_BYTES = 32;
/** Scanners for leaked secrets recognise a token by it. */
const TOKEN_PREFIX = 'rgw_';
/** The unit of last uses, ms: within one, a user that is seen again costs nothing. */
const MINUTE = 60_000;
/** How often last uses are stored, ms. A process that is killed loses those since then. */
const FLUSH_EVERY = 5 * MINUTE;

/**
 * The clients that may log in. Tokens are generated here, shown once, and kept as hashes only. Reading and verifying look at a snapshot;
 * other holders' changes arrive through the store's `watch`.
 */
export class Users {
  readonly #store: UserStore;
  readonly #log: Pick<Logger, 'error' | 'warn'>;
  /** One change or reload at a time, so that a reload never brings back what a change has just replaced. */
  readonly #mutex = new Mutex();
  readonly #reloader: Reloader;
  readonly #unwatch: () => void;
  readonly #timer: NodeJS.Timeout;
  #snapshot = new UserSnapshot({ users: [], everAdded: false });
  /** When users were last seen here, in whole minutes since 1970. */
  readonly #seen = new Map<string, number>();
  /** Those of `#seen` that are not stored. */
  #unstored = new Set<string>();

  private constructor(store: UserStore, log: Pick<Logger, 'error' | 'warn'>) {
    this.#store = store;
    this.#log = log;
    this.#reloader = new Reloader(
      () => this.#mutex.run(() => this.#load()),
      (error) => log.error({ err: error }, 'the users could not be read again after a change; it is tried again'),
    );
    this.#unwatch = store.watch(this.#reloader.request);
    this.#timer = setInterval(() => void this.#storeUses(), FLUSH_EVERY).unref();
  }

  static async open(store: UserStore, log: Pick<Logger, 'error' | 'warn'>): Promise<Users> {
    const users = new Users(store, log);
    try {
      await users.#mutex.run(() => users.#load());
    } catch (error) {
      await users.close();
      throw error;
    }
    return users;
  }

  /** Stops following the store, once the last uses are stored. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#unwatch();
    await this.#storeUses();
    await this.#reloader.close();
  }

  /** As they are now; another object after each change. */
  snapshot(): UserSnapshot {
    return this.#snapshot;
  }

  get count(): number {
    return this.#snapshot.count;
  }

  get everAdded(): boolean {
    return this.#snapshot.everAdded;
  }

  /** As `UserSnapshot.verify`. */
  verify(authorization: string, now?: number): Proof | null {
    return this.#snapshot.verify(authorization, now);
  }

  /** This user has just been let in; cheap enough for every request. */
  used(name: string, now = Date.now()): void {
    const minute = Math.floor(now / MINUTE);
    if (this.#seen.get(name) === minute || !this.#snapshot.rows.has(name)) return;
    this.#seen.set(name, minute);
    this.#unstored.add(name);
  }

  /** Sorted by name. */
  async list(now = Date.now()): Promise<UserInfo[]> {
    const stored = await this.#store.lastUses();
    return [...this.#snapshot.rows.values()]
      .map((row) => ({
        ...shown(row, now),
        lastUsedAt: later(stored.get(row.name) ?? null, this.#seen.get(row.name)),
        state: tokenState(row, now),
      }))
      .sort((one, other) => (one.name < other.name ? -1 : 1));
  }

  /**
   * Makes a user; the token is in the result and nowhere else.
   * @throws {OperatorError} usage `USER_INVALID`; `USER_EXISTS`
   */
  async add(name: string, expiresAt: string | null = null, now = Date.now()): Promise<NewToken> {
    if (!NAME.test(name)) {
      throw new OperatorError('USER_INVALID', `the user name "${name.slice(0, 100)}" is not valid`, {
        next: 'use up to 64 letters, digits and . _ @ -, starting with a letter or digit',
      });
    }
    const token = newToken();
    const row = {
      name,
      tokenHash: hashToken(token),
      createdAt: iso(now),
      issuedAt: iso(now),
      expiresAt,
      previous: null,
    };
    return this.#mutex.run(async () => {
      if (!(await this.#store.add(row))) {
        throw new OperatorError('USER_EXISTS', `there is a user ${name} already`, {
          next: `for a new token: gateway user rotate ${name}`,
        });
      }
      this.#put(row);
      return { ...shown(row, now), token };
    });
  }

  /**
   * A new token in place of the old one, which works for `grace` ms more, or no longer. The new one expires as `expiresAt` says; where that is
   * left out, it lives as long as the old one was made for.
   * @throws {OperatorError} `USER_UNKNOWN`
   */
  rotate(
    name: string,
    options: { grace?: number; expiresAt?: string | null } = {},
    now = Date.now(),
  ): Promise<NewToken> {
    return this.#mutex.run(async () => {
      const old = this.#snapshot.rows.get(name);
      if (old === undefined) throw this.#unknown(name);
      const token = newToken();
      const { grace = 0, expiresAt = sameLife(old, now) } = options;
      const row: StoredUser = {
        name,
        tokenHash: hashToken(token),
        createdAt: old.createdAt,
        issuedAt: iso(now),
        expiresAt,
        previous: previousOf(old, grace, now),
      };
      if (!(await this.#store.replace(row))) throw this.#unknown(name);
      this.#put(row);
      return { ...shown(row, now), token };
    });
  }

  /** When it resolves, the user's token is refused. @throws {OperatorError} `USER_UNKNOWN` */
  remove(name: string): Promise<void> {
    return this.#mutex.run(async () => {
      if (!(await this.#store.remove(name))) throw this.#unknown(name);
      const users = [...this.#snapshot.rows.values()].filter((row) => row.name !== name);
      this.#snapshot = new UserSnapshot({ users, everAdded: true });
      this.#seen.delete(name);
      this.#unstored.delete(name);
    });
  }

  #put(row: StoredUser): void {
    const users = new Map(this.#snapshot.rows).set(row.name, row).values();
    this.#snapshot = new UserSnapshot({ users, everAdded: true });
  }

  #unknown(name: string): OperatorError {
    const near = didYouMean(name, this.#snapshot.rows.keys());
    return new OperatorError('USER_UNKNOWN', `there is no user ${name.slice(0, 100)}`, {
      next: near === undefined ? 'list them with: gateway user ls' : `did you mean ${near}?`,
    });
  }

  async #load(): Promise<void> {
    this.#snapshot = new UserSnapshot(await this.#store.load());
    for (const name of this.#seen.keys()) if (!this.#snapshot.rows.has(name)) this.#seen.delete(name);
  }

  async #storeUses(): Promise<void> {
    if (this.#unstored.size === 0) return;
    const names = this.#unstored;
    this.#unstored = new Set();
    const times = new Map<string, string>();
    for (const name of names) {
      const at = later(null, this.#seen.get(name));
      if (at !== null) times.set(name, at);
    }
    try {
      await this.#store.noteUses(times);
    } catch (error) {
      for (const name of names) this.#unstored.add(name);
      this.#log.warn({ err: error }, 'when users were last seen could not be stored; it is tried again');
    }
  }
}

function newToken(): string {
  return TOKEN_PREFIX + randomBytes(TOKEN_BYTES).toString('base64url');
}

function shown(row: StoredUser, now: number): Omit<UserInfo, 'lastUsedAt' | 'state'> {
  const { name, createdAt, issuedAt, expiresAt, previous } = row;
  const previousUntil = previous === null || isOver(previous.until, now) ? null : previous.until;
  return { name, createdAt, issuedAt, expiresAt, previousUntil };
}

/** The later of a stored time and of a minute in which the user was seen here. */
function later(stored: string | null, minute: number | undefined): string | null {
  const seen = minute === undefined ? null : iso(minute * MINUTE);
  return stored === null || (seen !== null && seen > stored) ? seen : stored;
}

/** When a token expires that lives as long as this one was made for; null where it was made for ever. */
function sameLife({ issuedAt, expiresAt }: StoredUser, now: number): string | null {
  return expiresAt === null ? null : iso(now + Date.parse(expiresAt) - Date.parse(issuedAt));
}

/** The old token keeps its own end where that comes first; one that has expired is not revived. */
function previousOf(old: StoredUser, grace: number, now: number): StoredUser['previous'] {
  const until = Math.min(now + grace, old.expiresAt === null ? Number.POSITIVE_INFINITY : Date.parse(old.expiresAt));
  return until <= now ? null : { tokenHash: old.tokenHash, until: iso(until) };
}
