import type { Config } from '../config/config.ts';
import { NetworkList } from '../kit/networks.ts';

/** `access.anonymous`: which clients need no credentials. */
export class AnonymousRule {
  readonly #rule: boolean | NetworkList | null;

  /** Null: everyone, until a first user was ever made. CIDRs are checked already. */
  constructor(anonymous: Config['access']['anonymous']) {
    this.#rule = typeof anonymous === 'object' && anonymous !== null ? new NetworkList(anonymous) : anonymous;
  }

  /** Whether a client at this address may pull without credentials. */
  allows(address: string, users: { readonly everAdded: boolean }): boolean {
    const rule = this.#rule;
    return rule instanceof NetworkList ? rule.contains(address) : (rule ?? !users.everAdded);
  }

  /** Whether the rule lists networks, and this address is in one. */
  names(address: string): boolean {
    return this.#rule instanceof NetworkList && this.#rule.contains(address);
  }

  /** Whether everybody may, from wherever. */
  isOpen(users: { readonly everAdded: boolean }): boolean {
    return this.#rule instanceof NetworkList ? false : (this.#rule ?? !users.everAdded);
  }
}
