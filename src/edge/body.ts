import type { ServerResponse } from 'node:http';
import { constants, type ServerHttp2Stream } from 'node:http2';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import type { BodyChunk, Reads } from './reads.ts';

export interface BodyOptions {
  /** The Content-Length that was announced; undefined where the body ends with its last chunk. */
  readonly length: number | undefined;
  readonly reads: Reads;
  readonly stallMs: number;
  /** Writes the header; called once, right before the first byte, so that a failure before it can still be answered as an error. */
  readonly begin: () => void;
  /** Called for each chunk that was handed to the connection. */
  readonly onBytes: (count: number) => void;
}

/** `unsent`: nothing of it, and no header, has gone out. */
export type BodyEnd = 'whole' | 'client left' | 'client stalled' | 'truncated' | 'unsent';

/**
 * Writes a source straight to Node's response, HTTP/1.1 or HTTP/2. One chunk is held at a time, from its read to the end of its write, and
 * none while the source waits for more; the kernel's send buffer keeps the client busy meanwhile. A body that cannot be finished ends below
 * its length, so that no client takes it for whole.
 * The source is closed when this returns. `error` is why a source ended early.
 */
export async function sendBody(
  source: ByteSource,
  response: ServerResponse,
  options: BodyOptions,
): Promise<{ end: BodyEnd; error?: unknown }> {
  const writer = new Writer(response, options.stallMs);
  const onClose = (): void => void source.close();
  response.once('close', onClose);
  let chunk: BodyChunk | null = null;
  let sent = 0;
  options.reads.join();
  try {
    for (;;) {
      chunk = await options.reads.next(source);
      const { bytes } = chunk;
      if (writer.lost) return { end: writer.stalled ? 'client stalled' : 'client left' };
      if (!response.headersSent) options.begin();
      if (bytes.length === 0) break;
      sent += bytes.length;
      if (options.length !== undefined && sent > options.length) throw new TruncatedError('more bytes than announced');
      writer.write(bytes);
      options.onBytes(bytes.length);
      await writer.drained();
      if (writer.lost) return { end: writer.stalled ? 'client stalled' : 'client left' };
      chunk.release();
      chunk = null;
    }
    if (options.length !== undefined && sent < options.length) throw new TruncatedError('fewer bytes than announced');
    writer.end();
    return { end: 'whole' };
  } catch (error) {
    // What was written goes out first: a client resumes after a short body, not after a reset.
    await writer.drained();
    if (writer.lost) return { end: writer.stalled ? 'client stalled' : 'client left', error };
    if (!response.headersSent) return { end: 'unsent', error };
    cutShort(response, options.length !== undefined);
    return { end: 'truncated', error };
  } finally {
    response.off('close', onClose);
    options.reads.leave();
    await source.close();
    chunk?.release();
  }
}

/** One write at a time, and how it ended. The buffer may be used again once `drained` resolves. */
class Writer {
  readonly #response: ServerResponse;
  #pending = false;
  #wake: (() => void) | null = null;
  lost = false;
  stalled = false;

  constructor(response: ServerResponse, stallMs: number) {
    this.#response = response;
    this.lost = isGone(response);
    response.once('close', this.#onClose);
    // Node lets the timer pass over writes that still make progress, so a slow client is not a stalled one.
    response.setTimeout(stallMs, this.#onTimeout);
  }

  write(chunk: Uint8Array): void {
    this.#pending = true;
    this.#response.write(chunk, this.#onWritten);
  }

  async drained(): Promise<void> {
    if (!this.#pending || this.lost) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  /** The stall timer goes on for what the connection still holds, until the response closes. */
  end(): void {
    this.#pending = true;
    this.#response.end();
  }

  #onWritten = (error?: Error | null): void => {
    this.#pending = false;
    if (error) this.lost = true;
    this.#wake?.();
  };

  #onClose = (): void => {
    this.lost = true;
    this.#wake?.();
  };

  #onTimeout = (): void => {
    // With no byte waiting for the client, it is the upstream that pauses.
    if (!this.#pending) return;
    this.stalled = true;
    cutOff(this.#response);
  };
}

/**
 * Ends the connection after what was written; HTTP/2 resets the stream alone. With neither a length nor chunks the end of the connection
 * is the end of the body (RFC 9112 §6.3), so only a reset shows that the body is not whole.
 */
function cutShort(response: ServerResponse, lengthKnown: boolean): void {
  const stream = http2Stream(response);
  if (stream !== undefined) stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  else if (lengthKnown || response.chunkedEncoding) response.socket?.destroySoon();
  else response.socket?.resetAndDestroy();
}

function cutOff(response: ServerResponse): void {
  const stream = http2Stream(response);
  if (stream !== undefined) stream.close(constants.NGHTTP2_CANCEL);
  else response.destroy();
}

/** Whether nothing that is written can reach the client any more. */
export function isGone(response: ServerResponse): boolean {
  return http2Stream(response)?.destroyed ?? response.destroyed;
}

/** Drops a client that stops taking an answer that was written in one go. */
export function guardStall(response: ServerResponse, stallMs: number): void {
  response.setTimeout(stallMs, () => cutOff(response));
}

/** Node's HTTP/2 responses look like HTTP/1 ones, and have a stream. */
export function http2Stream(response: ServerResponse): ServerHttp2Stream | undefined {
  return 'stream' in response ? (response.stream as ServerHttp2Stream | undefined) : undefined;
}
