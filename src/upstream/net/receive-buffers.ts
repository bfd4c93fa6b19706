import { connect, type Socket, type TcpNetConnectOpts } from 'node:net';
import { type ConnectionOptions, connect as tlsConnect } from 'node:tls';
import { ownCopy } from '../../kit/own-copy.ts';

/** As much as Node reads at once by itself. */
const BUFFER_BYTES = 64 * 1024;

/**
 * Fewer bytes than these are copied, and their buffer is free again: each would hold all of one for as long as it is kept, and a host may send
 * a document in thousands of pieces. A record of TLS has up to 16 KiB.
 */
const FEW_BYTES = BUFFER_BYTES / 4;

/** While a body is paused, the socket and the body hold one or two each. */
const MOST_BUFFERS = 4;

/** What a buffer holds since it was last received into. */
interface Received {
  bytes: number;
  /** Bytes that whoever got them has no more use for. */
  givenBack: number;
}

const received = new WeakMap<ArrayBufferLike, Received>();

/**
 * Says that nobody will read these bytes of a response any more: what they were received into may be received into again. Does nothing for bytes
 * from elsewhere. To be called once for the bytes of a body, as they came.
 */
export function giveBack(bytes: Uint8Array): void {
  const of = received.get(bytes.buffer);
  if (of !== undefined) of.givenBack += bytes.length;
}

/**
 * What a socket receives into: a few buffers in turn. By default Node makes a buffer for each read, which a large blob makes thousands of: the
 * memory of each is mapped and cleared anew, and V8 counts it and collects all of the heap again and again because of it. A buffer that is not given
 * back whole (it held headers, or whoever got it keeps it) is left to its reader in the end, and another takes its place.
 */
export class ReceiveBuffers {
  /** The one that was received into last is the last. */
  readonly #buffers: Buffer[] = [];
  #socket: Socket | null = null;

  readonly #onread = {
    buffer: (): Buffer => this.#next(),
    callback: (bytes: number, buffer: Uint8Array): boolean => {
      const isCopied = bytes < FEW_BYTES;
      received.set(buffer.buffer, { bytes, givenBack: isCopied ? bytes : 0 });
      const socket = this.#socket;
      if (socket === null) return false;
      const came = buffer.subarray(0, bytes);
      // It reads on while it holds what one read brought.
      return socket.push(isCopied ? ownCopy(came) : came) || socket.readableLength <= BUFFER_BYTES;
    },
  };

  /** Begins to connect over TCP, and TLS inside where its options are given. */
  static connect(to: TcpNetConnectOpts, tls: Omit<ConnectionOptions, 'socket'> | null): Socket {
    const buffers = new ReceiveBuffers();
    const options = { ...to, onread: buffers.#onread };
    buffers.#socket = tls === null ? connect(options) : tlsConnect({ ...options, ...tls });
    return buffers.#socket;
  }

  #next(): Buffer {
    const free = this.#buffers.findIndex(({ buffer }) => {
      const of = received.get(buffer);
      return of === undefined || of.givenBack === of.bytes;
    });
    const [again] = free === -1 ? [] : this.#buffers.splice(free, 1);
    const next = again ?? Buffer.allocUnsafeSlow(BUFFER_BYTES);
    this.#buffers.push(next);
    if (this.#buffers.length > MOST_BUFFERS) this.#buffers.shift();
    return next;
  }
}
