/**
 * A body that is read by pulling: the reader brings the buffer, so one buffer serves a whole pull
 * and a slow client holds back nothing but itself.
 */
export interface ByteSource {
  /** Bytes from first to last; undefined where the upstream did not say. */
  readonly length: number | undefined;
  /**
   * Copies the next bytes into `into` and resolves to their count, at least 1; 0 at the end.
   * Waits while the bytes are still on their way.
   * @throws {TruncatedError} when the rest will never come: end the response short, never as if it were whole.
   */
  pull(into: Uint8Array): Promise<number>;
  /** Frees what the source holds; may be called at any time, more than once. */
  close(): Promise<void>;
}

/** A body broke off for good; the client must see a short body and an ended connection. */
export class TruncatedError extends Error {
  override readonly name = 'TruncatedError';
}
