import { X509Certificate } from 'node:crypto';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import type { TLSSocket } from 'node:tls';
import { RegistryError } from '../oci/errors.ts';
import type { NodeIdentity, TrustedNodes } from './identity.ts';
import type { Node } from './nodes.ts';
import {
  type BlobRequest,
  bidPath,
  blobPath,
  COUNTS_HEADER,
  type GrowingKey,
  PING_PATH,
  parseBid,
  parseRefusal,
  type Refusal,
  rangeHeader,
  type SentBid,
  SIZE_HEADER,
  THROUGH_HEADER,
} from './peer-protocol.ts';

/** Connections to one node at a time; who comes when all are in use waits. A transfer takes up to four. */
const MAX_SOCKETS = 128;
/** Idle ones that are kept. */
const MAX_FREE_SOCKETS = 16;
/** Answers that are read whole. */
const MOST_ANSWER = 64 * 1024;

export interface PeerLimits {
  /** For a TCP connection and its TLS handshake, ms: some round trips within one data centre, or between two. */
  readonly connect: number;
  /** For the answer to a small question, ms. */
  readonly answer: number;
  /** A node that has been silent for so long, ms, is asked whether it is there. It may wait for its registry longer than that. */
  readonly silence: number;
}

const PEER_LIMITS: PeerLimits = { connect: 500, answer: 1_000, silence: 3_000 };

/** A node that gives nothing, where that says nothing about the blob. */
export class PeerError extends Error {
  override readonly name = 'PeerError';
  /** `unreachable`: it could not be asked. `broken`: what it gave broke off. */
  readonly reason: Refusal | 'unreachable' | 'broken';

  constructor(reason: PeerError['reason'], message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.reason = reason;
  }
}

/** A blob's bytes from a range's start on, as another node has them or is just bringing them. */
export interface PeerBlob {
  readonly size: number | undefined;
  /** The repository whose GET brings them; null where the node cannot say. */
  readonly through: string | null;
  /** See `TransferSource.counts`. */
  readonly counts: boolean;
  /** Ends well only where the range does. @throws {PeerError} `broken` */
  readonly chunks: AsyncIterable<Uint8Array>;
  close(): void;
}

/** Asks other nodes, over mutual TLS: each shows the very certificate that stands under its id among the trusted ones. */
export class PeerClient {
  readonly #identity: () => NodeIdentity;
  readonly #trusted: TrustedNodes;
  readonly #limits: PeerLimits;
  readonly #connections = new Map<string, Connections>();
  readonly #unwatch: () => void;

  constructor(identity: () => NodeIdentity, trusted: TrustedNodes, limits: Partial<PeerLimits> = {}) {
    this.#identity = identity;
    this.#trusted = trusted;
    this.#limits = { ...PEER_LIMITS, ...limits };
    this.#unwatch = trusted.watch(() => this.#retire());
  }

  /**
   * @throws {RegistryError} what the registry answered to that node
   * @throws {PeerError}
   */
  async blob(node: Node, blob: BlobRequest, signal: AbortSignal): Promise<PeerBlob> {
    const headers = { range: rangeHeader(blob.range) };
    const response = await this.#ask(node, blobPath(blob), { headers, signal });
    if (response.statusCode !== 200) {
      const refused = await this.#refusal(node, response, signal);
      if (refused instanceof RegistryError) throw refused;
      throw new PeerError(refused, `node ${node.id} gives nothing: ${refused}`);
    }
    const { [SIZE_HEADER]: size, [THROUGH_HEADER]: through, [COUNTS_HEADER]: counts } = response.headers;
    if (size !== undefined && !/^\d{1,15}$/.test(String(size))) {
      response.destroy();
      throw new PeerError('unreachable', `node ${node.id} says that a blob has ${size} bytes`);
    }
    return {
      size: size === undefined ? undefined : Number(size),
      through: typeof through === 'string' ? through : null,
      counts: counts === '1',
      chunks: this.#chunks(node, response),
      close: () => void response.destroy(),
    };
  }

