import { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { Content } from './content.ts';
import { FakeRegistry, generated } from './fake-registry/index.ts';
import type { Change, Fetched, FinalState, Handshake, History, NodeFault, Pull } from './fleet-history.ts';
import { send } from './http-client.ts';
import { FLEET_DOMAIN, type FleetNode, type RealFleet } from './real-fleet.ts';

const KIB = 1024;

/** Numbers that are the same for the same seed (mulberry32). */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  between(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from));
  }

  of<T>(list: readonly T[]): T {
    const one = list[Math.floor(this.next() * list.length)];
    if (one === undefined) throw new Error('there is nothing to choose from');
    return one;
  }

  shuffled<T>(list: readonly T[]): T[] {
    return list
      .map((one) => ({ one, order: this.next() }))
      .sort((a, b) => a.order - b.order)
      .map(({ one }) => one);
  }
}

interface Known {
  readonly content: Content;
  readonly path: string;
  /** The gateway may give it by this path at all. */
  readonly mayHave: boolean;
}

interface User {
  readonly name: string;
  password: string;
}

/** Name and password with which the fleet is known to the registry whose content is closed. */
const CLOSED_USER = { name: 'fleet', password: 'of-the-fleet' };
/** Blobs at the registry come at this pace, so that nodes are lost in the middle of them. */
const PACE = 3 * 1024 * KIB;
/** A timer that is later than this, ms, found no processor free: a gateway waits for another no longer than 500. */
const MOST_LATE = 200;
const TICK = 50;
/** A new blob so often, ms. */
const NEW_BLOB = 1_500;

/** Makes a fleet's life hard, and writes down what everybody saw. */
export class Harm {
  readonly #bed: RealFleet;
  readonly #closed: FakeRegistry;
  readonly #known: Known[] = [];
  /** Users that stay, by which quotas are used up; and those that come and go. */
  readonly #staying: User[] = [];
  readonly #changing = new Map<string, User>();
  readonly #pulls: Pull[] = [];
  readonly #changes: Change[] = [];
  readonly #faults: NodeFault[] = [];
  readonly #handshakes: Handshake[] = [];
  readonly #lost: { digest: string; missing: number }[] = [];
  /** Bytes from its start that a node has given to clients, of each blob. */
  readonly #given = new Map<string, Map<string, number>>();
  /** The command that runs on a node's data directory, by the node's name. */
  readonly #commands = new Map<string, Promise<unknown>>();
  #blobs = 0;
  /** Until when there is harm; performance's clock. */
  #ends = 0;

  private constructor(bed: RealFleet, closed: FakeRegistry) {
    this.#bed = bed;
    this.#closed = closed;
  }

