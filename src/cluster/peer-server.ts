import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { Askers } from '../kit/askers.ts';
import type { ByteSource } from '../kit/byte-source.ts';
import { FairPool, type PoolLimits } from '../kit/fair-pool.ts';
import { RegistryError, renderError } from '../oci/errors.ts';
import type { Digest } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { NodeIdentity, TrustedNodes } from './identity.ts';
import {
  BID_PATH,
  BLOB_PATH,
  type BlobRequest,
  COUNTS_HEADER,
  encodeRefusal,
  type GrowingKey,
  isOfRegistry,
  PING_PATH,
  parseBlobRequest,
  parseGrowing,
  type Refusal,
  type SentBid,
  SIZE_HEADER,
  THROUGH_HEADER,
} from './peer-protocol.ts';

/**
 * Blobs that are given at a time, each with a buffer and a file that others may share. A group is a node, which leaves a third to the others; an asker is
 * its client, and an item a repository. What is given can be ended, and is then asked for anew, perhaps of another node.
 */
const GIVING: PoolLimits = {
  permits: 256,
  perGroup: 192,
  perAsker: 128,
  perItem: 128,
  safeFor: 10_000,
  turn: 30_000,
};
/** A node that waits longer than this, ms, does better to ask another, or the registry. */
const MAX_WAIT_MS = 2_000;
const BUFFER = 64 * 1024;
/** For a TLS handshake, ms: a node takes some round trips, and gives up long before. */
const HANDSHAKE_MS = 10_000;
/** Connections in their handshake at a time: each has a descriptor, which whoever reaches the port could hold. */
const MAX_HANDSHAKES = 256;
/** Of those who were refused one is told so often, ms, and how many there were. */
const TELL_INTERVAL = 60_000;
/** A transfer that waits for bytes has what there is, once it has waited at so many looks in a row … */
const IDLE_LOOKS = 4;
/** … so far apart, ms. Looks are counted, not time: a busy machine may leave a process none of it, and what it lies in wait for is not late then. */
const LOOK_MS = 60;

/** A blob that this node has, or is just bringing. */
export interface GivenBlob {
  /** Undefined while nobody knows it. */
  readonly size: number | undefined;
  /** See `PeerBlob`. */
  readonly through: string | null;
  readonly counts: boolean;
  /** From the range's start on, to its end. */
  readonly source: ByteSource;
}

/** Port: what this node gives to others. */
export interface BlobGiver {
  /**
   * What it keeps, or is just bringing, or begins to fetch for the node that asks; null where it has nothing that may be given.
   * @throws {RegistryError} the registry's own, or why this node cannot
   */
  give(request: BlobRequest & { readonly node: string }, may: Giving): Promise<GivenBlob | null>;
  /** Whether it has all of the blob. */
  keeps(digest: Digest): boolean;
}

export interface Giving {
  /** Where it has nothing of the blob, it may fetch it. */
  readonly begin: boolean;
  /** What is still on its way here may be given. */
  readonly growing: boolean;
}

export interface PeerServerOptions {
  readonly listen: { readonly host: string | undefined; readonly port: number };
  /** As it is now: it is replaced before its certificate ends, and stands among the trusted ones then. */
  readonly identity: () => NodeIdentity;
  readonly trusted: TrustedNodes;
  readonly giver: BlobGiver;
  readonly may: (request: BlobRequest) => Giving;
  readonly bid: (key: GrowingKey) => SentBid;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly giving?: PoolLimits;
  readonly handshakes?: { readonly ms: number; readonly most: number };
}

/** Gives blobs to the other nodes of the fleet, and to nobody else: over mutual TLS 1.3, to those whose certificates are trusted. */
export class PeerServer {
  readonly #options: PeerServerOptions;
  readonly #server: Server;
  readonly #pool: FairPool;
  readonly #sent;
  readonly #unwatch: () => void;
  /** Ids of nodes by the fingerprint of their certificate. */
  #nodes: ReadonlyMap<string, string>;
  readonly #transfers = new Set<Transfer>();
  /** Connections in their handshake, by where they come from. */
  readonly #handshaking = new Set<string>();
  #refused = 0;
  #toldAt = Number.NEGATIVE_INFINITY;

