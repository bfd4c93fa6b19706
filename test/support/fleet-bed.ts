import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { selfSigned } from '../../src/certs/x509.ts';
import { Cluster } from '../../src/cluster/cluster.ts';
import type { FleetLimits } from '../../src/cluster/fleet-fetch.ts';
import type { NodeIdentity, TrustedNodes } from '../../src/cluster/identity.ts';
import type { Laggards, Node, Nodes } from '../../src/cluster/nodes.ts';
import type { PeerLimits } from '../../src/cluster/peer-client.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { LockTable, MemoryLocks } from './locks.ts';
import { type BedOptions, RegistryBed } from './registry-bed.ts';

const DAY = 24 * 3_600_000;

/** A key and a certificate that it signed itself. */
export function makeNodeIdentity(id: string): NodeIdentity {
  const now = Date.now();
  const { key, chain } = selfSigned({
    commonName: id,
    names: [],
    notBefore: now - DAY,
    notAfter: now + DAY,
    forClients: true,
  });
  return { id, key, certificate: chain };
}

/** What all nodes of a test share: who lives, whose certificates are believed, and the locks. */
class SharedState implements TrustedNodes {
  readonly nodes = new Map<string, Node>();
  readonly locks = new LockTable();
  readonly #certificates = new Map<string, string>();
  readonly #listeners = new Set<() => void>();

  certificates(): ReadonlyMap<string, string> {
    return new Map(this.#certificates);
  }

  trust({ id, certificate }: NodeIdentity): void {
    this.#certificates.set(id, certificate);
    this.changed();
  }

  distrust(id: string): void {
    this.#certificates.delete(id);
    this.changed();
  }

  put(node: Node): void {
    this.nodes.set(node.id, node);
    this.changed();
  }

  remove(id: string): void {
    this.nodes.delete(id);
    this.changed();
  }

  watch(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** The nodes as one of them sees them; `sees` may leave some out, as for a moment after one has joined. */
class NodesView implements Nodes {
  sees: (node: Node) => boolean = () => true;
  readonly #shared: SharedState;
  readonly #id: string;

  constructor(shared: SharedState, id: string) {
    this.#shared = shared;
    this.#id = id;
  }

  get self(): Node {
    const self = this.#shared.nodes.get(this.#id);
    return self ?? { id: this.#id, address: null, version: '1', draining: false };
  }

  live(): readonly Node[] {
    return [...this.#shared.nodes.values()].filter((node) => node.id === this.#id || this.sees(node));
  }

  watch(listener: () => void): () => void {
    return this.#shared.watch(listener);
  }

  async settled(): Promise<Laggards> {
    return { nodes: [] };
  }

  async drain(): Promise<void> {
    this.#shared.put({ ...this.self, draining: true });
  }

  async close(): Promise<void> {}
}

/** The way to a node, which can be cut as when its machine vanishes: the node itself does not know. */
class Relay {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** From the node to who asks it. */
  readonly #ways = new Map<Socket, Socket>();
  /** Connections that were made by it. */
  made = 0;

  private constructor(to: number) {
    this.#server = createServer((from) => {
      this.made++;
      const towards = connect(to, '127.0.0.1');
      for (const [socket, other] of [
        [from, towards],
        [towards, from],
      ] as const) {
        this.#sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => {
          this.#sockets.delete(socket);
          // After its end the pipe brings the rest, and ends the other.
          if (!socket.readableEnded) other.destroy();
        });
        socket.pipe(other);
      }
      this.#ways.set(towards, from);
      towards.on('close', () => this.#ways.delete(towards));
    });
  }

  static async start(to: number): Promise<Relay> {
    const relay = new Relay(to);
    relay.#server.listen(0, '127.0.0.1');
    await once(relay.#server, 'listening');
    return relay;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** What the node sends waits until the function is called that is returned. */
  hold(): () => void {
    const ways = [...this.#ways];
    for (const [node, other] of ways) node.unpipe(other);
    return () => {
      for (const [node, other] of ways) node.pipe(other);
    };
  }

  cut(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }
}

export interface FleetOptions extends BedOptions {
  readonly limits?: Partial<FleetLimits>;
  readonly peerLimits?: Partial<PeerLimits>;
}

/** One node: the proxy core over its own cache and upstream, in a fleet over real sockets. */
export interface FleetNode {
  readonly id: string;
  readonly bed: RegistryBed;
  readonly cluster: Cluster;
  readonly metrics: Metrics;
  /** Where others reach it, `host:port`. */
  readonly address: string;
  readonly locks: MemoryLocks;
  readonly view: NodesView;
  /** Connections that others have made to it. */
  connections(): number;
  /** What it sends to other nodes waits until the function is called that is returned. */
  hold(): () => void;
  /** No other node reaches it any more; it reaches those that are not cut off. */
  cut(): void;
  /** Gone from one moment to the next: its connections break, its leases are renewed no more. */
  kill(): Promise<void>;
  /** As SIGTERM ends it. */
  stop(): Promise<void>;
}

/** Nodes in one process, each with its own cache, upstream, sockets and keys. */
export class FleetBed {
  readonly shared = new SharedState();
  readonly nodes: FleetNode[] = [];
  readonly #options: FleetOptions;

  private constructor(options: FleetOptions) {
    this.#options = options;
  }

  static async start(count: number, options: FleetOptions): Promise<FleetBed> {
    const bed = new FleetBed(options);
    for (let n = 0; n < count; n++) await bed.join(`node${n}`);
    return bed;
  }

  async join(id: string): Promise<FleetNode> {
    const { limits, peerLimits, ...bedOptions } = this.#options;
    const metrics = new Metrics();
    const identity = makeNodeIdentity(id);
    this.shared.trust(identity);
    const locks = new MemoryLocks(this.shared.locks);
    const view = new NodesView(this.shared, id);
    const cluster = new Cluster({
      nodes: view,
      locks,
      identity: () => identity,
      trusted: this.shared,
      log: silentLog(),
      metrics,
      limits: { lease: 1_000, look: 50, ...limits },
      peerLimits: { connect: 5_000, answer: 5_000, ...peerLimits },
    });
    const bed = await RegistryBed.start({ ...bedOptions, shared: cluster.downloads });
    const { port } = await cluster.serve({ host: '127.0.0.1', port: 0 }, bed.core.forNodes);
    const relay = await Relay.start(port);
    this.shared.put({ id, address: `127.0.0.1:${relay.port}`, version: '1', draining: false });
    let ended = false;
    const end = async (): Promise<void> => {
      if (ended) return;
      ended = true;
      this.shared.remove(id);
      await cluster.close();
      await bed.stop();
      relay.cut();
    };
    const node: FleetNode = {
      id,
      bed,
      cluster,
      metrics,
      address: `127.0.0.1:${relay.port}`,
      locks,
      view,
      connections: () => relay.made,
      hold: () => relay.hold(),
      cut: () => relay.cut(),
      stop: async () => {
        await cluster.drain();
        await end();
      },
      kill: async () => {
        ended = true;
        locks.cutOff();
        relay.cut();
        this.shared.remove(id);
        await bed.stop();
        await cluster.close();
      },
    };
    this.nodes.push(node);
    return node;
  }

  async stop(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.stop()));
  }
}
