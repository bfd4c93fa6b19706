import type { Readable } from 'node:stream';
import { IntervalSet } from '../../kit/interval-set.ts';
import { SinkError } from '../failures.ts';

/** A connection that brings nothing for so long is taken for stalled by the others of its download, well before the stall timeout ends it. */
const STALLED_MS = 3_000;

/** A connection's throughput is judged after this time. Less would measure TCP's slow start. */
const JUDGE_AFTER_MS = 500;
/** Less time than this spent waiting for bytes says nothing about the link: the process was busy with other work. */
const MIN_WAIT_MS = 100;
/** Slower than 128 Mbit/s is slow: a throttle or a long way limits it; above that one connection is as good as four. */
const SLOW_BYTES_PER_S = 16 * 1024 * 1024;
/** A transfer that ends sooner than this is not worth more connections. */
const WORTH_MS = 2_000;
/** How long the transfer of one segment takes: long against the round trips that it costs, short enough to bring the lowest bytes soon. */
const SEGMENT_MS = 4_000;
export const SEGMENT_MIN = 512 * 1024;
const SEGMENT_MAX = 16 * 1024 * 1024;

/** Bytes on their way to the sink at which a body is paused, so that a slow disk slows down its upstream instead of filling memory. */
const IN_FLIGHT_MAX = 256 * 1024;

/** One connection of a download, over all the segments that it fetches. */
export class DownloadConnection {
  /** Opened beside the download's first connection, to make it faster. */
  readonly additional: boolean;
  /** The bytes that it is to fetch: bytes that have come are taken out, and so are those that another connection takes over. */
  readonly assigned = new IntervalSet();
  /** Offset in the blob of the next byte of its body, and of the body's end. */
  offset = 0;
  end = 0;
  throughput = new Throughput();
  /** Bytes that were given to the sink. */
  written = 0;
  /** It waits for a permit to open a socket. */
  queued = false;
  /** Its response has begun: what fails now is the body. */
  responded = false;
  /** When the last bytes came, or the response began (`performance.now()`). */
  #lastByteAt = 0;
  /** Its body is paused because the disk is slower. */
  #paused = false;
  /** Ends its body. */
  cancel: () => void = () => {};
  endpoint: URL | null = null;

  constructor(additional: boolean) {
    this.additional = additional;
  }

  /** A response has begun. */
  begin(body: Readable): void {
    this.responded = true;
    this.#paused = false;
    this.#lastByteAt = performance.now();
    this.cancel = () => body.destroy();
    this.throughput = new Throughput();
  }

  /** Counts bytes of the body that came. Returns the offset of the first. */
  advance(bytes: number): number {
    const start = this.offset;
    this.offset += bytes;
    this.throughput.add(bytes);
    this.#lastByteAt = performance.now();
    return start;
  }

  paused(): void {
    this.#paused = true;
  }

  resumed(pauseMs: number): void {
    this.#paused = false;
    this.#lastByteAt = performance.now();
    this.throughput.exclude(pauseMs);
  }

  get isStalled(): boolean {
    const waits = this.responded && !this.#paused && !this.assigned.empty;
    return waits && performance.now() - this.#lastByteAt > STALLED_MS;
  }
}

/**
 * Measures how fast one connection has been while this process waited for it. Time in which the process was busy, with other clients or with
 * hashing, does not count, nor does time in which the disk made the connection wait: more connections would help against neither.
 */
class Throughput {
  #started = performance.now();
  #utilization = performance.eventLoopUtilization();
  #bytes = 0;
  #excludedMs = 0;

  add(bytes: number): void {
    if (this.#bytes === 0) {
      this.#started = performance.now();
      this.#utilization = performance.eventLoopUtilization();
    }
    this.#bytes += bytes;
  }

  exclude(ms: number): void {
    this.#excludedMs += ms;
  }

  /** Bytes per second; null while it is too early to judge. */
  rate(): number | null {
    const elapsed = performance.now() - this.#started - this.#excludedMs;
    const idle = performance.eventLoopUtilization(this.#utilization).idle - this.#excludedMs;
    if (this.#bytes === 0 || elapsed < JUDGE_AFTER_MS || idle < MIN_WAIT_MS) return null;
    return (this.#bytes * 1000) / idle;
  }
}

/** Whether more connections are likely to speed a transfer up enough. `rate`: bytes per second of the only one, null where not known. */
export function isSlow(rate: number | null, remainingBytes: number): boolean {
  if (rate === null || rate >= SLOW_BYTES_PER_S || remainingBytes < 2 * SEGMENT_MIN) return false;
  return (remainingBytes / rate) * 1000 >= WORTH_MS;
}

/** The size of the segments, in bytes, for connections of this rate, in bytes per second. */
export function segmentSizeFor(rate: number): number {
  return Math.round(Math.min(SEGMENT_MAX, Math.max(SEGMENT_MIN, (rate * SEGMENT_MS) / 1000)));
}

export interface BodyWriter {
  /** Takes a chunk for good; resolves when the sink is ready for more. */
  write(chunk: Uint8Array): Promise<unknown>;
  /** Whether the rest of the body is not needed. */
  isDone(): boolean;
  paused(): void;
  resumed(pauseMs: number): void;
}

/**
 * Gives every chunk of a body to a writer, several writes at a time, until the body ends or the writer is done. The chunks are the network's
 * own buffers, not copies. Resolves once all writes are finished; the body is closed then.
 * @throws {SinkError} where a write failed; else what broke the body
 */
export function writeBody(body: Readable, writer: BodyWriter): Promise<void> {
  return new Promise((resolve, reject) => {
    let inFlight = 0;
    let pausedAt = 0;
    let finished = false;
    let failure: Error | null = null;

    const finish = (error: Error | null): void => {
      if (finished) return;
      finished = true;
      failure = error;
      body.off('data', onData);
      if (!body.readableEnded) body.destroy();
      settle();
    };
    const settle = (): void => {
      if (!finished || (inFlight > 0 && !(failure instanceof SinkError))) return;
      if (failure === null) resolve();
      else reject(failure);
    };
    const onData = (chunk: Uint8Array): void => {
      const written = writer.write(chunk);
      inFlight += chunk.length;
      if (inFlight > IN_FLIGHT_MAX && pausedAt === 0) {
        pausedAt = performance.now();
        body.pause();
        writer.paused();
      }
      written.then(
        () => {
          inFlight -= chunk.length;
          if (finished) settle();
          else if (pausedAt !== 0 && inFlight <= IN_FLIGHT_MAX / 2) {
            writer.resumed(performance.now() - pausedAt);
            pausedAt = 0;
            body.resume();
          }
        },
        (error: Error) => {
          const sinkError = new SinkError(`the sink failed: ${error.message}`, { cause: error });
          if (finished) reject(sinkError);
          else finish(sinkError);
        },
      );
      if (writer.isDone()) finish(null);
    };
    body.on('end', () => finish(null));
    body.on('error', (error: Error) => finish(error));
    body.on('close', () => finish(new Error('the body closed early')));
    body.on('data', onData);
  });
}
