import type { ByteSource } from '../kit/byte-source.ts';
import { type Extent, IntervalSet } from '../kit/interval-set.ts';
import type { BlobSink } from '../oci/transfer.ts';
import { WrongObject } from './blob-tier.ts';

const MIB = 1024 * 1024;
/** What one request asks for: long enough for its round trip, short enough that what is wanted next has its turn soon. */
const PART = 16 * MIB;
/** Requests at a time for one blob: a store far away gives one connection a share of what it can give. */
const MOST_PARALLEL = 4;
/** So often, ms, is it looked at whether one more request would help: the store is waited for longer than the disk … */
const WIDEN_INTERVAL = 200;
/** … and gives less than this, bytes a second. What comes from several places has to be read again to be hashed, which costs more than it brings. */
const FAST = 64 * MIB;
/** The next request is sent when so many bytes of one are still to come, so that its round trip is not waited for. */
const AHEAD = 4 * MIB;
/** … and these come within so long, ms: an answer that nobody reads is given up by the store, or by its client. */
const AHEAD_WITHIN = 1_000;
/** Bytes read at once. */
const CHUNK = 64 * 1024;

type Open = (range: Extent, signal: AbortSignal) => Promise<ByteSource>;

/**
 * Brings to a sink what is wanted of a blob, in the order in which it is wanted: by one ranged read after the other, each asked for before the one before it
 * has ended, and by several at a time where the store is slow. Resolves when nothing more is wanted, or all of it is there.
 * @throws the first failure, of a read or of the sink; the other reads are ended
 */
export function download(open: Open, size: number, sink: BlobSink, signal: AbortSignal): Promise<void> {
  return new TierDownload(open, size, sink).run(signal);
}

class TierDownload {
  readonly #open: Open;
  readonly #sink: BlobSink;
  readonly #missing: IntervalSet;
  /** Requests under way: those that are copied, and one that was sent ahead. */
  readonly #running = new Set<Promise<void>>();
  readonly #ending = new AbortController();
  #failure: { readonly error: unknown } | null = null;
  #wake = (): void => {};
  /** Requests whose answers are copied, and those that wait to be. */
  #copied = 0;
  readonly #waiting: (() => void)[] = [];
  /** What is copied comes to its end. */
  #mayGoAhead = false;
  /** How many may be copied at a time, and what decides that: what came, and the ms in which the store and the sink were waited for since then. */
  #parallel = 1;
  #since = performance.now();
  #came = 0;
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
    while (this.#running.size < this.#parallel + (this.#mayGoAhead ? 1 : 0)) {
      const next = this.#next();
      if (next === null) return;
      this.#missing.remove(next.from, next.to);
      const isAhead = this.#running.size >= this.#parallel;
      if (isAhead) this.#mayGoAhead = false;
      const part = this.#copy(next, isAhead, signal)
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

  /** @param isAhead nobody waits for the answer yet */
  async #copy(extent: Extent, isAhead: boolean, signal: AbortSignal): Promise<void> {
    const asked = performance.now();
    const source = await this.#open(extent, signal);
    try {
      if (!isAhead) this.#storeWait += performance.now() - asked;
      await this.#turn();
      try {
        await this.#write(source, extent, signal);
      } finally {
        this.#copied--;
        this.#waiting.shift()?.();
      }
    } finally {
      await source.close().catch(() => {});
    }
  }

  /** Waits until one more may be copied. */
  async #turn(): Promise<void> {
    while (this.#copied >= this.#parallel) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#copied++;
  }

  async #write(source: ByteSource, { from, to }: Extent, signal: AbortSignal): Promise<void> {
    const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK, to - from));
    const began = performance.now();
    let goesAhead = false;
    let before = began;
    for (let at = from; at < to; ) {
      signal.throwIfAborted();
      const comesIn = at === from ? Number.POSITIVE_INFINITY : ((before - began) / (at - from)) * (to - at);
      if (!goesAhead && to - at <= AHEAD && comesIn <= AHEAD_WITHIN) {
        goesAhead = true;
        this.#mayGoAhead = true;
        this.#wake();
      }
      const count = await source.pull(chunk.subarray(0, Math.min(chunk.length, to - at)));
      if (count === 0) throw new WrongObject(`the store ended at byte ${at} of ${to}`);
      const came = performance.now();
      await this.#sink.write(at, chunk.subarray(0, count));
      at += count;
      const written = performance.now();
      this.#came += count;
      this.#storeWait += came - before;
      this.#sinkWait += written - came;
      this.#widen(written);
      before = written;
    }
  }

  /** One more request at a time, where the store is what is waited for, and slow. */
  #widen(now: number): void {
    const passed = now - this.#since;
    if (passed < WIDEN_INTERVAL) return;
    const isSlow = this.#came / passed < FAST / 1_000;
    if (isSlow && this.#storeWait > this.#sinkWait && this.#parallel < MOST_PARALLEL) {
      this.#parallel++;
      this.#waiting.shift()?.();
      this.#wake();
    }
    this.#since = now;
    this.#came = 0;
    this.#storeWait = 0;
    this.#sinkWait = 0;
  }
}
