import type { ByteSource } from '../kit/byte-source.ts';
import { type Extent, IntervalSet } from '../kit/interval-set.ts';
import type { BlobSink } from '../oci/transfer.ts';
import { WrongObject } from './blob-tier.ts';

const MIB = 1024 * 1024;
/** What one request asks for: long enough for its round trip, short enough that what is wanted next has its turn soon. */
const PART = 16 * MIB;
/** Requests at a time for one blob: a store far away gives one connection a share of what it can give. */
const MOST_PARALLEL = 4;
/** So often, ms, is it looked at whether one more request would help: the store is waited for longer than the disk. */
const WIDEN_INTERVAL = 200;
/** Bytes read at once. */
const CHUNK = 64 * 1024;

type Open = (range: Extent, signal: AbortSignal) => Promise<ByteSource>;

/**
 * Brings to a sink what is wanted of a blob, in the order in which it is wanted: by one ranged read after the other, and by several at a time where the
 * store is what is waited for. Resolves when nothing more is wanted, or all of it is there.
 * @throws the first failure, of a read or of the sink; the other reads are ended
 */
export function download(open: Open, size: number, sink: BlobSink, signal: AbortSignal): Promise<void> {
  return new TierDownload(open, size, sink).run(signal);
}

class TierDownload {
  readonly #open: Open;
  readonly #sink: BlobSink;
  readonly #missing: IntervalSet;
  readonly #running = new Set<Promise<void>>();
  readonly #ending = new AbortController();
  #failure: { readonly error: unknown } | null = null;
  #wake = (): void => {};
  /** Requests that may run at a time, and what decides that: ms in which the store and the sink were waited for since then. */
  #parallel = 1;
  #since = performance.now();
  #storeWait = 0;
  #sinkWait = 0;

  constructor(open: Open, size: number, sink: BlobSink) {
    this.#open = open;
    this.#sink = sink;
    this.#missing = IntervalSet.complement(sink.held, size);
  }

  async run(signal: AbortSignal): Promise<void> {
    const ended = AbortSignal.any([signal, this.#ending.signal]);
    const endWatch = this.#sink.wishes?.onChange(() => this.#wake());
    try {
      for (;;) {
        signal.throwIfAborted();
        if (this.#failure !== null) throw this.#failure.error;
        this.#start(ended);
        if (this.#running.size === 0) return;
        const changed = new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        await Promise.race([...this.#running, changed]);
      }
    } catch (error) {
      this.#ending.abort(error);
      await Promise.allSettled(this.#running);
      throw error;
    } finally {
      endWatch?.();
    }
  }

  #start(signal: AbortSignal): void {
    while (this.#running.size < this.#parallel) {
      const next = this.#next();
      if (next === null) return;
      this.#missing.remove(next.from, next.to);
      const part = this.#copy(next, signal)
        .catch((error: unknown) => {
          this.#failure ??= { error };
        })
        .finally(() => this.#running.delete(part));
      this.#running.add(part);
    }
  }

  #next(): Extent | null {
    const missing = this.#missing;
    if (missing.empty) return null;
    const { wishes } = this.#sink;
    const { start } = missing;
    const wish = wishes === undefined ? { from: start, to: missing.endFrom(start) } : wishes.next(missing);
    return wish === null ? null : { from: wish.from, to: Math.min(wish.to, wish.from + PART) };
  }

  async #copy({ from, to }: Extent, signal: AbortSignal): Promise<void> {
    let before = performance.now();
    const source = await this.#open({ from, to }, signal);
    try {
      const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK, to - from));
      for (let at = from; at < to; ) {
        signal.throwIfAborted();
        const count = await source.pull(chunk.subarray(0, Math.min(chunk.length, to - at)));
        if (count === 0) throw new WrongObject(`the store ended at byte ${at} of ${to}`);
        const came = performance.now();
        await this.#sink.write(at, chunk.subarray(0, count));
        at += count;
        const written = performance.now();
        this.#waited(came - before, written - came);
        before = written;
      }
    } finally {
      await source.close().catch(() => {});
    }
  }

  #waited(store: number, sink: number): void {
    this.#storeWait += store;
    this.#sinkWait += sink;
    const now = performance.now();
    if (now - this.#since < WIDEN_INTERVAL) return;
    if (this.#storeWait > this.#sinkWait && this.#parallel < MOST_PARALLEL) {
      this.#parallel++;
      this.#wake();
    }
    this.#since = now;
    this.#storeWait = 0;
    this.#sinkWait = 0;
  }
}
