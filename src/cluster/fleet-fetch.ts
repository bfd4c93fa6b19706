import { LRUCache } from 'lru-cache';
import type { Askers } from '../kit/askers.ts';
import type { Locks } from '../kit/locks.ts';
import { sleep } from '../kit/time.ts';
import type { RegistryError } from '../oci/errors.ts';
import type { BlobKey } from '../oci/names.ts';
import type { BlobSink } from '../oci/transfer.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { BlobLeases } from './blob-leases.ts';
import type { Node, Nodes } from './nodes.ts';
import { type PeerClient, PeerError } from './peer-client.ts';
import {
  type BlobRequest,
  decodeFailure,
  encodeFailure,
  type GrowingKey,
  growingId,
  isOfRegistry,
  mayBeOfLink,
  type SentBid,
} from './peer-protocol.ts';
import type { Giving } from './peer-server.ts';
import { PeerTransfer } from './peer-transfer.ts';
import { placeAmong, rankedFor } from './rendezvous.ts';
import { TrackedSink } from './tracked-sink.ts';

export interface FleetLimits {
  /** How long a lease outlives a leader that vanished, ms: readers wait as long, and each transfer renews it some times in that. */
  readonly lease: number;
  /** For how long a node that could not be reached is not asked first again, ms. */
  readonly avoid: number;
  /** … and one whose link to a registry failed, for that registry. */
  readonly avoidLink: number;
  /** How often those who wait for a leader look again, ms. */
  readonly look: number;
}

const FLEET_LIMITS: FleetLimits = { lease: 5_000, avoid: 5_000, avoidLink: 30_000, look: 200 };

/**
 * Blobs that are known to be no larger, bytes, and parts of blobs (lazy pulls): their owner fetches them without a lease, which would cost the database
 * two transactions. Only where nodes see different fleets, for some seconds after one has joined or left, may two of them fetch the same.
 */
const NO_LEASE_BELOW = 64 * 1024;
/**
 * So many others, the best claims first, are asked whether they keep a blob before its registry is: in a large fleet it is one of them that brought it while its
 * owner was away.
 */
const MAY_KEEP = 8;
/** Failures remembered, for those who ask how it went on. */
const MAX_FAILURES = 1_000;
const FAILURE_TTL = 5_000;
const MAX_AVOIDED = 10_000;

/** One download that the fleet does together; see `SharedDownload` of the proxy core. */
export interface FleetDownload {
  readonly key: BlobKey & GrowingKey;
  readonly askers: Askers;
  readonly forNode: boolean;
  readonly known: boolean;
  readonly fromRegistry: (sink: BlobSink, signal: AbortSignal) => Promise<void>;
  readonly through: (repository: string | null) => void;
}

export interface FleetFetchOptions {
  readonly nodes: Nodes;
  readonly locks: Locks;
  readonly peers: PeerClient;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly limits?: Partial<FleetLimits>;
}

/** A download of this node under way. */
interface Running {
  readonly key: BlobKey & GrowingKey;
  readonly sink: TrackedSink;
  /** It fetches from the registry itself. */
  leads: boolean;
  /** It would go on in a leader's place. */
  competes: boolean;
  /** Ends what is fetched from the registry. */
  readonly handOver: AbortController;
}

interface Failure {
  readonly repository: string;
  readonly error: RegistryError;
}

/** Among what is avoided: to wait for leases of others. */
const ISOLATED = 'leases';

/** Why a leader stops that is ending: the others go on. */
const HANDED_OVER = new Error('this node is ending, and another one goes on');

/**
 * Fetches each blob once for all nodes. The node whose digest it is (rendezvous hashing) fetches it from the registry, under a lease for that registry and
 * digest, and is the *leader*; any other reads from it what it has or is just bringing, and keeps it. In two steps, neither of which can go round in a circle:
 *
 * 1. A node asks only those whose claim to the digest is better than its own to fetch it, and a node that was asked asks nobody in this way.
 * 2. Whoever is to fetch it itself, finds the lease taken, or lost its leader, reads only from nodes that fetch from the registry themselves, or keep the
 *    whole. The first asked is the one next in order, whose the digest was before this node joined.
 *
 * Where the leader has gone, those that read from it compete: each asks the others what they hold, and the one that holds most takes the lease as
 * soon as it is free and goes on from there. Where the database cannot be asked, there is no lease, and each fetches what it cannot get from others.
 */