  private constructor(options: PeerServerOptions) {
    const { identity, trusted, metrics } = options;
    this.#options = options;
    this.#sent = metrics.counter('cluster_sent_bytes_total', 'Bytes of blobs given to other nodes');
    this.#nodes = fingerprints(trusted);
    this.#pool = new FairPool({
      limits: options.giving ?? GIVING,
      maxWait: MAX_WAIT_MS,
      refusal: () => new BusyError('too many nodes ask at once'),
    });
    const context = () => ({
      key: identity().key,
      cert: identity().certificate,
      ca: [...trusted.certificates().values()],
      minVersion: 'TLSv1.3' as const,
    });
    const { ms, most } = options.handshakes ?? { ms: HANDSHAKE_MS, most: MAX_HANDSHAKES };
    const asked = { requestCert: true, rejectUnauthorized: true, handshakeTimeout: ms };
    this.#server = createServer({ ...context(), ...asked }, (request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        options.log.warn({ err: error }, 'another node was not answered');
        response.destroy();
      });
    });
    this.#server.on('connection', (socket: Socket) => {
      const from = originOf(socket);
      if (this.#handshaking.size >= most) {
        this.#refuse(socket.remoteAddress, `more than ${most} connections are in their handshake`);
        socket.destroy();
        return;
      }
      this.#handshaking.add(from);
      socket.once('close', () => this.#handshaking.delete(from));
    });
    this.#server.on('secureConnection', (socket) => this.#handshaking.delete(originOf(socket)));
    this.#server.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
      // It left before it had shown who it is: a node may that has been ended, or gave up waiting.
      if (error.code === 'ECONNRESET') {
        options.log.debug(
          { address: socket.remoteAddress },
          'somebody left cluster.listen in the middle of a handshake',
        );
        return;
      }
      this.#refuse(socket.remoteAddress, error.message);
    });
    this.#unwatch = trusted.watch(() => {
      this.#nodes = fingerprints(trusted);
      this.#server.setSecureContext(context());
    });
  }

  /** @throws the system's error where the address cannot be had */
  static async start(options: PeerServerOptions): Promise<PeerServer> {
    const server = new PeerServer(options);
    const { host, port } = options.listen;
    server.#server.listen({ port, ...(host === undefined ? {} : { host }) });
    await once(server.#server, 'listening');
    return server;
  }

  /** As it was bound. */
  get address(): AddressInfo {
    return this.#server.address() as AddressInfo;
  }

  /** Resolves when the others have what this node has for them: each transfer has ended, or waits for bytes that are not here. @param mostMs at the latest */
  async caughtUp(mostMs: number): Promise<void> {
    const until = performance.now() + mostMs;
    for (const transfer of this.#transfers) transfer.idleLooks = 0;
    while (performance.now() < until && [...this.#transfers].some(({ idleLooks }) => idleLooks < IDLE_LOOKS)) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      for (const transfer of this.#transfers)
        if (transfer.pulling && transfer.response.writableLength === 0) transfer.idleLooks++;
    }
  }

  /** Ends every transfer. */
  async close(): Promise<void> {
    this.#unwatch();
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  /** Whoever reaches the port decides how often: not every time is told of. */
  #refuse(address: string | undefined, reason: string): void {
    this.#refused++;
    const now = performance.now();
    if (now - this.#toldAt < TELL_INTERVAL) return;
    this.#options.log.warn(
      { address, reason, times: this.#refused },
      'somebody that is no node of this fleet was refused on cluster.listen',
    );
    this.#toldAt = now;
    this.#refused = 0;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { fingerprint256 } = (request.socket as TLSSocket).getPeerCertificate();
    const node = this.#nodes.get(fingerprint256);
    // One that was trusted when it connected.
    if (node === undefined) {
      request.socket.destroy();
      return;
    }
    const { method = '' } = request;
    if (method !== 'GET' && method !== 'HEAD') {
      refuseMethod(method, response);
      return;
    }
    const url = new URL(request.url ?? '/', 'https://node');
    switch (request.method === 'GET' ? url.pathname : '') {
      case PING_PATH:
        response.writeHead(204).end();
        return;
      case BID_PATH: {
        const key = parseGrowing(url.searchParams);
        if (key === null) response.writeHead(400).end();
        else
          response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(this.#options.bid(key)));
        return;
      }
      case BLOB_PATH: {
        const blob = parseBlobRequest(url.searchParams, request.headers.range);
        if (blob === null) response.writeHead(400).end();
        else await this.#giveTo(node, blob, response);
        return;
      }
      default:
        response.writeHead(404).end();
    }
  }

  async #giveTo(node: string, blob: BlobRequest, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.once('close', () => gone.abort(new Error('the node has gone')));
    const permit = { askers: new Askers(`${node} ${blob.client}`), item: blob.key.repository };
    let release: (() => void) | null = null;
    try {
      release = await this.#pool.acquire(node, gone.signal, {
        ...permit,
        pace: () => Number.POSITIVE_INFINITY,
        rest: () => response.destroy(),
      });
      const given = await this.#options.giver.give({ ...blob, node }, this.#options.may(blob));
      if (given === null) return refuse(response, 'none');
      await this.#send(given, blob, response);
    } catch (error) {
      if (gone.signal.aborted || response.headersSent) response.destroy();
      else if (error instanceof BusyError) refuse(response, 'busy');
      else if (isOfRegistry(error)) refuse(response, error);
      else {
        // Its own trouble: the asking node finds another way.
        const own = error instanceof RegistryError ? { reason: error.logged } : { err: error };
        this.#options.log.info({ ...own, to: node, digest: blob.key.digest }, 'a blob was not given to another node');
        refuse(response, 'busy');
      }
    } finally {
      release?.();
    }
  }

  async #send(given: GivenBlob, { range }: BlobRequest, response: ServerResponse): Promise<void> {
    const { size, through, counts, source } = given;
    const transfer: Transfer = { response, pulling: false, idleLooks: 0 };
    this.#transfers.add(transfer);
    const left = response.destroyed;
    // A source that waits for bytes ends its wait when it is closed.
    response.once('close', () => void source.close());
    try {
      if (left) return;
      const end = size === undefined ? undefined : Math.min(range.to ?? size, size);
      response.writeHead(200, {
        'content-type': 'application/octet-stream',
        ...(end === undefined ? {} : { 'content-length': Math.max(0, end - range.from) }),
        ...(size === undefined ? {} : { [SIZE_HEADER]: size }),
        ...(through === null ? {} : { [THROUGH_HEADER]: through }),
        ...(counts ? { [COUNTS_HEADER]: '1' } : {}),
      });
      response.flushHeaders();
      await this.#pump(source, transfer);
      response.end();
      await hasGone(response, 'finish');
    } finally {
      this.#transfers.delete(transfer);
      await source.close();
    }
  }

  async #pump(source: ByteSource, transfer: Transfer): Promise<void> {
    const { response } = transfer;
    for (;;) {
      // Given to the socket, which has no copy of it: each has to be another one.
      const buffer = Buffer.allocUnsafe(BUFFER);
      transfer.pulling = true;
      const count = await source.pull(buffer);
      Object.assign(transfer, { pulling: false, idleLooks: 0 });
      if (count === 0) return;
      this.#sent.inc(count);
      if (!response.write(buffer.subarray(0, count))) await hasGone(response, 'drain');
      if (response.destroyed) return;
    }
  }
}

