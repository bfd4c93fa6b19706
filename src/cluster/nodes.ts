/** One gateway of a fleet, as the others know it. */
export interface Node {
  /** Of its data directory: 16 random hex digits. */
  readonly id: string;
  /** Where other nodes reach it, `host:port`: its `cluster.address`. Null for one that others do not reach. */
  readonly address: string | null;
  readonly version: string;
  /** It is ending: it finishes what it does, and nothing new is given to it. */
  readonly draining: boolean;
}

/** Those that have not taken a change into use within the time that a command waits for them. */
export interface Laggards {
  readonly nodes: readonly Node[];
}

/**
 * Port: the gateways that share one state, and which of its changes each has taken into use. A node is live while its heartbeat comes, by
 * the clock that all share. src/postgres/nodes.ts is the implementation for a fleet, `SingleNode` that of one machine;
 * test/conformance/nodes.ts is the contract.
 */
export interface Nodes {
  readonly self: Node;
  /** All that live, this one among them, by id. What the last heartbeat saw: another object after each change, none is waited for. */
  live(): readonly Node[];
  /** Calls `listener` after the live nodes have changed. The function returned ends that. */
  watch(listener: () => void): () => void;
  /**
   * Resolves once every live node serves by the state as it was when this was called, with those that do not after a bound of some seconds.
   * Never rejects for a fleet that cannot be asked: nobody is known to serve by it then, and all others are laggards.
   */
  settled(signal?: AbortSignal): Promise<Laggards>;
  /** Says to the others that this node is ending. */
  drain(): Promise<void>;
  close(): Promise<void>;
}

/** The only node there is. */
export class SingleNode implements Nodes {
  readonly self: Node;
  readonly #live: readonly Node[];

  constructor(self: Node) {
    this.self = self;
    this.#live = [self];
  }

  live(): readonly Node[] {
    return this.#live;
  }

  watch(): () => void {
    return () => {};
  }

  async settled(): Promise<Laggards> {
    return { nodes: [] };
  }

  async drain(): Promise<void> {}

  async close(): Promise<void> {}
}
