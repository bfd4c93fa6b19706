import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { OperatorError } from '../kit/operator-error.ts';

/** A client's credentials as they are kept. */
export interface UserRow {
  readonly name: string;
  /** SHA-256 of the token, 32 bytes. */
  readonly tokenHash: Uint8Array;
  /** ISO 8601. */
  readonly createdAt: string;
}

/** Port: where users live. Every method is durable when it returns. test/conformance/user-store.ts is its contract. */
export interface UserStore {
  load(): UserRow[];
  /** False where the name is there already: nothing is changed then. */
  add(row: UserRow): boolean;
  /** False where there is no such user. */
  remove(name: string): boolean;
}

/** RFC 7617 forbids the colon; the rest keeps names readable in logs and shells. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/;
/** 256 bits: nobody guesses it, so the hash needs no salt and no stretching, and costs a request about a microsecond. */
const TOKEN_BYTES = 32;
/** Lets scanners for leaked secrets recognise a token. */
const TOKEN_PREFIX = 'rgw_';
/** Compared with where the name is unknown, so that both cases take the same time. */
const NOBODY = new Uint8Array(32);

/** The clients that may log in. Tokens are generated here, shown once, and kept as hashes only. */
export class Users {
  readonly #store: UserStore;
  #byName: ReadonlyMap<string, UserRow>;

  constructor(store: UserStore) {
    this.#store = store;
    this.#byName = new Map(store.load().map((row) => [row.name, row]));
  }

  get count(): number {
    return this.#byName.size;
  }

  /** As they are kept; another map after each change. */
  rows(): ReadonlyMap<string, UserRow> {
    return this.#byName;
  }

  /** Sorted by name. */
  list(): { name: string; createdAt: string }[] {
    return [...this.#byName.values()]
      .map(({ name, createdAt }) => ({ name, createdAt }))
      .sort((one, other) => (one.name < other.name ? -1 : 1));
  }

  /**
   * Makes a user; the token is in the result and nowhere else.
   * @throws {OperatorError} usage `USER_INVALID`; `USER_EXISTS`
   */
  add(name: string, now = new Date()): { name: string; token: string; createdAt: string } {
    if (!NAME.test(name)) {
      throw new OperatorError('USER_INVALID', `the user name "${name.slice(0, 100)}" is not valid`, {
        next: 'use up to 64 letters, digits and . _ @ -, starting with a letter or digit',
        usage: true,
      });
    }
    const token = TOKEN_PREFIX + randomBytes(TOKEN_BYTES).toString('base64url');
    const row: UserRow = { name, tokenHash: hash(token), createdAt: now.toISOString() };
    if (!this.#store.add(row)) {
      throw new OperatorError('USER_EXISTS', `there is a user ${name} already`, {
        next: `for a new token, remove it first: gateway user rm ${name}`,
      });
    }
    this.#byName = new Map(this.#byName).set(name, row);
    return { name, token, createdAt: row.createdAt };
  }

  /** From then on its token is refused. @throws {OperatorError} `USER_UNKNOWN` */
  remove(name: string): void {
    if (!this.#store.remove(name)) {
      throw new OperatorError('USER_UNKNOWN', `there is no user ${name.slice(0, 100)}`, {
        next: 'list them with: gateway user ls',
      });
    }
    const rest = new Map(this.#byName);
    rest.delete(name);
    this.#byName = rest;
  }

  /** The user that an `Authorization: Basic` header proves; null for anything else. */
  verify(authorization: string): string | null {
    const given = parseBasic(authorization);
    if (given === null) return null;
    const row = this.#byName.get(given.name);
    const matches = timingSafeEqual(hash(given.token), row?.tokenHash ?? NOBODY);
    return matches && row !== undefined ? row.name : null;
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