  /** With registries, a closed one among them, and the users that stay. */
  static async prepare(bed: RealFleet): Promise<Harm> {
    const closed = await FakeRegistry.start({
      host: bed.network.here,
      auth: { scheme: 'basic', users: { [CLOSED_USER.name]: CLOSED_USER.password } },
    });
    const harm = new Harm(bed, closed);
    try {
      const [first] = bed.nodes;
      if (first === undefined) throw new Error('a fleet has nodes');
      await first.gateway.ok('registry', 'set', 'docker.io', '--endpoint', bed.upstream.url);
      await first.gateway.ok('alias', 'add', 'other', 'other.example', '--endpoint', bed.upstream.url, '--no-cert');
      await first.gateway.ok('alias', 'add', 'closed', 'closed.example', '--endpoint', closed.url, '--no-cert');
      const credentials = ['--username', CLOSED_USER.name, '--password-stdin'];
      const set = await first.gateway.cli(['registry', 'set', 'closed.example', ...credentials], {
        input: CLOSED_USER.password,
      });
      if (set.code !== 0) throw new Error(`registry set: ${set.stdout}${set.stderr}`);
      for (const name of ['greedy', 'modest']) {
        const password = await harm.#change(first, 'user', name, 'there', ['user', 'add', name]);
        harm.#staying.push({ name, password });
      }
      bed.upstream.faults = ({ kind }) => (kind === 'blob' ? { bytesPerSecond: PACE } : undefined);
      const secret = closed.repository('team/app').addBlob(generated(700 * KIB, 'closed'));
      harm.#known.push({ content: secret, path: `/v2/closed.example/team/app/blobs/${secret.digest}`, mayHave: true });
      // The same digest by a registry that never gave it.
      harm.#known.push({ content: secret, path: `/v2/other.example/team/app/blobs/${secret.digest}`, mayHave: false });
      harm.#addBlob(new Dice(0));
      return harm;
    } catch (error) {
      await closed.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#closed.close();
  }

  /** Pulls, changes and faults for so long; then everything is healed. */
  async run(seconds: number, seed: number): Promise<void> {
    this.#ends = performance.now() + seconds * 1000;
    const dice = (part: number): Dice => new Dice(seed * 31 + part);
    await Promise.all([
      this.#watchMachine(),
      ...Array.from({ length: 5 }, (_none, index) => this.#pullLoop(dice(index))),
      this.#newBlobs(dice(100)),
      this.#changeLoop(dice(101)),
      this.#faultLoop(dice(102)),
    ]);
  }

  /** Once all nodes run and nothing is done to them any more. */
  async history(limit: number): Promise<History> {
    const final: FinalState[] = [];
    for (const { name, gateway } of this.#bed.nodes) {
      const rows = async (noun: string): Promise<string[]> =>
        (JSON.parse(await gateway.ok(noun, 'ls', '--json')) as { name: string }[]).map((row) => row.name);
      final.push({ node: name, aliases: await rows('alias'), users: await rows('user') });
    }
    const { ca } = this.#bed;
    return {
      nodes: this.#bed.nodes.map(({ name }) => name),
      pulls: this.#pulls,
      changes: this.#changes,
      faults: this.#faults,
      orders: ca?.orders.map(({ at, host }) => ({ at, host })) ?? [],
      handshakes: this.#handshakes,
      fetches: this.#fetches(),
      quota: { limit, slice: limit / 64 },
      final,
    };
  }

  #fetches(): Fetched[] {
    return this.#known.flatMap(({ content: { digest, size }, mayHave }) => {
      const registry = this.#closed.log.count({ reference: digest }) > 0 ? this.#closed : this.#bed.upstream;
      const requests = registry.log.of({ kind: 'blob', method: 'GET', reference: digest });
      if (!mayHave || requests.length === 0) return [];
      // Its log has the clock of `performance`.
      const times = requests.map(({ at }) => performance.timeOrigin + at);
      return [
        {
          digest,
          size,
          sent: requests.reduce((sum, { sent, status }) => sum + (status < 300 ? sent : 0), 0),
          brokenOff: requests.filter(
            ({ sent, range }) => sent < Math.min(range?.to ?? size - 1, size - 1) + 1 - (range?.from ?? 0),
          ).length,
          from: Math.min(...times),
          to: Math.max(...times) + (size / PACE) * 1000,
          missingAtTakeOver: this.#lost.filter((lost) => lost.digest === digest).map(({ missing }) => missing),
        },
      ];
    });
  }

  get #goesOn(): boolean {
    return performance.now() < this.#ends;
  }

  #addBlob(dice: Dice): void {
    const size = dice.between(64 * KIB, 6 * 1024 * KIB);
    const content = this.#bed.upstream.repository('library/app').addBlob(generated(size, `chaos ${this.#blobs++}`));
    this.#known.push({ content, path: `/v2/docker.io/library/app/blobs/${content.digest}`, mayHave: true });
  }

  async #newBlobs(dice: Dice): Promise<void> {
    while (this.#goesOn) {
      this.#addBlob(dice);
      await this.#pause(NEW_BLOB);
    }
  }

  async #pullLoop(dice: Dice): Promise<void> {
    while (this.#goesOn) {
      // The newest are cold, and asked for by all.
      const known = dice.next() < 0.6 ? dice.of(this.#known.slice(-2)) : dice.of(this.#known);
      const user = dice.next() < 0.7 ? dice.of(this.#staying) : dice.of([...this.#changing.values(), ...this.#staying]);
      const anonymous = dice.next() < 0.05;
      await this.#pull(dice, dice.of(this.#bed.nodes), known, anonymous ? null : user);
    }
  }

  async #pull(dice: Dice, node: FleetNode, { content, path, mayHave }: Known, user: User | null): Promise<void> {
    const from = Date.now();
    const start = dice.next() < 0.3 ? dice.between(0, content.size) : 0;
    const end = start > 0 ? dice.between(start + 1, content.size + 1) : content.size;
    const ranged = start > 0;
    const authorization = user === null ? {} : { authorization: `Basic ${btoa(`${user.name}:${user.password}`)}` };
    const { ca } = this.#bed;
    const received = await send({
      ...{ host: node.address, port: 8443, servername: FLEET_DOMAIN, path, agent: false, keep: true, timeout: 8_000 },
      ...(ca === null ? { rejectUnauthorized: false } : { ca: ca.root }),
      headers: { host: FLEET_DOMAIN, ...authorization, ...(ranged ? { range: `bytes=${start}-${end - 1}` } : {}) },
      onSocket: (socket) => this.#look(node, socket as TLSSocket),
      onBytes: (bytes) => {
        if (ranged || !mayHave) return;
        const given = this.#given.get(content.digest) ?? new Map<string, number>();
        this.#given.set(content.digest, given.set(node.name, Math.max(bytes, given.get(node.name) ?? 0)));
      },
    });
    const gave = received.status === 200 || received.status === 206;
    const first = received.status === 206 ? start : 0;
    const length = received.status === 206 ? end - start : content.size;
    const right =
      !gave ||
      (received.body.equals(content.read(first, first + received.body.length)) &&
        (!received.whole || received.body.length === length));
    this.#pulls.push({
      ...{ from, to: Date.now(), node: node.name, user: user?.name ?? null, what: path },
      // Users were added, so that nobody else may have anything.
      mayHave: mayHave && user !== null,
      ...{ status: received.status, bytes: gave ? received.bytes : 0, right },
    });
    // A node that is not there answers at once.
    if (received.status === 0 || received.status === 429) await this.#pause(100);
  }

  #look(node: FleetNode, socket: TLSSocket): void {
    socket.once('secureConnect', () => {
      const shown = socket.getPeerX509Certificate();
      const { ca } = this.#bed;
      if (shown === undefined || ca === null) return;
      const place = ca.issued.findIndex(({ serialNumber }) => serialNumber === shown.serialNumber);
      this.#handshakes.push({
        ...{ at: Date.now(), node: node.name, host: FLEET_DOMAIN, serial: shown.serialNumber, issuedAt: place },
        notAfter: new X509Certificate(shown.raw).validToDate.getTime(),
      });
    });
  }

  async #changeLoop(dice: Dice): Promise<void> {
    for (let turn = 0; this.#goesOn; turn++) {
      const running = this.#bed.running();
      if (running.length === 0) {
        await this.#pause(200);
        continue;
      }
      const node = dice.of(running);
      const name = `${dice.of(['a', 'b', 'c', 'd'])}`;
      const kind = turn % 2 === 0 ? 'alias' : 'user';
      const wasThere = this.#changes.findLast((one) => one.kind === kind && one.name === name)?.state === 'there';
      if (kind === 'alias') {
        const args = wasThere
          ? ['alias', 'rm', name]
          : ['alias', 'add', name, `${name}.example`, '--endpoint', this.#bed.upstream.url];
        await this.#change(node, kind, name, wasThere ? 'gone' : 'there', args);
      } else if (wasThere) {
        await this.#change(node, kind, name, 'gone', ['user', 'rm', name]);
      } else {
        const password = await this.#change(node, kind, name, 'there', ['user', 'add', name]);
        if (password !== '') this.#changing.set(name, { name, password });
      }
    }
  }

  /** @returns the token that was printed, if one was */
  async #change(
    node: FleetNode,
    kind: Change['kind'],
    name: string,
    state: Change['state'],
    args: string[],
  ): Promise<string> {
    const from = Date.now();
    const change = {
      from,
      to: Number.POSITIVE_INFINITY,
      node: node.name,
      kind,
      name,
      state,
      confirmed: false,
      laggards: [],
    };
    const at = this.#changes.push(change) - 1;
    const running = node.gateway.cli([...args, '--json'], { ms: 30_000 });
    this.#commands.set(node.name, running);
    const ran = await running;
    const said = `${ran.stdout}${ran.stderr}`;
    const addresses = [...said.matchAll(/gateway \S+ \(([^):]+):\d+\) does not serve/g)].map(([, address]) => address);
    const laggards = this.#bed.nodes.filter(({ address }) => addresses.includes(address)).map((one) => one.name);
    // An alias that is there is there, whatever became of its certificate.
    const confirmed = ran.code === 0;
    this.#changes[at] = { ...change, to: Date.now(), confirmed, laggards };
    return kind === 'user' && state === 'there' && confirmed ? tokenOf(ran.stdout) : '';
  }

  async #faultLoop(dice: Dice): Promise<void> {
    const kinds = ['kill', 'pause', 'database restart', 'database cut', 'store', 'network'] as const;
    let order: (typeof kinds)[number][] = [];
    await this.#pause(3_000);
    while (this.#goesOn) {
      if (order.length === 0) order = dice.shuffled(kinds);
      const kind = order.pop() ?? 'kill';
      const node = dice.of(this.#bed.nodes);
      const length = dice.between(2_000, 7_000);
      await this.#harm(kind, node, length, dice);
      await this.#pause(dice.between(1_000, 3_000));
    }
  }

  async #harm(kind: string, node: FleetNode, length: number, dice: Dice): Promise<void> {
    const { postgres, s3, network } = this.#bed;
    const noted = (fault: Omit<NodeFault, 'from' | 'to'>): ((to?: number) => void) => {
      const from = Date.now();
      const at = this.#faults.push({ ...fault, from, to: Number.POSITIVE_INFINITY }) - 1;
      return () => {
        this.#faults[at] = { ...fault, from, to: Date.now() };
      };
    };
    if (kind === 'kill') {
      const over = noted({ node: node.name, kind: 'kill' });
      this.#noteLost(node);
      await node.kill();
      await this.#rest(length / 2);
      // A command that was given to it meanwhile has its directory: it acts on the database by itself.
      await this.#commands.get(node.name);
      await node.start();
      over();
    } else if (kind === 'pause') {
      const over = noted({ node: node.name, kind: 'pause' });
      this.#noteLost(node);
      node.pause();
      // Some outlive their leases.
      await this.#rest(dice.next() < 0.5 ? length : length * 4);
      node.resume();
      over();
    } else if (kind === 'database restart') {
      const over = noted({ node: null, kind: 'database' });
      await postgres.halt(dice.of(['fast', 'immediate']));
      await this.#rest(length / 2);
      await postgres.begin();
      over();
    } else if (kind === 'database cut') {
      const cut = dice.next() < 0.5 ? [node] : this.#bed.nodes;
      const over = noted({ node: cut.length === 1 ? node.name : null, kind: 'database' });
      for (const { machine } of cut) await network.drop(machine, { address: postgres.host, port: postgres.port });
      await this.#rest(length);
      for (const { machine } of cut) await network.heal(machine);
      over();
    } else if (kind === 'store') {
      if (s3 === null) return;
      const over = noted({ node: null, kind: 'store' });
      if (dice.next() < 0.5) s3.pause();
      else for (const { machine } of this.#bed.nodes) await network.drop(machine, s3, 0.3);
      await this.#rest(length);
      s3.resume();
      for (const { machine } of this.#bed.nodes) await network.heal(machine);
      over();
    } else {
      const over = noted({ node: node.name, kind: 'network' });
      const share = dice.of([0.1, 0.3, 1]);
      for (const other of this.#bed.nodes) if (other !== node) await network.drop(node.machine, other, share);
      await this.#rest(length);
      await network.heal(node.machine);
      over();
    }
  }

  /** A node is about to be lost: of each blob that was asked for, what no other has given to anybody may have to come again. */
  #noteLost(node: FleetNode): void {
    const left = new Set(
      this.#bed
        .running()
        .filter((one) => one !== node)
        .map(({ name }) => name),
    );
    for (const { content, mayHave } of this.#known) {
      const registry = this.#closed.log.count({ reference: content.digest }) > 0 ? this.#closed : this.#bed.upstream;
      const asked = registry.log.count({ kind: 'blob', method: 'GET', reference: content.digest }) > 0;
      if (!asked || !mayHave) continue;
      const given = [...(this.#given.get(content.digest) ?? [])]
        .filter(([name]) => left.has(name))
        .map(([, bytes]) => bytes);
      this.#lost.push({ digest: content.digest, missing: content.size - Math.max(0, ...given) });
    }
  }

  /** Notes when this process did not get its turn: then neither did the gateways on the same machine. */
  async #watchMachine(): Promise<void> {
    while (this.#goesOn) {
      const before = performance.now();
      await this.#rest(TICK);
      const late = performance.now() - before - TICK;
      const to = Date.now();
      if (late > MOST_LATE) this.#faults.push({ node: null, kind: 'starved', from: to - late, to });
    }
  }

  /** A fault is ended in any case, so that its end is seen, too. */
  #rest(ms: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, ms));
  }

  #pause(ms: number): Promise<void> {
    return this.#rest(Math.max(0, Math.min(ms, this.#ends - performance.now())));
  }
}

/** Of what `user add --json` prints. */
function tokenOf(printed: string): string {
  const lines = printed.trim().split('\n');
  for (const text of [printed, ...lines.reverse()]) {
    try {
      const { token } = JSON.parse(text) as { token?: string };
      if (token !== undefined) return token;
    } catch {
      // A line for people.
    }
  }
  throw new Error(`no token was printed: ${printed}`);
}
