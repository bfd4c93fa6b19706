/**
 * What was seen of a fleet while it was harmed, and the rules by which it is judged. Times are epoch milliseconds of the test's own clock. The
 * checker knows nothing of how the gateways work: only what clients, commands, the registry and the CA saw.
 */
export interface History {
  readonly nodes: readonly string[];
  readonly pulls: readonly Pull[];
  readonly changes: readonly Change[];
  readonly faults: readonly NodeFault[];
  readonly orders: readonly Order[];
  readonly handshakes: readonly Handshake[];
  readonly fetches: readonly Fetched[];
  /** Null where no bytes were limited. */
  readonly quota: Quota | null;
  /** What each node's own commands listed when all was quiet again. */
  readonly final: readonly FinalState[];
}

export interface Pull {
  readonly from: number;
  readonly to: number;
  readonly node: string;
  /** Who asked; null: without credentials. */
  readonly user: string | null;
  readonly what: string;
  /** Whether this client may have it whoever it is: a registry that never gave the content is no way to it. */
  readonly mayHave: boolean;
  /** 0 where no answer came. */
  readonly status: number;
  readonly bytes: number;
  /** Every byte that came is the one that belongs there, and an answer that ended as it should is whole. */
  readonly right: boolean;
}

export interface Change {
  readonly from: number;
  readonly to: number;
  readonly node: string;
  readonly kind: 'alias' | 'user';
  readonly name: string;
  readonly state: 'there' | 'gone';
  /** The command ended with 0. */
  readonly confirmed: boolean;
  /** Nodes that it named as not having taken the change into use. */
  readonly laggards: readonly string[];
}

/** Something was done to a node, or to what it needs. */
export interface NodeFault {
  readonly from: number;
  readonly to: number;
  /** Null: all of them. */
  readonly node: string | null;
  /** `starved`: the machine gave nobody its time, so that what a gateway waits for may come later than it waits. */
  readonly kind: 'kill' | 'pause' | 'database' | 'store' | 'network' | 'starved';
}

export interface Order {
  readonly at: number;
  readonly host: string;
}

export interface Handshake {
  readonly at: number;
  readonly node: string;
  readonly host: string;
  readonly serial: string;
  /** When the CA issued it, as the CA's log has it. */
  readonly issuedAt: number;
  readonly notAfter: number;
}

/** What the registry sent of one blob. */
export interface Fetched {
  readonly digest: string;
  readonly size: number;
  /** Body bytes handed out for it in all. */
  readonly sent: number;
  /** Answers that were broken off: what was on its way of each is lost. */
  readonly brokenOff: number;
  readonly from: number;
  readonly to: number;
  /** Whenever a node was lost: bytes that none of those left had given to a client by then. */
  readonly missingAtTakeOver: readonly number[];
}

export interface Quota {
  readonly limit: number;
  readonly slice: number;
}

export interface FinalState {
  readonly node: string;
  readonly aliases: readonly string[];
  readonly users: readonly string[];
}

export interface Bounds {
  /** How long a certificate lives, ms; it is renewed at half of it, early enough for a clock that is ahead: orders of one host closer than a third are extra. */
  readonly lifetime: number;
  /** How long a lease outlives its holder, ms. */
  readonly lease: number;
  /** Bytes that an answer which is broken off has on its way. */
  readonly onTheWay: number;
  /** A read that begins this long after a fault is over is not excused by it, ms. */
  readonly recovery: number;
}

/** All that is wrong, each in a sentence; empty for a history that keeps to the rules. */
export function violations(history: History, bounds: Bounds): string[] {
  return [
    ...wrongBytes(history),
    ...forbidden(history, bounds),
    ...extraOrders(history, bounds),
    ...staleCertificates(history),
    ...fetchedAgain(history, bounds),
    ...overQuota(history),
    ...lostChanges(history),
  ];
}

function* wrongBytes({ pulls }: History): Iterable<string> {
  for (const pull of pulls) {
    if (!pull.right) yield `${pull.node} gave wrong bytes of ${pull.what} to ${whoOf(pull)} at ${stamp(pull.from)}`;
  }
}

/** Content goes to nobody whose right was ended, or never was, by a change that was confirmed before the pull began. */
function* forbidden({ pulls, changes, faults }: History, { recovery }: Bounds): Iterable<string> {
  for (const pull of pulls) {
    const given = pull.status >= 200 && pull.status < 300 && pull.bytes > 0;
    if (given && !pull.mayHave)
      yield `${pull.node} gave ${pull.what} to ${whoOf(pull)}, who may not have it, at ${stamp(pull.from)}`;
    if (pull.user === null) continue;
    const right = rightOf(pull, pull.user, changes, faults, recovery);
    if (given && right === 'none')
      yield `${pull.node} gave ${pull.what} to ${pull.user}, who was removed, at ${stamp(pull.from)}`;
    if (pull.status === 401 && right === 'certain' && !isExcused(pull, faults, recovery)) {
      yield `${pull.node} refused ${pull.user}, who was added, at ${stamp(pull.from)}`;
    }
  }
}

function rightOf(
  pull: Pull,
  user: string,
  changes: readonly Change[],
  faults: readonly NodeFault[],
  recovery: number,
): 'certain' | 'open' | 'none' {
  const own = changes.filter(({ kind, name, from }) => kind === 'user' && name === user && from < pull.to);
  const last = own.at(-1);
  if (last === undefined) return 'none';
  // A change that runs meanwhile, or failed, decides nothing here.
  if (last.to >= pull.from || !last.confirmed || isBehind(pull, last, faults, recovery)) return 'open';
  return last.state === 'there' ? 'certain' : 'none';
}

