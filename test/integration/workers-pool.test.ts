import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { Writable } from 'node:stream';
import { pino } from 'pino';
import { afterEach, describe, expect, test } from 'vitest';
import { UserSnapshot } from '../../src/access/user-snapshot.ts';
import type { TableSnapshot } from '../../src/aliases/table.ts';
import type { Config } from '../../src/config/config.ts';
import { Denials } from '../../src/proxy/denials.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { ConnectionTotals } from '../../src/workers/connection-totals.ts';
import { WorkerSupervisor } from '../../src/workers/supervisor.ts';
import { eventually } from '../support/eventually.ts';

const NOTHING = {
  config: {} as Config,
  ticketKeys: new Uint8Array(48),
  table: { registries: new Map(), hosts: new Map() },
  users: new UserSnapshot({ users: [], everAdded: false }),
};

/** Workers on a listener of the test's own, which accepts connections as well: its answers begin with `owner`. */
interface BedOptions {
  readonly size?: number;
  readonly version?: string;
  readonly probeEvery?: number;
}

class Bed {
  readonly supervisor: WorkerSupervisor;
  readonly server: Server;
  readonly lines: Record<string, unknown>[] = [];
  readonly own = new Set<Socket>();
  known = 'one';
  readonly metrics = new Metrics();

  private constructor(server: Server, options: BedOptions) {
    const destination = new Writable({
      write: (chunk, _encoding, done) => {
        this.lines.push(JSON.parse(String(chunk)));
        done();
      },
    });
    this.server = server;
    server.on('connection', (socket) => this.#serve(socket));
    this.supervisor = new WorkerSupervisor({
      size: options.size ?? 2,
      program: new URL('../support/pool-worker.ts', import.meta.url),
      version: options.version ?? 'works',
      pseudonym: 'registry-gateway-0123456789abcdef',
      core: { generation: 0, denials: new Denials(), serve: () => Promise.reject(new Error('not asked for here')) },
      state: {
        config: () => NOTHING.config,
        table: () => NOTHING.table as unknown as TableSnapshot,
        users: () => NOTHING.users,
        certificates: () => null,
        challenges: () => null,
        ready: () => this.known,
        remark: () => null,
        draining: () => false,
        ticketKeys: () => NOTHING.ticketKeys,
      },
      access: { check: () => null, used: () => {}, quota: null },
      outlines: () => [],
      activity: { add: () => {} },
      connections: new ConnectionTotals(),
      server,
      metrics: this.metrics,
      log: pino({ level: 'debug' }, destination),
      ...(options.probeEvery === undefined ? {} : { probeEvery: options.probeEvery }),
    });
  }

  static async listen(options: BedOptions = {}): Promise<Bed> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new Bed(server, options);
  }

  static async start(options: BedOptions = {}): Promise<Bed> {
    const bed = await Bed.listen(options);
    await bed.supervisor.start();
    return bed;
  }

  client(): Promise<Client> {
    return Client.open((this.server.address() as AddressInfo).port);
  }

  /** So many clients one after the other, all connected and accepted at the end. */
  async clients(count: number): Promise<Client[]> {
    const clients: Client[] = [];
    for (let index = 0; index < count; index++) {
      clients.push(await this.client());
      await clients.at(-1)?.ask();
    }
    return clients;
  }

  /** Clients until every process has at least so many of them: the kernel gives a connection to any process that is idle. */
  async clientsOfAll(each: number, processes: number): Promise<Client[]> {
    const clients: Client[] = [];
    await eventually(`${each} connections of each process`, async () => {
      clients.push(...(await this.clients(processes)));
      const shares = Object.values(Object.groupBy(await Promise.all(clients.map((client) => client.who())), String));
      return shares.length === processes && shares.every((share) => (share?.length ?? 0) >= each);
    });
    return clients;
  }

  /** Ids of the worker processes, by the log. */
  started(): number[] {
    return this.lines.filter(({ msg }) => msg === 'a worker takes connections').map(({ worker }) => Number(worker));
  }

  async stop(): Promise<void> {
    this.server.close();
    for (const socket of this.own) socket.destroy();
    await this.supervisor.close({ graceMs: 100 });
  }

  #serve(socket: Socket): void {
    this.own.add(socket);
    socket.on('close', () => this.own.delete(socket));
    socket.on('error', () => {});
    socket.on('data', () => void socket.write('owner\n'));
  }
}

class Client {
  readonly socket: Socket;
  readonly ended: Promise<void>;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.ended = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.on('error', () => {});
  }

  static async open(port: number): Promise<Client> {
    const socket = connect(port, '127.0.0.1');
    await once(socket, 'connect');
    return new Client(socket);
  }

  /** The answer to a line: `owner`, or a process id and the state that it knows; null where the connection ended. */
  async ask(): Promise<string | null> {
    if (this.socket.destroyed) return null;
    const answer = new Promise<string | null>((resolve) => {
      const onData = (data: Buffer): void => settle(String(data).trim());
      const onClose = (): void => settle(null);
      const settle = (text: string | null): void => {
        this.socket.off('data', onData).off('close', onClose);
        resolve(text);
      };
      this.socket.on('data', onData).on('close', onClose);
    });
    this.socket.write('who\n');
    return answer;
  }

  async who(): Promise<string> {
    return (await this.ask())?.split(' ')[0] ?? 'nobody';
  }

  async close(): Promise<void> {
    this.socket.destroy();
    await this.ended;
  }
}

