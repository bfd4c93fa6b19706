/** How many connections of a client are open: in one process, or in all others together. */
export interface ClientConnections {
  readonly client: string;
  readonly count: number;
}

/** Below this share of the cap a process counts for itself: together the unreported ones are at most a quarter over the cap. */
const UNREPORTED_SHARE = 1 / 4;

/** What one process knows of the connections that clients have with the others. */
export class ConnectionShare {
  readonly #others = new Map<string, number>();
  readonly #reported = new Set<string>();
  readonly #processes: number;
  #from = 0;
  readonly #report: (own: ClientConnections) => void;

  /**
   * @param cap of one client, in all processes
   * @param processes that serve
   * @param report brings what this process counts to the `ConnectionTotals`
   */
  constructor(cap: number, processes: number, report: (own: ClientConnections) => void) {
    this.#processes = processes;
    this.#report = report;
    this.reconfigure(cap);
  }

  /** Another cap; a client is reported by it from its next connection on. */
  reconfigure(cap: number): void {
    this.#from = Math.floor((cap * UNREPORTED_SHARE) / this.#processes);
  }

  /** Open connections of a client with other processes, as far as they have told. */
  others(client: string): number {
    return this.#others.get(client) ?? 0;
  }

  /** Tells the others how many connections of a client are open here, where they are more than a few. */
  counted(client: string, count: number): void {
    if (count > this.#from) this.#reported.add(client);
    else if (!this.#reported.delete(client)) return;
    this.#report({ client, count: count > this.#from ? count : 0 });
  }

  /** What `ConnectionTotals` says. */
  readonly hear = ({ client, count }: ClientConnections): void => {
    if (count > 0) this.#others.set(client, count);
    else this.#others.delete(client);
  };
}

/** Adds up, at the owner, what the processes report, and tells each what the others have. */
export class ConnectionTotals {
  readonly #members = new Map<object, (others: ClientConnections) => void>();
  readonly #byClient = new Map<string, Map<object, number>>();

  /** @param told is called with what the other processes have of a client, after each change */
  join(member: object, told: (others: ClientConnections) => void): void {
    this.#members.set(member, told);
    for (const client of this.#byClient.keys()) this.#tell(client, member);
  }

  report(member: object, { client, count }: ClientConnections): void {
    const counts = this.#byClient.get(client) ?? new Map<object, number>();
    if (count > 0) counts.set(member, count);
    else counts.delete(member);
    if (counts.size > 0) this.#byClient.set(client, counts);
    else this.#byClient.delete(client);
    for (const other of this.#members.keys()) if (other !== member) this.#tell(client, other);
  }

  /** A process has ended, and its connections with it. */
  leave(member: object): void {
    this.#members.delete(member);
    for (const [client, counts] of [...this.#byClient]) {
      if (counts.has(member)) this.report(member, { client, count: 0 });
    }
  }

  #tell(client: string, member: object): void {
    let count = 0;
    for (const [other, open] of this.#byClient.get(client) ?? []) if (other !== member) count += open;
    this.#members.get(member)?.({ client, count });
  }
}
