import { RegistryError } from '../oci/errors.ts';

/**
 * What a connection is used for, each with a pool of its own, so that no kind of work waits for another kind:
 * - `document`: what is small and read at once: manifests, lists, tokens, HEADs;
 * - `fill`: a download that is kept, which comes at its upstream's pace; one permit for the whole of it;
 * - `passing`: a body that is not kept, which comes at its client's pace;
 * - `segment`: an additional connection of a fill, which only makes it faster.
 */
export type Purpose = 'document' | 'fill' | 'passing' | 'segment';

export const PURPOSES: readonly Purpose[] = ['document', 'fill', 'passing', 'segment'];

/** Returns a permit; may be called more than once. */
export type Release = () => void;

/** Who holds a permit that may be asked back before it is returned. */
export interface PermitHolder {
  /** Bytes per second that it brings, for the choice of who rests. */
  pace(): number;
  /**
   * Asks for the permit: the holder stops what it does and returns the permit soon; called once at most. A fill queues for another one, with
   * `patient`; what cannot be taken up again ends.
   */
  rest(): void;
}

export interface AcquireOptions extends Partial<PermitHolder> {
  /** The part of the registry that shares evenly with its other parts: a repository. */
  readonly group?: string;
  /** Waits without a limit: a client has a part of the answer already, and a refusal would break it off. */
  readonly patient?: boolean;
}

export interface PoolLimits {
  readonly permits: number;
  /** The most for one registry, however many lie idle: so that another one need not wait before a holder has been asked to rest. */
  readonly perRegistry: number;
  /** The most for one group of a registry. */
  readonly perGroup: number;
  /** For how long a permit is not asked back for the sake of a registry that has less than its share, ms. */
  readonly safeFor: number;
  /** For how long a permit is not asked back where nobody has more than a fair share and others wait, ms. */
  readonly turn: number;
}

/** The longest wait for a permit, ms: clients wait 30 s for headers, and the request itself takes its time too. */
export const MAX_WAIT_MS = 15_000;
/** When a client that was refused is to come back, seconds: within this time every holder has had its turn. */
const BUSY_RETRY_S = 5;
/** How often it is looked whether a holder is to rest, while somebody waits, ms. */
const PRESS_MS = 250;

/** In words, what a pool is busy with. */
const WORK: Readonly<Record<Purpose, string>> = {
  document: 'requests',
  fill: 'downloads',
  passing: 'downloads that are not kept',
  segment: 'downloads',
};

/** @param what what the gateway is busy with, in words */
export function busyError(what: string): RegistryError {
  return new RegistryError('gatewayBusy', { facts: { what, seconds: BUSY_RETRY_S }, retryAfter: BUSY_RETRY_S });
}

/** Permits for connections to registries, by purpose. */
export class Pools {
  readonly #pools: Readonly<Record<Purpose, FairPool>>;

  constructor(limits: Readonly<Record<Purpose, PoolLimits>>, maxWait: number) {
    const pool = (purpose: Purpose): FairPool => new FairPool(limits[purpose], WORK[purpose], maxWait);
    this.#pools = {
      document: pool('document'),
      fill: pool('fill'),
      passing: pool('passing'),
      segment: pool('segment'),
    };
  }

  /**
   * Resolves when a permit is granted; rejects with the signal's reason where that comes first.
   * @param registry the row of the table: all hosts of a pattern are one registry here
   * @throws {RegistryError} gatewayBusy, where none became free in time
   */
  acquire(purpose: Purpose, registry: string, signal: AbortSignal, options: AcquireOptions = {}): Promise<Release> {
    return this.#pools[purpose].acquire(registry, signal, options);
  }

  inUse(purpose: Purpose): number {
    return this.#pools[purpose].inUse;
  }

  waiting(purpose: Purpose): number {
    return this.#pools[purpose].waiting;
  }
}

interface Permit {
  readonly registry: RegistryShare;
  readonly group: GroupShare;
  readonly since: number;
  readonly pace: () => number;
  readonly rest: () => void;
  asked: boolean;
}

interface Waiter {
  readonly grant: () => void;
}

interface GroupShare {
  readonly key: string;
  inUse: number;
  /** Of its holders, those that were asked to rest and have not returned their permits yet. */
  asked: number;
  readonly queue: Set<Waiter>;
}

interface RegistryShare {
  readonly key: string;
  inUse: number;
  asked: number;
  waiting: number;
  readonly groups: Map<string, GroupShare>;
  /** The groups that can be granted a permit. */
  readonly turns: LeastFirst<GroupShare>;
  /** Those that may be asked to rest, in the order in which they came. */
  readonly holders: Set<Permit>;
}