export class FleetFetch {
  readonly #options: FleetFetchOptions;
  readonly #limits: FleetLimits;
  readonly #leases: BlobLeases;
  readonly #running = new Map<string, Running>();
  /** What registries answered to this node a moment ago. */
  readonly #failures = new LRUCache<string, Failure>({ max: MAX_FAILURES, ttl: FAILURE_TTL });
  /** Nodes not to be asked for now, by id, or by id and registry. */
  readonly #avoided = new LRUCache<string, true>({ max: MAX_AVOIDED });
  readonly #received;
  readonly #takeovers;
  #ending = false;
  /** Resolves when the others have what this node has for them. */
  #handingOver: Promise<void> = Promise.resolve();

  constructor(options: FleetFetchOptions) {
    const { nodes, locks, metrics, limits } = options;
    this.#options = options;
    this.#limits = { ...FLEET_LIMITS, ...limits };
    this.#leases = new BlobLeases(locks, nodes.self.id, this.#limits.lease);
    this.#received = metrics.counter('cluster_received_bytes_total', 'Bytes of blobs that came from other nodes');
    this.#takeovers = metrics.counter(
      'cluster_takeovers_total',
      'Blobs on which this node went on in the place of one that had gone',
    );
  }

  /** @throws {RegistryError} the registry's own, whichever node it was told */
  async fetch(download: FleetDownload, inner: BlobSink, signal: AbortSignal): Promise<void> {
    const { key } = download;
    const id = growingId(key);
    const sink = new TrackedSink(inner);
    const running: Running = { key, sink, leads: false, competes: false, handOver: new AbortController() };
    this.#running.set(id, running);
    try {
      let found = download.forNode ? 'none' : await this.#followOwner(download, running, signal);
      if (found === 'none') found = await this.#askNext(download, running, signal);
      if (found === 'none' && !this.#needsNoLease(sink)) found = await this.#askKeepers(download, running, signal);
      if (found !== 'done') await this.#leadOrFollow(download, running, found === 'broken', signal);
    } catch (error) {
      // The sink's own failure is no source's.
      if (sink.failure !== null) throw sink.failure.error;
      throw error;
    } finally {
      if (this.#running.get(id) === running) this.#running.delete(id);
    }
  }

  /** What this node says to those who look for one that keeps the blob, or would go on in a leader's place. `kept`: it has all of it. */
  bid(key: GrowingKey, kept: boolean): SentBid {
    const id = growingId(key);
    const running = this.#running.get(id);
    const failure = this.#failures.get(id);
    return {
      node: this.#options.nodes.self.id,
      held: running?.sink.bytes ?? 0,
      competes: running?.competes === true && !this.#ending,
      leads: running?.leads === true,
      kept,
      failure: failure === undefined ? null : { repository: failure.repository, ...encodeFailure(failure.error) },
    };
  }

  /** Whether this node fetches the blob from its registry just now. */
  #leads(key: GrowingKey): boolean {
    return this.#running.get(growingId(key))?.leads === true;
  }

  /** What another node that asks for this may be given. */
  may({ key, begin }: BlobRequest): Giving {
    const mayBegin = begin && !this.#ending;
    return { begin: mayBegin, growing: mayBegin || this.#leads(key) };
  }

  /** From now on nothing is begun for other nodes; what is under way goes on. */
  drain(): void {
    this.#ending = true;
  }

  /**
   * Ends what is fetched from registries, whose leases are free then, so that others can go on at once.
   * @param caughtUp resolves when the others have what this node has of it
   */
  async handOver(caughtUp: () => Promise<void>): Promise<void> {
    this.#ending = true;
    const led = [...this.#running.values()].filter(({ leads }) => leads);
    if (led.length === 0) return;
    this.#handingOver = caughtUp();
    for (const { handOver } of led) handOver.abort(HANDED_OVER);
    await this.#handingOver;
  }

  /** Asks the nodes whose claim is better than this one's, the best first. */
  async #followOwner(
    download: FleetDownload,
    running: Running,
    signal: AbortSignal,
  ): Promise<'done' | 'none' | 'broken'> {
    const { nodes } = this.#options;
    const { key } = download;
    for (const node of rankedFor(nodes.live(), key.digest)) {
      if (node.id === nodes.self.id) break;
      if (this.#isAvoided(node, key)) continue;
      const outcome = await this.#readFrom(node, true, download, running, signal);
      if (outcome !== 'none') return outcome;
    }
    return 'none';
  }

  /** Asks the node that is next in order behind this one what it keeps. */
  async #askNext(download: FleetDownload, running: Running, signal: AbortSignal): Promise<'done' | 'none' | 'broken'> {
    const { nodes } = this.#options;
    const ranked = rankedFor(nodes.live(), download.key.digest);
    const own = ranked.findIndex(({ id }) => id === nodes.self.id);
    const next = own === -1 ? undefined : ranked[own + 1];
    if (next === undefined || this.#isAvoided(next, download.key)) return 'none';
    return this.#readFrom(next, false, download, running, signal);
  }

  /** Asks those that keep it all the same: it was brought while this node, or whose the digest is, was away. */
  async #askKeepers(
    download: FleetDownload,
    running: Running,
    signal: AbortSignal,
  ): Promise<'done' | 'none' | 'broken'> {
    const { nodes, peers } = this.#options;
    const { key } = download;
    const others = rankedFor(nodes.live(), key.digest).filter(
      (node) => node.id !== nodes.self.id && node.address !== null && !this.#isAvoided(node, key),
    );
    const asked = others.slice(0, MAY_KEEP);
    const answers = await Promise.allSettled(asked.map((node) => peers.bid(node, key)));
    signal.throwIfAborted();
    for (const [index, node] of asked.entries()) {
      const answer = answers[index];
      if (answer?.status === 'rejected') this.#avoid(node.id, this.#limits.avoid);
      if (answer?.status !== 'fulfilled' || !answer.value.kept) continue;
      const outcome = await this.#readFrom(node, false, download, running, signal);
      if (outcome !== 'none') return outcome;
    }
    return 'none';
  }

  #isAvoided({ id }: Node, { registry }: GrowingKey): boolean {
    return this.#avoided.has(id) || this.#avoided.has(`${id} ${registry}`);
  }

  /**
   * @returns `none` where the node gave nothing, `broken` where what it gave broke off
   * @throws {RegistryError} what the registry answered it
   */
  async #readFrom(
    node: Node,
    begin: boolean,
    download: FleetDownload,
    { sink }: Running,
    signal: AbortSignal,
  ): Promise<'done' | 'none' | 'broken'> {
    const { peers, log } = this.#options;
    const { key, askers, known, through } = download;
    const [client = ''] = askers.names;
    let begun = false;
    const transfer = new PeerTransfer(sink, {
      peers,
      node,
      request: { key, client, begin, known },
      begun: (blob) => {
        begun = true;
        through(blob.through);
        sink.from({ node: node.id, counts: blob.counts });
      },
      received: (bytes) => this.#received.inc(bytes),
    });
    try {
      await transfer.run(signal);
      return 'done';
    } catch (error) {
      signal.throwIfAborted();
      if (sink.failure !== null) throw error;
      if (isOfRegistry(error)) {
        // Another node's link may be better, the next time.
        if (mayBeOfLink(error)) this.#avoid(`${node.id} ${key.registry}`, this.#limits.avoidLink);
        throw error;
      }
      if (!(error instanceof PeerError)) throw error;
      log.debug({ from: node.id, digest: key.digest, reason: error.message }, 'another node did not give a blob');
      if (error.reason === 'unreachable') this.#avoid(node.id, this.#limits.avoid);
      return begun ? 'broken' : 'none';
    } finally {
      sink.from(null);
    }
  }

  #avoid(what: string, ttl: number): void {
    this.#avoided.set(what, true, { ttl });
  }

  /**
   * Becomes the leader where nobody is; else follows whoever is.
   * @param broken a leader has gone in the middle
   */
  async #leadOrFollow(download: FleetDownload, running: Running, broken: boolean, signal: AbortSignal): Promise<void> {
    const { look } = this.#limits;
    const { key } = download;
    const { sink } = running;
    let [competing, since] = [broken, performance.now()];
    for (;;) {
      signal.throwIfAborted();
      if (this.#needsNoLease(sink)) return this.#lead(download, running, signal);
      running.competes = true;
      const late = performance.now() - since > this.#patience();
      if (competing && !late) {
        const outcome = await this.#compete(download, running, signal);
        if (outcome === 'done') return;
        if (outcome === 'wait') {
          await sleep(look, signal);
          continue;
        }
      }
      const lease = late ? 'away' : await this.#leases.take(key);
      if (late) this.#avoid(ISOLATED, this.#limits.avoidLink);
      if (lease === 'away') return this.#lead(download, running, signal);
      if (typeof lease !== 'string') {
        if (competing && sink.bytes > 0) this.#tookOver(download, sink);
        const outcome = await this.#leadUnder(lease, download, running, signal);
        if (outcome === 'done') return;
      } else {
        const holder = this.#nodeOf(lease);
        const outcome = holder === null ? 'none' : await this.#readFrom(holder, false, download, running, signal);
        if (outcome === 'done') return;
        if (outcome === 'broken') since = performance.now();
        else await sleep(look, signal);
      }
      competing = true;
    }
  }

  /**
   * How long a lease that another has is waited for, where it cannot be read from, ms: longer than a leader that vanished could keep it. Where that was in
   * vain a moment ago, the ways between the nodes are cut, and not the one to the database.
   */
  #patience(): number {
    return this.#avoided.has(ISOLATED) ? this.#limits.look : 2 * this.#limits.lease;
  }

  #needsNoLease({ wishes, expectedSize, size = expectedSize }: TrackedSink): boolean {
    return wishes?.whole === false || (size !== undefined && size <= NO_LEASE_BELOW);
  }

  /** Hears what the others have. @throws {RegistryError} what the registry answered to a leader that failed */
  async #compete(download: FleetDownload, running: Running, signal: AbortSignal): Promise<'done' | 'wait' | 'first'> {
    const { nodes, peers } = this.#options;
    const { key } = download;
    const others = nodes.live().filter(({ id, address }) => id !== nodes.self.id && address !== null);
    const answers = await Promise.allSettled(others.map((node) => peers.bid(node, key)));
    signal.throwIfAborted();
    const bids = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
    for (const { node: id, kept, leads } of bids) {
      const node = kept || leads ? this.#nodeOf(id) : null;
      if (node === null) continue;
      const outcome = await this.#readFrom(node, false, download, running, signal);
      if (outcome === 'done') return 'done';
    }
    for (const { failure } of bids) if (failure?.repository === key.repository) throw decodeFailure(failure);
    const own = { node: nodes.self.id, held: running.sink.bytes, competes: true };
    return placeAmong(own, bids, key.digest) === 0 ? 'first' : 'wait';
  }

  #tookOver({ key }: FleetDownload, sink: TrackedSink): void {
    this.#takeovers.inc();
    this.#options.log.info(
      { registry: key.registry, digest: key.digest, held: sink.bytes },
      'this node goes on with a blob in the place of one that has gone',
    );
  }

  /** @returns `lost` where another node has the lease now */
  async #leadUnder(
    lease: { readonly lost: AbortSignal; release(): Promise<void> },
    download: FleetDownload,
    running: Running,
    signal: AbortSignal,
  ): Promise<'done' | 'lost'> {
    const taken = new AbortController();
    const onLost = (): void => {
      // With the database away nobody else can have taken it.
      void this.#leases.isAnothers(download.key).then((is) => {
        if (is) taken.abort(new Error('another node has the lease'));
      });
    };
    lease.lost.addEventListener('abort', onLost, { once: true });
    try {
      await this.#lead(download, running, AbortSignal.any([signal, taken.signal]));
      return 'done';
    } catch (error) {
      signal.throwIfAborted();
      if (taken.signal.aborted && running.sink.failure === null) return 'lost';
      throw error;
    } finally {
      lease.lost.removeEventListener('abort', onLost);
      await lease.release();
    }
  }

  async #lead(download: FleetDownload, running: Running, signal: AbortSignal): Promise<void> {
    const { handOver, sink } = running;
    running.leads = true;
    running.competes = false;
    this.#failures.delete(growingId(download.key));
    try {
      await download.fromRegistry(sink, AbortSignal.any([signal, handOver.signal]));
    } catch (error) {
      const { repository } = download.key;
      if (isOfRegistry(error)) this.#failures.set(growingId(download.key), { repository, error });
      // Whoever reads from here reads on until then; the lease is free right after.
      if (handOver.signal.aborted) await this.#handingOver;
      throw error;
    } finally {
      running.leads = false;
    }
  }

  /** A live node that others reach; null for any other, this one among them. */
  #nodeOf(id: string): Node | null {
    const { nodes } = this.#options;
    if (id === nodes.self.id) return null;
    return nodes.live().find((node) => node.id === id && node.address !== null) ?? null;
  }
}
