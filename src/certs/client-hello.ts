/** What a TLS client asks for before anything is decided. */
export interface ClientHello {
  /** Lower-case; null where the client named no host. */
  readonly serverName: string | null;
  /** In the client's order; empty without the extension. */
  readonly protocols: readonly string[];
}

/** `more`: not all of it is here yet. `other`: this is no ClientHello; let the TLS server answer it. */
export type PeekResult =
  | { readonly state: 'more' }
  | { readonly state: 'other' }
  | { readonly state: 'hello'; readonly hello: ClientHello };

/** ALPN protocol of a CA that validates (RFC 8737 §3). */
export const ACME_TLS = 'acme-tls/1';

const HANDSHAKE_RECORD = 22;
const CLIENT_HELLO = 1;
const SERVER_NAME = 0;
const ALPN = 16;
/** A TLS record carries at most 2^14 bytes of plaintext (RFC 8446 §5.1). */
const RECORD_MAX = 16_384;
/** Far above real ones (post-quantum keys: under 4 KiB), so that a stranger cannot make us hold much. */
export const HELLO_MAX = 16_384;
const RECORD_HEADER = 5;

const MORE: PeekResult = { state: 'more' };
const OTHER: PeekResult = { state: 'other' };

/**
 * Reads a ClientHello from the bytes a connection began with. It may be cut anywhere, by TCP segments and over several TLS records
 * (RFC 8446 §5.1); call again with all bytes so far as more arrive. Takes nothing: the caller unshifts the bytes.
 */
export function peekClientHello(bytes: Uint8Array): PeekResult {
  const message = handshakeBytes(bytes);
  if (message === null) return OTHER;
  const [type] = message;
  if (type === undefined) return MORE;
  if (type !== CLIENT_HELLO) return OTHER;
  if (message.length < 4) return MORE;
  const length = message.readUIntBE(1, 3);
  if (length > HELLO_MAX) return OTHER;
  if (message.length < 4 + length) return MORE;
  try {
    return { state: 'hello', hello: parseHello(new Reader(message.subarray(4, 4 + length))) };
  } catch {
    return OTHER;
  }
}

/** The payloads of the handshake records so far, joined; null where something else begins. */
function handshakeBytes(bytes: Uint8Array): Buffer | null {
  const input = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts: Buffer[] = [];
  let size = 0;
  for (let at = 0; at < input.length; ) {
    if (input[at] !== HANDSHAKE_RECORD) return parts.length > 0 ? Buffer.concat(parts, size) : null;
    // The major version is 3 in every TLS.
    if (at + 1 < input.length && input[at + 1] !== 3) return null;
    if (at + RECORD_HEADER > input.length) break;
    const length = input.readUInt16BE(at + 3);
    if (length === 0 || length > RECORD_MAX) return null;
    const part = input.subarray(at + RECORD_HEADER, at + RECORD_HEADER + length);
    parts.push(part);
    size += part.length;
    at += RECORD_HEADER + length;
  }
  return Buffer.concat(parts, size);
}

/** RFC 8446 §4.1.2. */
function parseHello(reader: Reader): ClientHello {
  reader.take(2 + 32);
  reader.vector(1);
  reader.vector(2);
  reader.vector(1);
  let serverName: string | null = null;
  let protocols: readonly string[] = [];
  if (reader.done) return { serverName, protocols };
  const extensions = reader.vector(2);
  while (!extensions.done) {
    const type = extensions.number(2);
    const body = extensions.vector(2);
    if (type === SERVER_NAME) serverName = parseServerName(body);
    else if (type === ALPN) protocols = parseProtocols(body);
  }
  return { serverName, protocols };
}

/** RFC 6066 §3: a list with at most one host name (type 0). */
function parseServerName(body: Reader): string | null {
  const list = body.vector(2);
  while (!list.done) {
    const type = list.number(1);
    const value = list.vector(2);
    if (type === 0) return value.rest().toString('latin1').toLowerCase();
  }
  return null;
}

/** RFC 7301 §3.1. */
function parseProtocols(body: Reader): string[] {
  const list = body.vector(2);
  const protocols: string[] = [];
  while (!list.done) protocols.push(list.vector(1).rest().toString('latin1'));
  return protocols;
}

/** Walks length-prefixed vectors; throws where a length points past the end. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new RangeError('a length points past the end');
    const part = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return part;
  }

  number(width: number): number {
    return this.take(width).readUIntBE(0, width);
  }

  vector(width: number): Reader {
    return new Reader(this.take(this.number(width)));
  }

  rest(): Buffer {
    return this.take(this.#bytes.length - this.#at);
  }
}
