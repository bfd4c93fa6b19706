import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { Mutex, Reloader } from '../kit/async.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Logger } from '../telemetry/log.ts';

/** A client's credentials as they are kept. */
export interface StoredUser {
  readonly name: string;
  /** SHA-256 of the token, 32 bytes. */
  readonly tokenHash: Uint8Array;
  /** ISO 8601. */
  readonly createdAt: string;
}

/**
 * Port: where users live; several holders may share them. Every method is atomic, and what it changed is durable when its promise
 * resolves. test/conformance/user-store.ts is its contract.
 */
export interface UserStore {
  load(): Promise<readonly StoredUser[]>;
  /** False where the name is there already: nothing is changed then. */
  add(row: StoredUser): Promise<boolean>;
  /** False where there is no such user. */
  remove(name: string): Promise<boolean>;
  /** Calls `listener` after another holder's change; it may also be called after one's own. The function returned ends that. */
  watch(listener: () => void): () => void;
}

/** RFC 7617 forbids the colon; the rest keeps names readable in logs and shells. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/;
/** 256 random bits cannot be guessed, so a plain SHA-256 without salt or stretching is enough; it costs a request about a microsecond. */
const TOKEN_BYTES = 32;
/** Scanners for leaked secrets recognise a token by it. */
const TOKEN_PREFIX = 'rgw_';
/** Compared with the given token where the name is unknown, so that the time does not reveal which names exist. */
const UNKNOWN_HASH = new Uint8Array(32);

/** The users at one moment, immutable. */
export class UserSnapshot {
  /** By name. */
  readonly rows: ReadonlyMap<string, StoredUser>;

  constructor(rows: Iterable<StoredUser>) {
    this.rows = new Map([...rows].map((row) => [row.name, row]));
  }

  get count(): number {
    return this.rows.size;
  }

  /** The user that an `Authorization: Basic` header proves; null for anything else. */
  verify(authorization: string): string | null {
    const given = parseBasic(authorization);
    if (given === null) return null;
    const row = this.rows.get(given.name);
    const matches = timingSafeEqual(hash(given.token), row?.tokenHash ?? UNKNOWN_HASH);
    return matches && row !== undefined ? row.name : null;
  }
}

/**
 * The clients that may log in. Tokens are generated here, shown once, and kept as hashes only. Reading and verifying look at a snapshot;
 * other holders' changes arrive through the store's `watch`.
 */
export class Users {
  readonly #store: UserStore;
  /** One change or reload at a time, so that a reload never brings back what a change has just replaced. */
  readonly #mutex = new Mutex();
  readonly #reloader: Reloader;
  readonly #unwatch: () => void;
  #snapshot = new UserSnapshot([]);

  private constructor(store: UserStore, log: Pick<Logger, 'error'>) {
    this.#store = store;
    this.#reloader = new Reloader(
      () => this.#mutex.run(() => this.#load()),
      (error) => log.error({ err: error }, 'the users could not be read again after a change; it is tried again'),
    );
    this.#unwatch = store.watch(this.#reloader.request);
  }

  static async open(store: UserStore, log: Pick<Logger, 'error'>): Promise<Users> {
    const users = new Users(store, log);
    try {
      await users.#mutex.run(() => users.#load());
    } catch (error) {
      await users.close();
      throw error;
    }
    return users;
  }

  /** Stops following the store. */
  close(): Promise<void> {
    this.#unwatch();
    return this.#reloader.close();
  }

  get count(): number {
    return this.#snapshot.count;
  }

  /** As they are kept; another map after each change. */
  rows(): ReadonlyMap<string, StoredUser> {
    return this.#snapshot.rows;
  }

  /** As `UserSnapshot.verify`. */
  verify(authorization: string): string | null {
    return this.#snapshot.verify(authorization);
  }

  /** Sorted by name. */
  list(): { name: string; createdAt: string }[] {
    return [...this.#snapshot.rows.values()]
      .map(({ name, createdAt }) => ({ name, createdAt }))
      .sort((one, other) => (one.name < other.name ? -1 : 1));
  }

  /**
   * Makes a user; the token is in the result and nowhere else.
   * @throws {OperatorError} usage `USER_INVALID`; `USER_EXISTS`
   */
  async add(name: string, now = new Date()): Promise<{ name: string; token: string; createdAt: string }> {
    if (!NAME.test(name)) {
      throw new OperatorError('USER_INVALID', `the user name "${name.slice(0, 100)}" is not valid`, {
        next: 'use up to 64 letters, digits and . _ @ -, starting with a letter or digit',
      });
    }
    const token = TOKEN_PREFIX + randomBytes(TOKEN_BYTES).toString('base64url');
    const row: StoredUser = { name, tokenHash: hash(token), createdAt: now.toISOString() };
    return this.#mutex.run(async () => {
      if (!(await this.#store.add(row))) {
        throw new OperatorError('USER_EXISTS', `there is a user ${name} already`, {
          next: `for a new token, remove it first: gateway user rm ${name}`,
        });
      }
      this.#snapshot = new UserSnapshot([...this.#snapshot.rows.values(), row]);
      return { name, token, createdAt: row.createdAt };
    });
  }

  /** When it resolves, the user's token is refused. @throws {OperatorError} `USER_UNKNOWN` */
  remove(name: string): Promise<void> {
    return this.#mutex.run(async () => {
      if (!(await this.#store.remove(name))) {
        throw new OperatorError('USER_UNKNOWN', `there is no user ${name.slice(0, 100)}`, {
          next: 'list them with: gateway user ls',
        });
      }
      this.#snapshot = new UserSnapshot([...this.#snapshot.rows.values()].filter((row) => row.name !== name));
    });
  }

  async #load(): Promise<void> {
    this.#snapshot = new UserSnapshot(await this.#store.load());
  }
}

/** RFC 7617 §2: everything after the first colon is the password. */
function parseBasic(authorization: string): { name: string; token: string } | null {
  const encoded = /^basic +([A-Za-z0-9+/_=-]+) *$/i.exec(authorization)?.[1];
  if (encoded === undefined) return null;
  const decoded = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  return colon < 0 ? null : { name: decoded.slice(0, colon), token: decoded.slice(colon + 1) };
}

function hash(token: string): Uint8Array {
  return createHash('sha256').update(token, 'utf8').digest();
}
