import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { Writable } from 'node:stream';
import { pino } from 'pino';
import { afterEach, describe, expect, test } from 'vitest';
import type { Config } from '../../src/config/config.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { Pool } from '../../src/workers/pool.ts';
import type { StateMessage } from '../../src/workers/wire.ts';
import { eventually } from '../support/eventually.ts';

/** A pool behind a listener of the test's own, which serves what no worker takes: its answers begin with `owner`. */
class Bed {
  readonly pool: Pool;
  readonly server: Server;
  readonly lines: Record<string, unknown>[] = [];
  readonly own = new Set<Socket>();
  /** True keeps every connection here. */
  keep = false;
  known = 'one';

  constructor(options: { readonly size?: number; readonly version?: string; readonly lookEvery?: number } = {}) {
    const destination = new Writable({
      write: (chunk, _encoding, done) => {
        this.lines.push(JSON.parse(String(chunk)));
        done();
      },
    });
    this.pool = new Pool({
      size: options.size ?? 2,
      program: new URL('../support/pool-worker.ts', import.meta.url),
      config: {} as Config,
      version: options.version ?? 'works',
      ticketKeys: new Uint8Array(48),
      core: { serve: () => Promise.reject(new Error('not asked for here')) },
      state: () => ({ ready: this.known }) as StateMessage,
      certificate: () => null,
      access: { check: () => null, countBytes: () => {} },
      serve: (socket) => this.#serve(socket),
      log: pino({ level: 'debug' }, destination),
      ...(options.lookEvery === undefined ? {} : { lookEvery: options.lookEvery }),
    });
    this.server = createServer({ pauseOnConnect: true }, (socket) => {
      if (this.keep || !this.pool.dispatch(socket, this.own.size)) this.#serve(socket);
    });
  }

  async start(): Promise<this> {
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    await this.pool.start();
    return this;
  }

  client(): Promise<Client> {
    return Client.open((this.server.address() as AddressInfo).port);
  }

  /** So many clients one after the other, all connected at the end. */
  async clients(count: number): Promise<Client[]> {
    const clients: Client[] = [];
    for (let index = 0; index < count; index++) {
      clients.push(await this.client());
      await clients.at(-1)?.ask();
    }
    return clients;
  }

  /** Ids of the worker processes, by the log. */
  started(): number[] {
    return this.lines.filter(({ msg }) => msg === 'a worker takes connections').map(({ worker }) => Number(worker));
  }

  async stop(): Promise<void> {
    this.server.close();
    for (const socket of this.own) socket.destroy();
    await this.pool.close({ graceMs: 100 });
  }

