import { Askers } from './askers.ts';
import { LeastFirst } from './least-first.ts';

/** Returns a permit; may be called more than once. */
export type Release = () => void;

/** Who holds a permit that may be asked back before it is returned. */
export interface PermitHolder {
  /** Bytes per second that it brings, for the choice of who rests. */
  pace(): number;
  /**
   * Asks for the permit: the holder stops what it does and returns the permit soon; called once at most. What can be taken up again
   * queues for another one, with `patient`; all else ends.
   */
  rest(): void;
}

export interface AcquireOptions extends Partial<PermitHolder> {
  /** Who asks for it; left out where nobody does. */
  readonly askers?: Askers | undefined;
  /** What of the group is asked for: the items of one asker share evenly. */
  readonly item?: string;
  /** Waits without a limit: somebody has a part of the outcome already, and a refusal would break it off. */
  readonly patient?: boolean;
  /** A permit was asked back from it: this one it keeps for a while, so that it gets on however often others have a better claim. */
  readonly rested?: boolean;
}

export interface PoolLimits {
  readonly permits: number;
  /** The most for one group, however many lie idle: so that another one need not wait before a holder has been asked to rest. */
  readonly perGroup: number;
  /** The most for one asker in a group. */
  readonly perAsker: number;
  /** The most for one item of a group, whoever asks for it. */
  readonly perItem: number;
  /** For how long a permit is not asked back for the sake of whoever has less than a fair share, ms. */
  readonly safeFor: number;
  /** For how long a permit is not asked back where nobody has more than a fair share and others wait, ms. */
  readonly turn: number;
}

export interface FairPoolOptions {
  readonly limits: PoolLimits;
  /** The longest wait for a permit, ms. */
  readonly maxWait: number;
  /** Why whoever waited too long gets none. `own`: the group itself holds some. */
  readonly refusal: (group: string, own: boolean) => Error;
}

/** Whoever rested keeps the next permit at least so long, ms: it has to connect again, and has no pace yet that would speak for it. */
const AFTER_REST_MS = 2_000;
/** How often it is looked whether a holder is to rest, while somebody waits, ms. */
const PRESS_MS = 250;
/**
 * What several clients ask for goes before what fewer do that have as good a claim: each doubling of their number counts as if they had waited so much
 * longer, ms …
 */
const DOUBLING_MS = 2_000;
/** … up to so many. Half of the wait after which clients are refused: whoever is alone has its turn, however much is asked for by many. */
const MOST_DOUBLINGS = 4;

interface Permit {
  /** The shares that it is a part of: the pool's, its group's, its asker's and its item's. */
  readonly path: readonly Share[];
  readonly since: number;
  readonly pace: () => number;
  readonly rest: () => void;
  /** For how long it is safe from those who have less than their share, ms. */
  readonly safeFor: number;
  asked: boolean;
}

interface Waiter {
  readonly grant: (line: Share) => void;
  /** How many ask for it. */
  readonly askers: () => number;
}

/** An item of a group, whoever asks for it. */
interface Item {
  readonly key: string;
  inUse: number;
  /** How many askers have a line for it. */
  lines: number;
  /** Lines that wait until the item has fewer permits. */
  readonly blocked: Set<Share>;
}

/** What a group, one of its askers, or one of that asker's items has of the pool. The last is a line, in which waiters stand. */
class Share {
  readonly key: string;
  readonly limit: number;
  /** From the pool's share down to this one. */
  readonly path: readonly Share[];
  readonly item: Item | null;
  readonly children = new Map<string, Share>();
  /** The children that can be granted a permit. */
  readonly turns = new LeastFirst<Share>();
  /** Those that may be asked to rest, in the order in which they came. */
  readonly holders = new Set<Permit>();
  readonly queue = new LeastFirst<Waiter>();
  inUse = 0;
  /** Of its holders, those that were asked to rest and have not returned their permits yet. */
  asked = 0;
  waiting = 0;

