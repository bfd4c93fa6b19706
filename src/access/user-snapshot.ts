import { createHash, timingSafeEqual } from 'node:crypto';

/** A client's credentials as they are kept. Times are ISO 8601. */
export interface StoredUser {
  readonly name: string;
  /** SHA-256 of the token, 32 bytes. */
  readonly tokenHash: Uint8Array;
  readonly createdAt: string;
  /** When the token was made. */
  readonly issuedAt: string;
  /** From when on the token is refused; null: never. */
  readonly expiresAt: string | null;
  /** The token before, while it may still be used. */
  readonly previous: { readonly tokenHash: Uint8Array; readonly until: string } | null;
}

/** What an `Authorization` header proves: a user, or one whose token was right once. */
export type Proof =
  | { readonly kind: 'user'; readonly name: string }
  | { readonly kind: 'expired'; readonly name: string; readonly expiredAt: string };

/** All users as they are kept. */
export interface KeptUsers {
  readonly users: readonly StoredUser[];
  /** There is a user, or was one. */
  readonly everAdded: boolean;
}

/** Compared with the given token where the name is unknown, so that the time does not reveal which names exist. */
const UNKNOWN_HASH = new Uint8Array(32);

/** The users at one moment, immutable. */
export class UserSnapshot {
  /** By name. */
  readonly rows: ReadonlyMap<string, StoredUser>;
  /** There is a user, or was one: without either, the gateway is open unless the configuration closes it. */
  readonly everAdded: boolean;

  constructor({ users, everAdded }: { readonly users: Iterable<StoredUser>; readonly everAdded: boolean }) {
    this.rows = new Map([...users].map((row) => [row.name, row]));
    this.everAdded = everAdded || this.rows.size > 0;
  }

  get count(): number {
    return this.rows.size;
  }

  /** Null where an `Authorization: Basic` header (RFC 7617) proves nobody, and for anything else. `now`: ms since 1970, by the machine's clock. */
  verify(authorization: string, now = Date.now()): Proof | null {
    const given = parseBasic(authorization);
    if (given === null) return null;
    const row = this.rows.get(given.name);
    const hash = hashToken(given.token);
    const isPresent = timingSafeEqual(hash, row?.tokenHash ?? UNKNOWN_HASH);
    if (row === undefined) return null;
    const { name, expiresAt, previous } = row;
    if (!isPresent) {
      if (previous === null || !timingSafeEqual(hash, previous.tokenHash)) return null;
      return isOver(previous.until, now) ? null : { kind: 'user', name };
    }
    if (expiresAt !== null && isOver(expiresAt, now)) return { kind: 'expired', name, expiredAt: expiresAt };
    return { kind: 'user', name };
  }
}

/** A token is 256 random bits, so a plain SHA-256 without salt or stretching is enough; it costs a request about a microsecond. */
export function hashToken(token: string): Uint8Array {
  return createHash('sha256').update(token, 'utf8').digest();
}

export function isOver(time: string, now: number): boolean {
  return Date.parse(time) <= now;
}

/** RFC 7617 §2: everything after the first colon is the password. */
function parseBasic(authorization: string): { name: string; token: string } | null {
  const encoded = /^basic +([A-Za-z0-9+/_=-]+) *$/i.exec(authorization)?.[1];
  if (encoded === undefined) return null;
  const decoded = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  return colon < 0 ? null : { name: decoded.slice(0, colon), token: decoded.slice(colon + 1) };
}