  /** Why it gives nothing. What cannot be understood, from a node of a later version perhaps, says nothing about the blob. */
  async #refusal(node: Node, response: IncomingMessage, signal: AbortSignal): Promise<Refusal | RegistryError> {
    const { answer } = this.#limits;
    const late = setTimeout(() => response.destroy(new Error(`it did not end within ${answer} ms`)), answer);
    try {
      return parseRefusal(await readText(response));
    } catch (error) {
      signal.throwIfAborted();
      const { statusCode } = response;
      throw new PeerError('unreachable', `node ${node.id} answered ${statusCode}, and why is not understood`, error);
    } finally {
      clearTimeout(late);
    }
  }

  /** @throws {PeerError} where it does not answer in time */
  async bid(node: Node, key: GrowingKey): Promise<SentBid> {
    const signal = AbortSignal.timeout(this.#limits.answer);
    try {
      const response = await this.#ask(node, bidPath(key), { signal });
      return parseBid(await readText(response));
    } catch (error) {
      if (error instanceof PeerError) throw error;
      throw new PeerError('unreachable', `node ${node.id} did not say what it has`, error);
    }
  }

  /** Whether the node is there. */
  async isThere(node: Node): Promise<boolean> {
    try {
      const response = await this.#ask(node, PING_PATH, { signal: AbortSignal.timeout(this.#limits.answer) });
      response.resume();
      return response.statusCode === 204;
    } catch {
      return false;
    }
  }

  close(): void {
    this.#unwatch();
    for (const { agent } of this.#connections.values()) agent.destroy();
    this.#connections.clear();
  }

  /** Connections that were made under a certificate, of this node or the other, that is another by now: those in use go on to their end. */
  #retire(): void {
    const certificates = this.#trusted.certificates();
    const own = this.#identity().certificate;
    for (const [id, { agent, certificate, ownCertificate }] of this.#connections) {
      if (certificates.get(id) === certificate && own === ownCertificate) continue;
      this.#connections.delete(id);
      agent.maxFreeSockets = 0;
      for (const socket of Object.values(agent.freeSockets).flat()) socket?.destroy();
    }
  }

  async #ask(
    node: Node,
    path: string,
    options: { readonly headers?: Record<string, string>; readonly signal: AbortSignal },
  ): Promise<IncomingMessage> {
    try {
      return await this.#send(node, path, options);
    } catch (error) {
      options.signal.throwIfAborted();
      // The node had closed a connection that was kept for the next question.
      if (error instanceof StaleConnectionError) return await this.#send(node, path, options);
      throw error;
    }
  }

  #send(
    node: Node,
    path: string,
    { headers = {}, signal }: { readonly headers?: Record<string, string>; readonly signal: AbortSignal },
  ): Promise<IncomingMessage> {
    // It stands in a database that others write.
    const address = URL.parse(`https://${node.address}`);
    if (address === null)
      return Promise.reject(new PeerError('unreachable', `node ${node.id} has no address: ${node.address}`));
    const { hostname, port } = address;
    const host = hostname.replace(/^\[|\]$/g, '');
    return new Promise((resolve, reject) => {
      const asking = request({ agent: this.#agent(node.id), host, port, path, headers, signal, servername: node.id });
      const silence = this.#watch(node, asking);
      asking.on('socket', (socket) => this.#limitConnect(asking, socket as TLSSocket));
      asking.on('response', (response) => {
        silence.end();
        resolve(response);
      });
      asking.on('error', (error: NodeJS.ErrnoException) => {
        silence.end();
        if (signal.aborted) reject(signal.reason as Error);
        else if (asking.reusedSocket && error.code === 'ECONNRESET') reject(new StaleConnectionError());
        else reject(new PeerError('unreachable', `node ${node.id} at ${node.address}: ${error.message}`, error));
      });
      asking.end();
    });
  }

  #limitConnect(asking: ClientRequest, socket: TLSSocket): void {
    if (!socket.connecting) return;
    const { connect } = this.#limits;
    const late = setTimeout(() => asking.destroy(new Error(`no connection within ${connect} ms`)), connect);
    socket.once('secureConnect', () => clearTimeout(late));
    socket.once('close', () => clearTimeout(late));
  }

  /** Ends what a node is to answer or to send, once it is silent and does not say that it is there. */
  #watch(node: Node, subject: { destroy(error: Error): unknown }): { heard(): void; end(): void } {
    let timer: NodeJS.Timeout | undefined;
    let ended = false;
    const wait = (): void => {
      clearTimeout(timer);
      if (!ended) timer = setTimeout(look, this.#limits.silence);
    };
    const look = async (): Promise<void> => {
      const { certificates } = this.#trusted;
      const there = certificates.call(this.#trusted).has(node.id) && (await this.isThere(node));
      if (ended) return;
      if (there) wait();
      else subject.destroy(new Error('it is silent, and does not answer'));
    };
    wait();
    return {
      heard: wait,
      end: () => {
        ended = true;
        clearTimeout(timer);
      },
    };
  }

  async *#chunks(node: Node, response: IncomingMessage): AsyncGenerator<Uint8Array> {
    const silence = this.#watch(node, response);
    try {
      for await (const chunk of response) {
        silence.heard();
        yield chunk as Uint8Array;
      }
    } catch (error) {
      throw new PeerError('broken', `what node ${node.id} gave broke off: ${(error as Error).message}`, error);
    } finally {
      silence.end();
      response.destroy();
    }
  }

  #agent(id: string): Agent {
    const known = this.#connections.get(id);
    if (known !== undefined) return known.agent;
    const certificate = this.#trusted.certificates().get(id);
    if (certificate === undefined) throw new PeerError('unreachable', `node ${id} has no certificate`);
    const { fingerprint256 } = new X509Certificate(certificate);
    const own = this.#identity();
    const agent = new Agent({
      keepAlive: true,
      maxSockets: MAX_SOCKETS,
      maxFreeSockets: MAX_FREE_SOCKETS,
      key: own.key,
      cert: own.certificate,
      ca: [certificate],
      minVersion: 'TLSv1.3',
      checkServerIdentity: (_, shown) =>
        shown.fingerprint256 === fingerprint256 ? undefined : new Error(`another certificate than that of node ${id}`),
    });
    this.#connections.set(id, { agent, certificate, ownCertificate: own.certificate });
    return agent;
  }
}

/** Those to one node, and the certificates under which they were made. */
interface Connections {
  readonly agent: Agent;
  readonly certificate: string;
  readonly ownCertificate: string;
}

class StaleConnectionError extends Error {}

async function readText(response: IncomingMessage): Promise<string> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response) {
    parts.push(chunk as Uint8Array);
    length += (chunk as Uint8Array).length;
    if (length > MOST_ANSWER) throw new Error(`more than ${MOST_ANSWER} bytes`);
  }
  return Buffer.concat(parts).toString();
}
