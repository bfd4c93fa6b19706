import type { Readable } from 'node:stream';

/** Bytes on their way to the sink after which a body is paused: a slow disk holds back its upstream, not our memory. */
const IN_FLIGHT_HIGH = 256 * 1024;

/** The sink failed: no fault of the upstream, and nothing that asking again would mend. */
export class SinkError extends Error {
  override readonly name = 'SinkError';
}

export interface Receiver {
  /** Takes a chunk, for good; resolves when it is on its way to the disk. */
  place(chunk: Uint8Array): Promise<unknown>;
  /** Whether the rest of the body is not wanted. */
  enough(): boolean;
  /** The disk makes the body wait; `waited` says for how long, in milliseconds. */
  waits(): void;
  waited(ms: number): void;
}

/**
 * Hands every chunk of a body to a receiver, several writes under way at a time, until the body ends or the receiver has enough. The chunks
 * are the network's own buffers, not copied. Resolves once all writes are done; the body is then closed.
 * @throws {SinkError} where a write failed; else what broke the body.
 */
export function pump(body: Readable, receiver: Receiver): Promise<void> {
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
      const written = receiver.place(chunk);
      inFlight += chunk.length;
      if (inFlight > IN_FLIGHT_HIGH && pausedAt === 0) {
        pausedAt = performance.now();
        body.pause();
        receiver.waits();
      }
      written.then(
        () => {
          inFlight -= chunk.length;
          if (finished) settle();
          else if (pausedAt !== 0 && inFlight <= IN_FLIGHT_HIGH / 2) {
            receiver.waited(performance.now() - pausedAt);
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
      if (receiver.enough()) finish(null);
    };
    body.on('end', () => finish(null));
    body.on('error', (error: Error) => finish(error));
    body.on('close', () => finish(new Error('the body closed early')));
    body.on('data', onData);
  });
}