  constructor(key: string, limit: number, parent: Share | null, item: Item | null = null) {
    this.key = key;
    this.limit = limit;
    this.path = parent === null ? [this] : [...parent.path, this];
    this.item = item;
  }

  get parent(): Share | undefined {
    return this.path.at(-2);
  }

  /** Of whoever waits in it and is granted the next permit, ms. */
  get headStart(): number {
    return this.queue.size > 0 ? this.queue.headStart : this.turns.headStart;
  }

  get isFull(): boolean {
    return this.inUse >= this.limit;
  }

  /** What it has once those who were asked have returned theirs. */
  get remaining(): number {
    return this.inUse - this.asked;
  }
}

/**
 * A counting semaphore that groups share evenly, within a group those who ask, and of each of them the items asked for: a permit goes to whoever
 * waits and has the fewest, in turns among equals, where what many ask for has a head start. What lies idle is lent to anyone; where others wait
 * meanwhile, holders are asked to rest, the slowest first, of those that are most over their share.
 */
export class FairPool {
  readonly #options: FairPoolOptions;
  readonly #pool: Share;
  readonly #items = new Map<string, Item>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: FairPoolOptions) {
    this.#options = options;
    this.#pool = new Share('', options.limits.permits, null);
  }

  get inUse(): number {
    return this.#pool.inUse;
  }

  get waiting(): number {
    return this.#pool.waiting;
  }

  /** Resolves when a permit is granted; rejects with the signal's reason, or the refusal, where that comes first. */
  acquire(group: string, signal: AbortSignal, options: AcquireOptions): Promise<Release> {
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    const { askers = new Askers(), item = '' } = options;
    const names = askers.names.size === 0 ? [''] : [...askers.names];
    for (const asker of names) {
      const line = this.#line(group, asker, item);
      // Whoever waits already goes first: it has fewer permits, or came before.
      const free = line.queue.size === 0 && !isCrowded(line, this.#options.limits) && !line.path.some((s) => s.isFull);
      if (free) return Promise.resolve(this.#take(line, options));
      this.#forget(line);
    }
    return new Promise((resolve, reject) => {
      const lines = new Set<Share>();
      const share = this.#line(group, names[0] ?? '', item).path[1] as Share;
      let timer: NodeJS.Timeout | undefined;
      const waiter: Waiter = {
        askers: () => askers.names.size,
        grant: (line) => {
          const release = this.#take(line, options);
          leave();
          resolve(release);
        },
      };
      const join = (asker: string): void => {
        const line = this.#line(group, asker, item);
        lines.add(line);
        this.#enqueue(line, waiter);
      };
      let headStart = headStartOf(waiter);
      const moveUp = (): void => {
        if (headStartOf(waiter) === headStart) return;
        headStart = headStartOf(waiter);
        for (const line of lines) {
          line.queue.set(waiter, 0, headStart);
          place(line);
        }
      };
      const leave = (): void => {
        clearTimeout(timer);
        stopJoining();
        signal.removeEventListener('abort', onAbort);
        this.#countWaiting(share, -1);
        for (const line of lines) this.#dequeue(line, waiter);
      };
      const giveUp = (error: Error): void => {
        leave();
        this.#grantAll();
        reject(error);
      };
      const onAbort = (): void => giveUp(signal.reason as Error);
      const stopJoining = askers.onJoin((asker) => {
        join(asker);
        moveUp();
        this.#grantAll();
        this.#press();
      });
      if (options.patient !== true) {
        const { maxWait, refusal } = this.#options;
        timer = setTimeout(() => giveUp(refusal(group, share.inUse > 0)), maxWait);
      }
      signal.addEventListener('abort', onAbort, { once: true });
      this.#countWaiting(share, 1);
      for (const asker of names) join(asker);
      this.#grantAll();
      this.#press();
    });
  }

  /** The line of an asker for an item. */
  #line(group: string, asker: string, item: string): Share {
    const { perGroup, perAsker } = this.#options.limits;
    const ofGroup = child(this.#pool, group, perGroup);
    const ofAsker = child(ofGroup, asker, perAsker);
    const line = ofAsker.children.get(item);
    if (line !== undefined) return line;
    const key = JSON.stringify([group, item]);
    const shared = this.#items.get(key) ?? { key, inUse: 0, lines: 0, blocked: new Set<Share>() };
    this.#items.set(key, shared);
    shared.lines++;
    return child(ofAsker, item, Number.POSITIVE_INFINITY, shared);
  }

  #countWaiting(group: Share, change: 1 | -1): void {
    group.waiting += change;
    this.#pool.waiting += change;
    if (this.#pool.waiting === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    } else this.#timer ??= setInterval(() => this.#press(), PRESS_MS).unref();
  }

  #enqueue(line: Share, waiter: Waiter): void {
    line.queue.set(waiter, 0, headStartOf(waiter));
    for (const share of line.path.slice(2)) share.waiting++;
    place(line);
  }

  #dequeue(line: Share, waiter: Waiter): void {
    line.queue.set(waiter, null);
    for (const share of line.path.slice(2)) share.waiting--;
    // It took part, and leaves: another one may in its place.
    if (line.queue.size === 0 && line.item?.blocked.delete(line) === false) this.#unblock(line.item);
    place(line);
    this.#forget(line);
  }

  #take(line: Share, { pace, rest, rested = false }: AcquireOptions): Release {
    const { safeFor, turn } = this.#options.limits;
    const { path } = line;
    const permit: Permit = {
      path,
      since: performance.now(),
      pace: pace ?? (() => 0),
      rest: rest ?? (() => {}),
      safeFor: rested ? Math.max(safeFor, Math.min(turn, AFTER_REST_MS)) : safeFor,
      asked: false,
    };
    for (const share of path) {
      share.inUse++;
      if (rest !== undefined) share.holders.add(permit);
    }
    if (line.item !== null) line.item.inUse++;
    place(line);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      for (const share of path) {
        share.inUse--;
        share.holders.delete(permit);
        if (permit.asked) share.asked--;
      }
      if (line.item !== null) {
        line.item.inUse--;
        this.#unblock(line.item);
      }
      place(line);
      this.#grantAll();
      this.#forget(line);
    };
  }

  /** Grants what can be granted. */
  #grantAll(): void {
    while (!this.#pool.isFull) {
      const line = this.#pool.turns.first()?.turns.first()?.turns.first();
      if (line === undefined) return;
      if (isCrowded(line, this.#options.limits)) {
        line.item?.blocked.add(line);
        place(line);
      } else line.queue.first()?.grant(line);
    }
  }

  /** An item may have fewer permits than before: a line of it takes part again. One whose asker has enough cannot use what became free. */
  #unblock(item: Item): void {
    for (const line of item.blocked) {
      if (item.inUse >= this.#options.limits.perItem) return;
      item.blocked.delete(line);
      place(line);
      if (line.parent?.isFull === false) return;
    }
  }

  #forget(line: Share): void {
    for (const share of line.path.slice(1).reverse()) {
      if (share.inUse > 0 || share.children.size > 0 || share.queue.size > 0) return;
      if (share.parent?.children.get(share.key) !== share) return;
      share.parent.children.delete(share.key);
      const { item } = share;
      if (item !== null && --item.lines === 0) this.#items.delete(item.key);
    }
  }

  /** Asks holders to rest, as many as others wait that have a better claim. */
  #press(): void {
    const { permits } = this.#options.limits;
    this.#pressIn(this.#pool, permits, performance.now(), this.#pool.isFull);
  }

  /** @param allotment what the children of a share have in all. `divides`: none of them gets more before another has less */
  #pressIn(share: Share, allotment: number, now: number, divides: boolean): void {
    const each = Math.max(1, Math.floor(allotment / share.children.size));
    if (divides) this.#divide(share, each, now);
    const depth = share.path.length;
    for (const part of new Set([...share.holders].map(({ path }) => path[depth] as Share))) {
      if (part.waiting === 0) continue;
      // Below its share it waits for what others return; else those of its own take turns.
      if (part.inUse < each && share.turns.has(part)) continue;
      if (part.item === null) this.#pressIn(part, Math.max(1, part.remaining), now, true);
      else while (part.asked < part.waiting && this.#askOne(part, now, () => this.#options.limits.turn));
    }
  }

  /** For those that have less than `each`, which is a fair share, asks those that have more. */
  #divide(share: Share, each: number, now: number): void {
    const depth = share.path.length;
    const { permits, turn } = this.#options.limits;
    let wanted = -share.asked;
    let empty = false;
    for (const part of share.children.values()) {
      const claim = Math.min(each, part.limit);
      if (part.inUse < claim) wanted += Math.min(part.waiting, claim - part.inUse);
      empty ||= part.waiting > 0 && part.inUse === 0;
      if (empty && wanted >= permits) break;
    }
    for (; wanted > 0; wanted--) {
      const isOver = ({ path }: Permit): boolean => (path[depth]?.remaining ?? 0) > each;
      const over = [...share.holders].some(isOver);
      // With more of them than permits, those without one take turns with those that have one.
      if (!over && !empty) return;
      const safe = over ? (permit: Permit) => (isOver(permit) ? permit.safeFor : Infinity) : () => turn;
      if (!this.#askOne(share, now, safe)) return;
    }
  }

  /**
   * Asks the slowest of the part that has most, of those that have had their permits for as long as they are safe; false where there is none.
   * @param safe for how long a permit may not be asked back, ms
   */
  #askOne(share: Share, now: number, safe: (permit: Permit) => number): boolean {
    const depth = share.path.length;
    let chosen: Permit | undefined;
    let chosenPace = 0;
    for (const permit of share.holders) {
      if (permit.asked || now - permit.since < safe(permit)) continue;
      const more = chosen === undefined ? 1 : compare(permit, chosen, depth);
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
    for (const part of chosen.path) part.asked++;
    // Not from within: it may return its permit at once, or acquire another one.
    queueMicrotask(chosen.rest);
    return true;
  }
}