/** One blob on its way to another node. */
interface Transfer {
  readonly response: ServerResponse;
  /** It waits for bytes of its source, and for nothing else. */
  pulling: boolean;
  /** How often in a row it was seen to, while somebody waits for that. */
  idleLooks: number;
}

/** Resolves when what was written has gone out, or never will. */
function hasGone(response: ServerResponse, event: 'drain' | 'finish'): Promise<void> {
  if (response.destroyed || (event === 'finish' && response.writableFinished)) return Promise.resolve();
  return new Promise((resolve) => {
    const end = (): void => {
      response.off(event, end);
      response.off('close', end);
      resolve();
    };
    response.on(event, end);
    response.on('close', end);
  });
}

class BusyError extends Error {}

function originOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

function fingerprints(trusted: TrustedNodes): Map<string, string> {
  return new Map([...trusted.certificates()].map(([id, pem]) => [new X509Certificate(pem).fingerprint256, id]));
}

/** As on every other port. A body is not read, so the connection ends behind the answer. */
function refuseMethod(method: string, response: ServerResponse): void {
  const { status, headers, body } = renderError(
    new RegistryError('methodNotAllowed', { facts: { method: method.slice(0, 32) }, headers: { allow: 'GET, HEAD' } }),
  );
  response.writeHead(status, { ...headers, connection: 'close' }).end(body);
}

function refuse(response: ServerResponse, why: Refusal | RegistryError): void {
  const status = why instanceof RegistryError ? why.status : why === 'none' ? 404 : 503;
  response.writeHead(status, { 'content-type': 'application/json' }).end(encodeRefusal(why));
}
