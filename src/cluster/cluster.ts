import type { AddressInfo } from 'node:net';
import type { Locks } from '../kit/locks.ts';
import type { Digest } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { FleetFetch, type FleetLimits } from './fleet-fetch.ts';
import type { NodeIdentity, TrustedNodes } from './identity.ts';
import type { Nodes } from './nodes.ts';
import { PeerClient, type PeerLimits } from './peer-client.ts';
import { type BlobGiver, PeerServer } from './peer-server.ts';
import { ownerOf } from './rendezvous.ts';

/** How long a node that is ending keeps the leases of what it fetched for others that read slowly what it has of it, ms … */
const CATCH_UP_MS = 5_000;
/** … and how long it gives to their end blobs of which it has all, ms: with the rest of its end less than what service managers wait (90 s). */
const FINISH_MS = 15_000;

export interface ClusterOptions {
  readonly nodes: Nodes;
  readonly locks: Locks;
  /** As it is now: it is replaced before its certificate ends, and stands among the trusted ones then. */
  readonly identity: () => NodeIdentity;
  readonly trusted: TrustedNodes;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly limits?: Partial<FleetLimits>;
  readonly peerLimits?: Partial<PeerLimits>;
}

/** This node among those that share its state: what it fetches together with them, and what it gives them. */
export class Cluster {
  /** Downloads that the fleet does together; see `SharedDownloads` of the proxy core. */
  readonly downloads: FleetFetch;
  readonly #options: ClusterOptions;
  readonly #peers: PeerClient;
  #server: PeerServer | null = null;

  constructor(options: ClusterOptions) {
    const { identity, trusted, nodes, locks, log, metrics, limits, peerLimits } = options;
    this.#options = options;
    this.#peers = new PeerClient(identity, trusted, peerLimits);
    this.downloads = new FleetFetch({
      nodes,
      locks,
      peers: this.#peers,
      log,
      metrics,
      ...(limits === undefined ? {} : { limits }),
    });
  }

  /** Whether this node is to keep a digest, as things are now: it is the one whose it is, or nobody knows of one. */
  owns(digest: Digest): boolean {
    const { nodes } = this.#options;
    const owner = ownerOf(nodes.live(), digest);
    return owner === null || owner.id === nodes.self.id;
  }

  /** Gives to the other nodes from now on. Resolves to the address that was bound. @throws the system's error where it cannot be had */
  async serve(
    listen: { readonly host: string | undefined; readonly port: number },
    giver: BlobGiver,
  ): Promise<AddressInfo> {
    const { identity, trusted, log, metrics } = this.#options;
    this.#server = await PeerServer.start({
      listen,
      identity,
      trusted,
      giver,
      may: (request) => this.downloads.may(request),
      bid: (key) => this.downloads.bid(key, giver.keeps(key.digest)),
      log,
      metrics,
    });
    return this.#server.address;
  }

  /** Tells the others that this node is ending: they ask it for nothing new. What is under way goes on. */
  async drain(): Promise<void> {
    this.downloads.drain();
    await this.#options.nodes.drain();
  }

  /** Lets the others go on with what this node fetches, and gives nothing more. */
  async close(): Promise<void> {
    const server = this.#server;
    await this.downloads.handOver(async () => server?.caughtUp(CATCH_UP_MS));
    // Blobs that had come whole before: whoever lost them in the middle would fetch the rest of them from their registries.
    await server?.caughtUp(FINISH_MS);
    await server?.close();
    this.#peers.close();
  }
}