/**
 * A node that is cut off from the database serves by what it knew, and the command has named it. One that was only stopped reads what has changed before
 * it serves anybody.
 */
function isBehind(pull: Pull, change: Change, faults: readonly NodeFault[], recovery: number): boolean {
  if (!change.laggards.includes(pull.node)) return false;
  return faults.some(
    ({ kind, node, from, to }) =>
      kind === 'database' &&
      (node === null || node === pull.node) &&
      from <= pull.from &&
      change.from <= to &&
      pull.from <= to + recovery,
  );
}

function isExcused(pull: Pull, faults: readonly NodeFault[], recovery: number): boolean {
  return faults.some(
    ({ kind, node, from, to }) =>
      kind !== 'starved' && (node === null || node === pull.node) && from <= pull.to && pull.from <= to + recovery,
  );
}

/** Each order that comes sooner than a renewal does is explained by a node that was stopped in the middle of the one before, each stop explains one. */
function* extraOrders({ orders, faults }: History, { lifetime, lease }: Bounds): Iterable<string> {
  const stops = faults
    .filter(({ kind }) => kind === 'kill' || kind === 'pause')
    .map((fault) => ({ ...fault, used: new Set<string>() }));
  const lastOf = new Map<string, number>();
  for (const { host, at } of orders.toSorted((a, b) => a.at - b.at)) {
    const before = lastOf.get(host);
    lastOf.set(host, at);
    if (before === undefined || at - before >= lifetime / 3) continue;
    const reason = stops.find(({ from, used }) => !used.has(host) && from >= before - lease && from <= at);
    if (reason === undefined)
      yield `${host} was ordered again at ${stamp(at)}, ${at - before} ms after ${stamp(before)}`;
    else reason.used.add(host);
  }
}

/** What a node shows for a host is never older than what it has shown, nor has it ended. */
function* staleCertificates({ handshakes }: History): Iterable<string> {
  const newest = new Map<string, Handshake>();
  for (const handshake of handshakes.toSorted((a, b) => a.at - b.at)) {
    const { node, host, at, serial, notAfter, issuedAt } = handshake;
    if (notAfter <= at)
      yield `${node} showed a certificate of ${host} at ${stamp(at)} that ended at ${stamp(notAfter)}`;
    const key = `${node} ${host}`;
    const shown = newest.get(key);
    if (shown !== undefined && issuedAt < shown.issuedAt) {
      yield `${node} went back for ${host} from certificate ${shown.serial} to ${serial} at ${stamp(at)}`;
    } else newest.set(key, handshake);
  }
}

/** While nodes cannot find what others hold, or do not hear of it in time, each may fetch for itself. */
const APART: readonly NodeFault['kind'][] = ['database', 'network', 'starved'];

/** The registry sends a blob once, and again only what no node that was left held when one was lost. */
function* fetchedAgain({ fetches, faults, nodes }: History, { recovery, onTheWay }: Bounds): Iterable<string> {
  for (const { digest, size, sent, from, to, missingAtTakeOver, brokenOff } of fetches) {
    const apart = faults.some((fault) => APART.includes(fault.kind) && fault.from <= to && from <= fault.to + recovery);
    const allowed =
      size * (apart ? nodes.length : 1) + missingAtTakeOver.reduce((sum, bytes) => sum + bytes, brokenOff * onTheWay);
    if (sent > allowed)
      yield `the registry sent ${sent} bytes of ${digest}, which has ${size}; ${allowed} were allowed`;
  }
}

function* overQuota({ pulls, quota, nodes }: History): Iterable<string> {
  if (quota === null) return;
  const sent = new Map<string, number>();
  for (const { user, bytes } of pulls) {
    if (user !== null) sent.set(user, (sent.get(user) ?? 0) + bytes);
  }
  const most = quota.limit + quota.slice * nodes.length;
  for (const [user, bytes] of sent) {
    if (bytes > most) yield `${user} was sent ${bytes} bytes of a quota of ${quota.limit}; ${most} were allowed`;
  }
}

/** Where the last change of a name was confirmed, every node has it in the end; where it was not, all agree. */
function* lostChanges({ changes, final }: History): Iterable<string> {
  const names = new Map<string, Change[]>();
  for (const change of changes) {
    const key = `${change.kind} ${change.name}`;
    names.set(key, [...(names.get(key) ?? []), change]);
  }
  for (const [key, own] of names) {
    const last = own.at(-1);
    if (last === undefined) continue;
    const seen = final.map((state) => ({
      node: state.node,
      there: (last.kind === 'alias' ? state.aliases : state.users).includes(last.name),
    }));
    if (new Set(seen.map(({ there }) => there)).size > 1) yield `the nodes do not agree about ${key}`;
    if (!last.confirmed) continue;
    for (const { node, there } of seen) {
      if (there !== (last.state === 'there'))
        yield `${key} is ${there ? 'there' : 'gone'} at ${node}, a confirmed change made it ${last.state}`;
    }
  }
}

function whoOf({ user }: Pull): string {
  return user ?? 'an anonymous client';
}

function stamp(time: number): string {
  return new Date(time).toISOString();
}
