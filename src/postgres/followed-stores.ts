import type { CounterStore } from '../access/counters.ts';
import type { UserStore } from '../access/users.ts';
import type { AliasStore } from '../aliases/store.ts';
import type { Challenges } from '../certs/challenges.ts';
import type { CertStore } from '../certs/store.ts';
import { isAway } from './failures.ts';
import type { KeptParts, KeptState } from './kept-state.ts';
import type { Topic, Uptake } from './uptake.ts';

/** The stores that nodes hold snapshots of. */
export interface FollowedStores {
  readonly aliases: AliasStore;
  readonly users: UserStore;
  readonly certificates: CertStore;
  readonly challenges: Challenges;
  readonly counters: CounterStore;
}

/**
 * The same stores, so that it is known which revision of each this process serves by, and what it serves by is kept on its disk. A process that
 * starts while the database is away loads what was kept, until it has had an answer; from then on a load rejects while it is away, and what is in
 * memory stays.
 */
export function follow(stores: FollowedStores, uptake: Uptake, kept: KeptState): FollowedStores {
  /** What this process has had from the database itself. */
  const read = new Set<string>();

  const load = async <N extends keyof KeptParts>(topic: Topic, part: N, ask: () => Promise<KeptParts[N]>) => {
    try {
      const value = await uptake.load(topic, ask);
      read.add(part);
      kept.put(part, value);
      return value;
    } catch (error) {
      const before = !read.has(part) && isAway(error) ? kept.before(part) : undefined;
      if (before === undefined) throw error;
      return before;
    }
  };
  /** What there is nothing of to go on with, and nothing needed. */
  const loadOrNone = async <T>(name: string, ask: () => Promise<T[]>): Promise<T[]> => {
    try {
      const found = await ask();
      read.add(name);
      return found;
    } catch (error) {
      if (read.has(name) || !isAway(error)) throw error;
      return [];
    }
  };
  const watch = (topic: Topic, store: { watch(listener: () => void): () => void }) => (listener: () => void) =>
    uptake.watch(topic, listener, store.watch(listener));
  /** A change of this process itself. */
  const changing =
    <A extends unknown[], T>(topic: Topic, change: (...args: A) => Promise<T>) =>
    async (...args: A): Promise<T> => {
      const result = await change(...args);
      uptake.changed(topic);
      return result;
    };

  const { aliases, users, certificates, challenges, counters } = stores;
  let lastUses: ReadonlyMap<string, string> = new Map();
  return {
    aliases: {
      load: () => load('aliases', 'aliases', () => aliases.load()),
      apply: changing('aliases', (...args) => aliases.apply(...args)),
      watch: watch('aliases', aliases),
    },
    users: {
      load: () => load('users', 'users', () => users.load()),
      add: changing('users', (...args) => users.add(...args)),
      replace: changing('users', (...args) => users.replace(...args)),
      remove: changing('users', (...args) => users.remove(...args)),
      async lastUses() {
        try {
          lastUses = await users.lastUses();
        } catch (error) {
          // For the operator's eyes alone: the list of users is not to fail for it.
          if (!isAway(error)) throw error;
        }
        return lastUses;
      },
      noteUses: (times) => users.noteUses(times),
      watch: watch('users', users),
    },
    certificates: {
      certificates: async () => [...(await load('certificates', 'certificates', () => certificates.certificates()))],
      records: async () => [...(await load('certificates', 'records', () => certificates.records()))],
      putCertificate: changing('certificates', (...args) => certificates.putCertificate(...args)),
      removeCertificate: changing('certificates', (...args) => certificates.removeCertificate(...args)),
      putRecord: changing('certificates', (...args) => certificates.putRecord(...args)),
      certificate: (...args) => certificates.certificate(...args),
      record: (...args) => certificates.record(...args),
      watch: watch('certificates', certificates),
      events: (...args) => certificates.events(...args),
      addEvent: (...args) => certificates.addEvent(...args),
      account: (...args) => certificates.account(...args),
      putAccount: (...args) => certificates.putAccount(...args),
      order: (...args) => certificates.order(...args),
      putOrder: (...args) => certificates.putOrder(...args),
      removeOrder: (...args) => certificates.removeOrder(...args),
      ledger: (...args) => certificates.ledger(...args),
      addLedger: (...args) => certificates.addLedger(...args),
    },
    challenges: {
      put: changing('challenges', (...args) => challenges.put(...args)),
      remove: changing('challenges', (...args) => challenges.remove(...args)),
      list: (now) => loadOrNone('challenges', () => uptake.load('challenges', () => challenges.list(now))),
      watch: watch('challenges', challenges),
    },
    counters: {
      load: (periods) => loadOrNone('counters', () => counters.load(periods)),
      add: (deltas) => counters.add(deltas),
      keepOnly: (periods) => counters.keepOnly(periods),
      watch: (listener) => counters.watch(listener),
    },
  };
}
