import type { TcpNetConnectOpts } from 'node:net';
import { createInterface } from 'node:readline';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import type { Paced } from './paced.ts';

/**
 * Clients that ask at an even pace, whether answers come or not: `node paced-client.ts PORT CLIENTS RATE PATH HOST…`. Each has an address and a
 * connection of its own, and one of the hosts in turn. It prints `ready` when all have asked once; for each line `SECONDS` on its input it
 * asks RATE times a second for so long, and prints what came of it, a `Paced` as a line of JSON.
 */
const [port = '', count = '', rate = '', path = '', ...hosts] = process.argv.slice(2);

/** Handshakes under way at a time: clients of a crowd come one after the other, too. */
const HANDSHAKES = 16;
/** Pace of the turns, ms: those that are due are taken together. */
const TURN = 1;
/** How long answers may take after the last request, ms. */
const TAIL = 5_000;
const HEADER_END = Buffer.from('\r\n\r\n');

class Client {
  readonly #request: Buffer;
  readonly #socket: TLSSocket;
  /** When the turn of each request was that has no answer yet. */
  readonly #due: number[] = [];
  readonly #done: (ms: number, ok: boolean) => void;
  /** Bytes of the answer that are still to come; null before its header. */
  #rest: number | null = null;
  #ok = false;
  #ended = false;

  private constructor(socket: TLSSocket, request: Buffer, done: (ms: number, ok: boolean) => void) {
    this.#socket = socket;
    this.#request = request;
    this.#done = done;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#ended = true;
      for (const due of this.#due.splice(0)) done(performance.now() - due, false);
    });
  }

  static open(index: number, done: (ms: number, ok: boolean) => void): Promise<Client> {
    const host = hosts[index % hosts.length] ?? 'localhost';
    const localAddress = `127.${1 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`;
    return new Promise((resolve, reject) => {
      const options: ConnectionOptions & TcpNetConnectOpts = {
        host: '127.0.0.1',
        port: Number(port),
        servername: host,
        localAddress,
        rejectUnauthorized: false,
      };
      const socket = connect(options);
      socket.once('error', reject);
      socket.once('secureConnect', () => {
        const accept = 'application/vnd.oci.image.manifest.v1+json, */*';
        const request = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nAccept: ${accept}\r\n\r\n`;
        resolve(new Client(socket, Buffer.from(request), done));
      });
    });
  }

  ask(due: number): void {
    if (this.#ended) {
      this.#done(0, false);
      return;
    }
    this.#due.push(due);
    if (this.#due.length === 1) this.#socket.write(this.#request);
  }

  end(): void {
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    let body = chunk.length;
    if (this.#rest === null) {
      // A header of the servers here comes in one piece.
      const end = chunk.indexOf(HEADER_END);
      const header = chunk.toString('latin1', 0, end);
      this.#ok = header.startsWith('HTTP/1.1 200');
      this.#rest = Number(/\r\ncontent-length: (\d+)/i.exec(header)?.[1] ?? 0);
      body -= end + HEADER_END.length;
    }
    this.#rest -= body;
    if (this.#rest > 0) return;
    this.#rest = null;
    this.#done(performance.now() - (this.#due.shift() ?? 0), this.#ok);
    if (this.#due.length > 0) this.#socket.write(this.#request);
  }
}

let onDone: (ms: number, ok: boolean) => void = () => {};
const clients: Client[] = [];

async function open(): Promise<void> {
  let next = 0;
  const one = async (): Promise<void> => {
    while (next < Number(count)) {
      const answered = Promise.withResolvers<boolean>();
      let first = true;
      const client = await Client.open(next++, (ms, ok) => {
        if (!first) onDone(ms, ok);
        first = false;
        answered.resolve(ok);
      });
      // A connection that says nothing for a while is ended.
      client.ask(performance.now());
      if (!(await answered.promise)) throw new Error('the first answer was an error');
      clients.push(client);
    }
  };
  await Promise.all(Array.from({ length: HANDSHAKES }, one));
}

function measure(seconds: number): Promise<Paced> {
  const total = Math.round(Number(rate) * seconds);
  const times = new Float64Array(total);
  const [began, cpu] = [performance.now(), process.cpuUsage()];
  const between = 1000 / Number(rate);
  let [sent, answered, failed, late] = [0, 0, 0, 0];
  return new Promise((resolve) => {
    const finish = (): void => {
      clearInterval(turns);
      clearTimeout(bound);
      onDone = () => {};
      const sorted = times.subarray(0, answered).sort();
      const share = (part: number): number => sorted[Math.min(answered - 1, Math.floor(part * answered))] ?? Number.NaN;
      const missing = total - answered - failed;
      const { user, system } = process.cpuUsage(cpu);
      resolve({
        requests: answered,
        failed: failed + missing,
        p50: share(0.5),
        p99: share(0.99),
        most: share(1),
        late,
        busy: (user + system) / 1000 / (performance.now() - began),
      });
    };
    onDone = (ms, ok) => {
      if (ok) times[answered++] = ms;
      else failed += 1;
      if (answered + failed === total) finish();
    };
    const turns = setInterval(() => {
      const now = performance.now();
      const due = Math.min(total, Math.floor((now - began) / between));
      if (sent < due) late = Math.max(late, now - (began + sent * between));
      for (; sent < due; sent++) clients[sent % clients.length]?.ask(began + sent * between);
      if (sent === total) clearInterval(turns);
    }, TURN);
    const bound = setTimeout(finish, seconds * 1000 + TAIL);
  });
}

await open();
console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await measure(Number(line))));
}
for (const client of clients) client.end();