function child(parent: Share, key: string, limit: number, item: Item | null = null): Share {
  let share = parent.children.get(key);
  if (share === undefined) {
    share = new Share(key, limit, parent, item);
    parent.children.set(key, share);
  }
  return share;
}

/** Finds the place of a line among those that wait, after a change of what it holds or waits for. */
function place(line: Share): void {
  let waits = line.queue.size > 0 && line.item?.blocked.has(line) !== true;
  for (let share = line; share.parent !== undefined; share = share.parent) {
    // Not between groups: a registry that many clients ask has no better claim than one that few do.
    const headStart = share.parent.parent === undefined ? 0 : share.headStart;
    share.parent.turns.set(share, waits && !share.isFull ? share.inUse : null, headStart);
    waits = share.parent.turns.first() !== undefined;
  }
}

/** For how long it counts as having waited before, ms. */
function headStartOf({ askers }: Waiter): number {
  return DOUBLING_MS * Math.min(MOST_DOUBLINGS, Math.floor(Math.log2(Math.max(1, askers()))));
}

/** Whether its item has all that one may have. */
function isCrowded({ item }: Share, { perItem }: PoolLimits): boolean {
  return item !== null && item.inUse >= perItem;
}

/** Which of two permits is a part of what has more: first of the whole parts, then of their parts. */
function compare(one: Permit, other: Permit, depth: number): number {
  for (let at = depth; at < one.path.length; at++) {
    const more = (one.path[at]?.remaining ?? 0) - (other.path[at]?.remaining ?? 0);
    if (more !== 0) return more;
  }
  return 0;
}