/**
 * A counting semaphore that registries share evenly, and within a registry its groups: a permit goes to whoever waits and has the fewest, in
 * turns among equals. What lies idle is lent to anyone; where others wait meanwhile, holders are asked to rest, the slowest first, those of the
 * registry that is most over its share.
 */
export class FairPool {
  readonly #limits: PoolLimits;
  readonly #work: string;
  readonly #maxWait: number;
  readonly #registries = new Map<string, RegistryShare>();
  /** The registries that can be granted a permit as soon as there is one. */
  readonly #turns = new LeastFirst<RegistryShare>();
  #inUse = 0;
  #waiting = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(limits: PoolLimits, work: string, maxWait: number) {
    this.#limits = limits;
    this.#work = work;
    this.#maxWait = maxWait;
  }

  get inUse(): number {
    return this.#inUse;
  }

  get waiting(): number {
    return this.#waiting;
  }

  acquire(key: string, signal: AbortSignal, options: AcquireOptions): Promise<Release> {
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    const registry = this.#registry(key);
    const group = groupOf(registry, options.group ?? '');
    // Whoever waits already goes first: it has fewer permits, or came before.
    const free = this.#inUse < this.#limits.permits && registry.inUse < this.#limits.perRegistry;
    if (free && group.inUse < this.#limits.perGroup && group.queue.size === 0) {
      return Promise.resolve(this.#take(registry, group, options));
    }
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      const waiter: Waiter = {
        grant: () => {
          leave();
          resolve(this.#take(registry, group, options));
        },
      };
      const leave = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        this.#count(registry, group, waiter, -1);
      };
      const onAbort = (): void => {
        leave();
        this.#settle(registry, group);
        reject(signal.reason as Error);
      };
      if (options.patient !== true) {
        timer = setTimeout(() => {
          leave();
          const error = this.#busy(registry);
          this.#settle(registry, group);
          reject(error);
        }, this.#maxWait);
      }
      signal.addEventListener('abort', onAbort, { once: true });
      this.#count(registry, group, waiter, 1);
      this.#settle(registry, group);
      this.#press();
    });
  }

  #registry(key: string): RegistryShare {
    let registry = this.#registries.get(key);
    if (registry === undefined) {
      registry = {
        key,
        inUse: 0,
        asked: 0,
        waiting: 0,
        groups: new Map(),
        turns: new LeastFirst(),
        holders: new Set(),
      };
      this.#registries.set(key, registry);
    }
    return registry;
  }

  #count(registry: RegistryShare, group: GroupShare, waiter: Waiter, change: 1 | -1): void {
    if (change === 1) group.queue.add(waiter);
    else group.queue.delete(waiter);
    registry.waiting += change;
    this.#waiting += change;
    if (this.#waiting === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    } else this.#timer ??= setInterval(() => this.#press(), PRESS_MS).unref();
  }

  #take(registry: RegistryShare, group: GroupShare, { pace, rest }: AcquireOptions): Release {
    const permit = {
      registry,
      group,
      since: performance.now(),
      pace: pace ?? (() => 0),
      rest: rest ?? (() => {}),
      asked: false,
    };
    this.#inUse++;
    registry.inUse++;
    group.inUse++;
    if (rest !== undefined) registry.holders.add(permit);
    this.#place(registry, group);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#inUse--;
      registry.inUse--;
      group.inUse--;
      registry.holders.delete(permit);
      if (permit.asked) {
        registry.asked--;
        group.asked--;
      }
      this.#settle(registry, group);
    };
  }

  /** What a registry or one of its groups holds or waits for has changed: finds its place among those that wait, and grants what can be granted. */
  #settle(registry: RegistryShare, group: GroupShare): void {
    this.#place(registry, group);
    while (this.#inUse < this.#limits.permits) {
      const first = this.#turns.first()?.turns.first()?.queue.values().next().value;
      if (first === undefined) break;
      first.grant();
    }
    if (group.inUse === 0 && group.queue.size === 0) registry.groups.delete(group.key);
    if (registry.groups.size === 0) this.#registries.delete(registry.key);
  }

  #place(registry: RegistryShare, group: GroupShare): void {
    const { perGroup, perRegistry } = this.#limits;
    registry.turns.set(group, group.queue.size > 0 && group.inUse < perGroup ? group.inUse : null);
    const mayHave = registry.inUse < perRegistry && registry.turns.first() !== undefined;
    this.#turns.set(registry, mayHave ? registry.inUse : null);
  }

  /** Asks holders to rest, as many as others wait that have a better claim. */
  #press(): void {
    const now = performance.now();
    const share = Math.max(1, Math.floor(this.#limits.permits / this.#registries.size));
    if (this.#inUse >= this.#limits.permits) this.#pressForOthers(now, share);
    for (const registry of this.#registries.values()) {
      // Below its share it waits for what others return; else its own holders take turns with those who wait.
      if (registry.waiting === 0 || registry.inUse < Math.min(share, this.#limits.perRegistry)) {
        if (!isHeldUpByAGroup(registry, this.#limits)) continue;
      }
      while (registry.asked < registry.waiting && askSlowest(registry, now - this.#limits.turn));
    }
  }

  #pressForOthers(now: number, share: number): void {
    let wanted = 0;
    let empty = false;
    for (const { waiting, inUse, asked } of this.#registries.values()) {
      if (inUse < share) wanted += Math.min(waiting, share - inUse);
      wanted -= asked;
      empty ||= waiting > 0 && inUse === 0;
    }
    for (; wanted > 0; wanted--) {
      let most: RegistryShare | undefined;
      for (const registry of this.#registries.values()) {
        if (most === undefined || registry.inUse - registry.asked > most.inUse - most.asked) most = registry;
      }
      if (most === undefined) return;
      const over = most.inUse - most.asked > share;
      // With more registries than permits, those without one take turns with those that have one.
      if (!over && !empty) return;
      if (!askSlowest(most, now - (over ? this.#limits.safeFor : this.#limits.turn))) return;
    }
  }

  #busy(registry: RegistryShare): RegistryError {
    const own = registry.inUse > 0;
    return busyError(`${this.#work} from ${own ? registry.key : 'other registries'}`);
  }
}

function groupOf(registry: RegistryShare, key: string): GroupShare {
  let group = registry.groups.get(key);
  if (group === undefined) {
    group = { key, inUse: 0, asked: 0, queue: new Set() };
    registry.groups.set(key, group);
  }
  return group;
}

/** Whether those who wait do so because their groups have all that a group may have. */
function isHeldUpByAGroup(registry: RegistryShare, { perGroup }: PoolLimits): boolean {
  if (registry.waiting === 0 || registry.turns.first() !== undefined) return false;
  for (const { inUse, queue } of registry.groups.values()) if (queue.size > 0 && inUse >= perGroup) return true;
  return false;
}

/** Asks the slowest of the group that has most, of those that have their permit since `before` or longer; false where there is none. */
function askSlowest(registry: RegistryShare, before: number): boolean {
  let chosen: Permit | undefined;
  let chosenPace = 0;
  for (const permit of registry.holders) {
    if (permit.asked || permit.since > before) continue;
    const more = chosen === undefined ? 1 : effective(permit.group) - effective(chosen.group);
    if (more < 0) continue;
    const pace = permit.pace();
    // Among equally slow ones the one that came first.
    if (more > 0 || pace < chosenPace) {
      chosen = permit;
      chosenPace = pace;
    }
  }
  if (chosen === undefined) return false;
  chosen.asked = true;
  chosen.registry.asked++;
  chosen.group.asked++;
  // Not from within: it may return its permit at once, or acquire another one.
  queueMicrotask(chosen.rest);
  return true;
}

function effective({ inUse, asked }: GroupShare): number {
  return inUse - asked;
}

/** Things with a level, the lowest first, in turns among those of one level. Every step takes the same time, however many there are. */
class LeastFirst<T> {
  readonly #levels: (Set<T> | undefined)[] = [];
  readonly #levelOf = new Map<T, number>();

  /** Puts a thing behind all others of its level, or takes it out. */
  set(thing: T, level: number | null): void {
    const before = this.#levelOf.get(thing);
    if (before === level) return;
    if (before !== undefined) this.#levels[before]?.delete(thing);
    if (level === null) {
      this.#levelOf.delete(thing);
      return;
    }
    this.#levelOf.set(thing, level);
    const things = this.#levels[level];
    if (things === undefined) this.#levels[level] = new Set([thing]);
    else things.add(thing);
  }

  first(): T | undefined {
    // Levels are numbers of permits: there are no more of them than permits.
    for (const things of this.#levels) if (things !== undefined && things.size > 0) return things.values().next().value;
    return undefined;
  }
}