  #serve(socket: Socket): void {
    this.own.add(socket);
    socket.on('close', () => this.own.delete(socket));
    socket.on('error', () => {});
    socket.on('data', () => void socket.write('owner\n'));
    socket.resume();
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
      this.socket.once('data', (data) => resolve(String(data).trim()));
      this.socket.once('close', () => resolve(null));
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

describe('the pool of workers', () => {
  let bed: Bed;
  let clients: Client[] = [];
  afterEach(async () => {
    for (const client of clients) client.socket.destroy();
    clients = [];
    await bed.stop();
  });

  test('deals connections out evenly, itself included, and again after some have ended', async () => {
    bed = await new Bed().start();
    clients = await bed.clients(9);
    const shares = async (): Promise<number[]> => {
      const who = await Promise.all(clients.map((client) => client.who()));
      return Object.values(Object.groupBy(who, (name) => name)).map((group) => group?.length ?? 0);
    };
    expect(await shares()).toEqual([3, 3, 3]);
    // Two processes lose their connections.
    const gone = await clients[0]?.who();
    const staying: Client[] = [];
    for (const client of clients) {
      if ((await client.who()) === gone) staying.push(client);
      else await client.close();
    }
    clients = staying;
    await eventually('the workers to say that they have ended', async () => {
      const probe = await bed.client();
      const who = await probe.who();
      await probe.close();
      return who !== gone;
    });
    clients.push(...(await bed.clients(6)));
    expect(Math.max(...(await shares()))).toBeLessThanOrEqual(4);
  });

  test('replaces one that is killed at once; only its connections are lost, its counts stay', async () => {
    bed = await new Bed({ lookEvery: 20 }).start();
    const metrics = new Metrics();
    metrics.include(() => bed.pool.metrics());
    clients = await bed.clients(6);
    expect(await metrics.total('served_total')).toBe(4);
    const [victim = 0] = bed.started();
    process.kill(victim, 'SIGKILL');
    await eventually('another to take its place', () => bed.started().length === 3 && bed.pool.ready === 2);
    const who = await Promise.all(clients.map((client) => client.who()));
    expect(who.filter((name) => name === 'nobody')).toHaveLength(2);
    expect(who).not.toContain(String(victim));
    expect(bed.lines.find(({ worker, signal }) => worker === victim && signal === 'SIGKILL')).toMatchObject({
      wait: 0,
    });
    expect(await metrics.total('served_total')).toBe(4);
    // The counters go on from there.
    clients.push(...(await bed.clients(2)));
    expect(await metrics.total('served_total')).toBeGreaterThan(4);
  });

  test('waits longer each time before it starts again what does not start', async () => {
    bed = new Bed({ size: 1, version: 'fails' });
    await expect(bed.start()).rejects.toThrow('ended');
    const ended = () => bed.lines.filter(({ code }) => code === 3);
    await eventually('three attempts', () => ended().length === 3);
    expect(ended().map(({ wait }) => wait)).toEqual([0, 500, 2000]);
    expect(bed.pool.ready).toBe(0);
    const client = await bed.client();
    expect(await client.who()).toBe('owner');
    await client.close();
  });

  test('replaces one that hangs, gives it no more connections, and serves those that it never took', async () => {
    bed = await new Bed({ size: 1, lookEvery: 100 }).start();
    const [hung = 0] = bed.started();
    process.kill(hung, 'SIGSTOP');
    // The owner looks loaded, so that all go to the worker; Node sends one and keeps the others until that one has arrived.
    for (let index = 0; index < 8; index++) bed.own.add(connect({ port: 9, host: '127.0.0.1' }).on('error', () => {}));
    clients = await Promise.all([bed.client(), bed.client(), bed.client(), bed.client()]);
    const answers = Promise.all(clients.map((client) => client.who()));
    // A call that is under way ends as well, though a connection was on its way.
    const updated = bed.pool.update();
    await eventually('the one that hangs to be replaced', () => bed.started().length === 2);
    expect(bed.lines.some(({ msg, worker }) => /does not answer/.test(String(msg)) && worker === hung)).toBe(true);
    await updated;
    const who = await answers;
    expect(who).toEqual(['owner', 'owner', 'owner', 'owner']);
  });

  test('is done with an update when every worker knows it; one that starts meanwhile starts with it', async () => {
    bed = await new Bed().start();
    clients = await bed.clients(6);
    for (const state of ['two', 'three']) {
      bed.known = state;
      await bed.pool.update();
      const answers = await Promise.all(clients.map((client) => client.ask()));
      expect(answers.filter((answer) => answer?.endsWith(state))).toHaveLength(4);
    }
    const [victim = 0] = bed.started();
    process.kill(victim, 'SIGKILL');
    await eventually('its end', () => bed.pool.ready === 1);
    bed.known = 'four';
    await bed.pool.update();
    await eventually('another to take its place', () => bed.pool.ready === 2);
    const answers = (await bed.clients(6)).map(async (client) => {
      clients.push(client);
      return client.ask();
    });
    for (const answer of await Promise.all(answers)) if (answer !== 'owner') expect(answer).toMatch(/ four$/);
  });

  test('lets connections end before the processes do, within the grace', async () => {
    bed = await new Bed().start();
    clients = await bed.clients(3);
    let closed = false;
    const closing = bed.pool.close({ graceMs: 60_000 }).then(() => {
      closed = true;
    });
    // Served to the end, and nothing new is given away.
    expect(await Promise.all(clients.map((client) => client.who()))).not.toContain('nobody');
    const late = await bed.client();
    expect(await late.who()).toBe('owner');
    expect(closed).toBe(false);
    for (const client of [late, ...clients]) await client.close();
    await closing;
    for (const pid of bed.started()) expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  });

  test('ends them by force when the grace is over', async () => {
    bed = await new Bed({ size: 1 }).start();
    bed.own.add(connect({ port: 9, host: '127.0.0.1' }).on('error', () => {}));
    clients = [await bed.client()];
    const [pid = 0] = bed.started();
    expect(await clients[0]?.who()).toBe(String(pid));
    await bed.pool.close({ graceMs: 50 });
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
    expect(await clients[0]?.ask()).toBeNull();
  });
});
