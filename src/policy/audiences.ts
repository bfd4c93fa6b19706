import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { ImageRule } from '../config/images.ts';
import { NetworkList } from '../kit/networks.ts';

/** The audience of the gateway's own commands: they have no user and no address, so that rules for users and networks are not for them. No client has it. */
export const OPERATOR_AUDIENCE = 'operator';

/** Clients whose audience is remembered. */
const MAX_CLIENTS = 4_096;

interface Scope {
  readonly users: ReadonlySet<string>;
  /** Null where the rule names none. */
  readonly networks: NetworkList | null;
}

/** Which of the rules hold for somebody. */
export type Holds = (index: number) => boolean;

/**
 * Groups clients by the rules that hold for them. An audience is a short text without spaces, equal for clients that are judged alike: the fingerprint of the
 * rules, and a bit for each kind of client that they name. It is made where a client is known (in the edge, in any process of the gateway) and read where images are judged.
 */
export class Audiences {
  readonly #rules: readonly ImageRule[];
  /** Each kind of client that a rule names, once. */
  readonly #scopes: readonly Scope[];
  /** Of each rule, which of them it is for; −1: for all. */
  readonly #scopeOf: readonly number[];
  readonly #fingerprint: string;
  readonly #known = new LRUCache<string, string>({ max: MAX_CLIENTS });

  constructor(rules: readonly ImageRule[]) {
    const scopes = new Map<string, { readonly at: number; readonly scope: Scope }>();
    this.#rules = rules;
    this.#scopeOf = rules.map(({ users, networks }) => {
      if (users.length === 0 && networks.length === 0) return -1;
      const id = JSON.stringify([[...users].sort(), [...networks].sort()]);
      const known = scopes.get(id);
      if (known !== undefined) return known.at;
      const scope = { users: new Set(users), networks: networks.length === 0 ? null : new NetworkList(networks) };
      scopes.set(id, { at: scopes.size, scope });
      return scopes.size - 1;
    });
    this.#scopes = [...scopes.values()].map(({ scope }) => scope);
    this.#fingerprint = createHash('sha256').update(JSON.stringify(rules)).digest('base64url').slice(0, 16);
  }

  /**
   * The audience of a client; empty where no rule names anybody.
   * @param user null for an anonymous client
   * @param address its IP address, behind any trusted proxies
   */
  of(user: string | null, address: string): string {
    if (this.#scopes.length === 0) return '';
    const client = `${address} ${user ?? ''}`;
    let audience = this.#known.get(client);
    if (audience === undefined) {
      const bits = this.#scopes.map((scope) => (isIn(scope, user, address) ? '1' : '0'));
      audience = `${this.#fingerprint}.${bits.join('')}`;
      this.#known.set(client, audience);
    }
    return audience;
  }

  /**
   * Which rules hold for an audience. One that was made by other rules, in a process that has not heard of these yet, may be anybody's: all
   * that refuses holds for it, and of what allows only what is for all.
   */
  read(audience: string): Holds {
    if (audience === OPERATOR_AUDIENCE) return (index) => this.#scopeOf[index] === -1;
    const [fingerprint, bits = ''] = audience.split('.');
    if (fingerprint !== this.#fingerprint || bits.length !== this.#scopes.length)
      return (index) => this.#scopeOf[index] === -1 || this.#rules[index]?.allows === false;
    return (index) => {
      const scope = this.#scopeOf[index] ?? -1;
      return scope === -1 || bits[scope] === '1';
    };
  }

  /** For whoever may be given the most: all that allows holds, and of what refuses only what is for all. */
  get ofAnybody(): Holds {
    return (index) => this.#scopeOf[index] === -1 || this.#rules[index]?.allows === true;
  }
}

function isIn({ users, networks }: Scope, user: string | null, address: string): boolean {
  if (users.size > 0 && (user === null || !users.has(user))) return false;
  return networks === null || networks.contains(address);
}