describe('the workers', () => {
  let bed: Bed;
  let clients: Client[] = [];
  afterEach(async () => {
    for (const client of clients) client.socket.destroy();
    clients = [];
    await bed.stop();
  });

  const shares = async (): Promise<Record<string, number>> => {
    const who = await Promise.all(clients.map((client) => client.who()));
    return Object.fromEntries(
      Object.entries(Object.groupBy(who, String)).map(([name, all]) => [name, all?.length ?? 0]),
    );
  };

  test('and the owner all accept from the one listening socket', async () => {
    bed = await Bed.start();
    clients = await bed.clientsOfAll(3, 3);
    expect(Object.keys(await shares()).sort()).toEqual([...bed.started().map(String), 'owner'].sort());
  });

  test('are not given a connection before they are ready for it, and none is refused or lost meanwhile', async () => {
    bed = await Bed.listen();
    const started = bed.supervisor.start();
    let starting = true;
    void started.then(() => {
      starting = false;
    });
    while (starting) {
      clients.push(await bed.client());
      expect(await clients.at(-1)?.ask()).toMatch(/^owner$| one$/);
    }
    await started;
    expect(clients.length).toBeGreaterThan(0);
  });

  test('are replaced at once when they are killed; only their connections are lost, their counts stay', async () => {
    bed = await Bed.start({ probeEvery: 20 });
    const metrics = new Metrics();
    metrics.include(() => bed.supervisor.metrics());
    clients = await bed.clientsOfAll(2, 3);
    const before = await shares();
    const byWorkers = clients.length - (before.owner ?? 0);
    expect(await metrics.total('served_total')).toBe(byWorkers);
    const [victim = 0] = bed.started();
    process.kill(victim, 'SIGKILL');
    await eventually('another to take its place', () => bed.started().length === 3 && bed.supervisor.ready === 2);
    const { nobody, ...others } = await shares();
    const { [victim]: lost, ...kept } = before;
    expect(nobody).toBe(lost);
    expect(others).toEqual(kept);
    expect(bed.lines.find(({ worker, signal }) => worker === victim && signal === 'SIGKILL')).toMatchObject({
      wait: 0,
    });
    expect(await metrics.total('served_total')).toBe(byWorkers);
    // The counters go on from there.
    clients.push(...(await bed.clientsOfAll(1, 3)));
    expect(await metrics.total('served_total')).toBeGreaterThan(byWorkers);
  });

  test('that do not start are started again after longer waits', async () => {
    bed = await Bed.listen({ size: 1, version: 'fails' });
    await expect(bed.supervisor.start()).rejects.toThrow('ended');
    const ended = () => bed.lines.filter(({ code }) => code === 3);
    await eventually('three attempts', () => ended().length === 3);
    expect(ended().map(({ wait }) => wait)).toEqual([0, 500, 2000]);
    expect(bed.supervisor.ready).toBe(0);
    const client = await bed.client();
    expect(await client.who()).toBe('owner');
    await client.close();
  });

  test('that hang accept no more connections, and are replaced', async () => {
    bed = await Bed.start({ size: 1, probeEvery: 100 });
    const [hung = 0] = bed.started();
    process.kill(hung, 'SIGSTOP');
    await eventually('it to be stopped', () => /^State:\s+T/m.test(readFileSync(`/proc/${hung}/status`, 'utf8')));
    clients = await Promise.all(Array.from({ length: 8 }, () => bed.client()));
    expect(await Promise.all(clients.map((client) => client.who()))).toEqual(clients.map(() => 'owner'));
    // A call that is under way ends as well.
    bed.known = 'two';
    const updated = bed.supervisor.settled();
    await eventually('the one that hangs to be replaced', () => bed.started().length === 2);
    expect(bed.lines.some(({ msg, worker }) => /does not answer/.test(String(msg)) && worker === hung)).toBe(true);
    await updated;
  });

  test('all know a change when its update is done; one that starts meanwhile starts with it', async () => {
    bed = await Bed.start();
    clients = await bed.clientsOfAll(2, 3);
    const byWorkers = clients.length - ((await shares()).owner ?? 0);
    for (const state of ['two', 'three']) {
      bed.known = state;
      await bed.supervisor.settled();
      const answers = await Promise.all(clients.map((client) => client.ask()));
      expect(answers.filter((answer) => answer?.endsWith(state))).toHaveLength(byWorkers);
    }
    const [victim = 0] = bed.started();
    process.kill(victim, 'SIGKILL');
    await eventually('its end', () => bed.supervisor.ready === 1);
    bed.known = 'four';
    await bed.supervisor.settled();
    await eventually('another to take its place', () => bed.supervisor.ready === 2);
    for (const client of await bed.clientsOfAll(1, 3)) {
      clients.push(client);
      const answer = await client.ask();
      if (answer !== 'owner') expect(answer).toMatch(/ four$/);
    }
  });

  test('let connections end before they end themselves, within the grace', async () => {
    bed = await Bed.start();
    clients = await bed.clientsOfAll(1, 3);
    let closed = false;
    const closing = bed.supervisor.close({ graceMs: 60_000 }).then(() => {
      closed = true;
    });
    // Served to the end; nothing new is accepted by a worker that drains.
    expect(await Promise.all(clients.map((client) => client.who()))).not.toContain('nobody');
    const late = await bed.client();
    expect(await late.who()).toBe('owner');
    expect(closed).toBe(false);
    for (const client of [late, ...clients]) await client.close();
    await closing;
    for (const pid of bed.started()) expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  });

  test('are ended by force when the grace is over', async () => {
    bed = await Bed.start({ size: 1 });
    clients = await bed.clientsOfAll(1, 2);
    const [pid = 0] = bed.started();
    const names = await Promise.all(clients.map((client) => client.who()));
    const client = clients[names.indexOf(String(pid))];
    await bed.supervisor.close({ graceMs: 50 });
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
    expect(await client?.ask()).toBeNull();
  });
});
