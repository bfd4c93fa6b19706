import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { connect as secure, type TLSSocket } from 'node:tls';
import { connections, get } from './get.ts';

/**
 * A hostile registry and its clients, in a process of their own, on the clients' core: `node hostile-client.ts PORT HOST WIDE-HOST`. The
 * registry listens on PORT; the gateway knows it as HOST, and as WIDE-HOST where it has wide manifests. `POST /begin?port=GATEWAY-PORT` lets
 * its clients begin, `POST /end` ends them and answers what became of them. Each client has an address of its own, as clients of a gateway do.
 */
const [port = '', host = '', wideHost = ''] = process.argv.slice(2);

const MIB = 1024 * 1024;
/** Clients that ask for a cold range and read nothing. */
const LAZY = 200;
/** Of a blob of this size each asks for so much: more than the sockets between it and the gateway hold. */
const BLOB = 64 * MIB;
const RANGE = 8 * MIB;
/** Bytes a second of each answer with a blob: no registry of a bad will hurries. */
const BLOB_RATE = 128 * 1024;
/** Clients whose document comes a byte a second. */
const DRIPPING = 64;
/** Clients that fetch a manifest with as many layers as 4 MiB hold, again and again, each time another. */
const WIDE = 2;
const WIDE_PAUSE = 2_000;
const LAYERS = 27_000;
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
/** After which a client tries again whose connection the gateway has ended, ms. */
const AGAIN = 1_000;

const descriptors = Array.from({ length: LAYERS }, (_, index) => {
  const digest = `sha256:${index.toString(16).padStart(64, '0')}`;
  return `{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"${digest}","size":1}`;
}).join(',');

function wideManifest(name: string): Buffer {
  const config = `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:${'f'.repeat(64)}","size":2}`;
  return Buffer.from(
    `{"schemaVersion":2,"mediaType":"${MANIFEST}","config":${config},"layers":[${descriptors}],"annotations":{"name":"${name}"}}`,
  );
}

/** Pieces a second: enough to be slow, too few to be what this process and the gateway spend their time on. */
const PIECES = 4;
const PIECE = Buffer.alloc(BLOB_RATE / PIECES);

/** Every repository has every tag and every blob. */
function serve(request: IncomingMessage, response: ServerResponse): void {
  const path = request.url ?? '';
  const name = /\/manifests\/(.+)$/.exec(path)?.[1];
  if (name?.startsWith('drip') === true) drip(response);
  else if (name !== undefined) {
    const body = wideManifest(name);
    const digest = `sha256:${createHash('sha256').update(body).digest('hex')}`;
    response.writeHead(200, {
      'content-type': MANIFEST,
      'content-length': body.length,
      'docker-content-digest': digest,
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  } else if (path.includes('/blobs/')) blob(request, response);
  else response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
}

function drip(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': MANIFEST, 'content-length': 5_000 });
  const timer = setInterval(() => response.write(' '), 1_000);
  response.once('close', () => clearInterval(timer));
}

function blob(request: IncomingMessage, response: ServerResponse): void {
  const [, from = '0', to = ''] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
  const [start, end] = [Number(from), to === '' ? BLOB : Math.min(BLOB, Number(to) + 1)];
  const partial = request.headers.range !== undefined;
  response.writeHead(partial ? 206 : 200, {
    'content-type': 'application/octet-stream',
    'content-length': end - start,
    'accept-ranges': 'bytes',
    ...(partial ? { 'content-range': `bytes ${start}-${end - 1}/${BLOB}` } : {}),
  });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  let at = start;
  const timer = setInterval(() => {
    const count = Math.min(PIECE.length, end - at);
    at += count;
    response.write(PIECE.subarray(0, count));
    if (at < end) return;
    clearInterval(timer);
    response.end();
  }, 1_000 / PIECES);
  response.once('close', () => clearInterval(timer));
}

let round = 0;

/** Those of one time, from `begin` to `end`. */
class Crowd {
  readonly #gateway: number;
  readonly #sockets = new Set<TLSSocket>();
  readonly #over = new AbortController();
  readonly #round = ++round;
  #asked = 0;
  /** Requests of lazy readers, those that were answered, dripping documents asked for, wide manifests that came. */
  readonly counts = { asked: 0, answered: 0, dripping: 0, wide: 0 };

  constructor(gateway: number) {
    this.#gateway = gateway;
  }

  /** Resolves when all have asked for the first time. */
  async begin(): Promise<void> {
    const asked = [
      ...Array.from({ length: LAZY }, (_, client) => this.#ask('lazy', client)),
      ...Array.from({ length: DRIPPING }, (_, client) => this.#ask('drip', client)),
    ];
    await Promise.all(asked);
    for (let client = 0; client < WIDE; client++) void this.#pullWide(client);
  }

  end(): void {
    this.#over.abort();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Resolves once it has asked. It asks for something else, and waits, for ever. */
  #ask(what: 'lazy' | 'drip', client: number): Promise<void> {
    const net = what === 'lazy' ? 1 : 2;
    const place = `${this.#round}-${client}-${++this.#asked}`;
    const digest = createHash('sha256').update(place).digest('hex');
    const path = what === 'lazy' ? `blobs/sha256:${digest}` : `manifests/drip-${place}`;
    const range = what === 'lazy' ? `Range: bytes=${RANGE}-${2 * RANGE - 1}\r\n` : '';
    this.counts[what === 'drip' ? 'dripping' : 'asked'] += 1;
    return new Promise((resolve) => {
      const localAddress = `127.1.${net}.${1 + client}`;
      const plain = connect({ host: '127.0.0.1', port: this.#gateway, localAddress });
      const socket = secure({ socket: plain, servername: 'localhost', rejectUnauthorized: false }, () => {
        socket.write(`GET /v2/${host}/any/thing/${path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n${range}\r\n`);
        resolve();
      });
      plain.on('error', () => socket.destroy());
      this.#sockets.add(socket);
      if (what === 'lazy') {
        socket.once('data', () => {
          this.counts.answered += 1;
          socket.pause();
        });
      } else socket.resume();
      socket.on('error', () => {});
      socket.once('close', () => {
        this.#sockets.delete(socket);
        resolve();
        if (this.#over.signal.aborted) return;
        setTimeout(() => {
          if (!this.#over.signal.aborted) void this.#ask(what, client);
        }, AGAIN);
      });
    });
  }

  async #pullWide(client: number): Promise<void> {
    const agent = connections(1, `127.1.3.${1 + client}`);
    for (let turn = 0; !this.#over.signal.aborted; turn++) {
      const url = `https://localhost:${this.#gateway}/v2/${wideHost}/any/thing/manifests/wide-${this.#round}-${client}-${turn}`;
      await get(url, { agent, headers: { accept: '*/*' } }).then(
        ({ status }) => {
          if (status === 200) this.counts.wide += 1;
        },
        () => {},
      );
      await new Promise((resolve) => setTimeout(resolve, WIDE_PAUSE));
    }
    agent.destroy();
  }
}

let crowd: Crowd | null = null;

async function control(path: string): Promise<string> {
  if (path.startsWith('/begin')) {
    crowd = new Crowd(Number(new URLSearchParams(path.split('?')[1]).get('port')));
    await crowd.begin();
    return '';
  }
  crowd?.end();
  return JSON.stringify(crowd?.counts);
}

createServer((request, response) => {
  if (request.method === 'POST') void control(request.url ?? '').then((answer) => response.end(answer));
  else serve(request, response);
}).listen(Number(port), '127.0.0.1');
