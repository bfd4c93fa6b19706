import { IntervalSet } from '../kit/interval-set.ts';
import type { RunningTransfer, Wish } from '../oci/transfer.ts';
import type { Node } from './nodes.ts';
import { type PeerBlob, type PeerClient, PeerError } from './peer-client.ts';
import type { BlobRequest } from './peer-protocol.ts';
import type { TrackedSink } from './tracked-sink.ts';

/** Streams of one blob at a time: the one that brings all of it, and some for readers who wait for other parts. */
const MAX_STREAMS = 4;
/** How far ahead of a stream its bytes are left to it: what lies behind that another stream may bring sooner to who waits for it. */
const WINDOW = 8 * 1024 * 1024;
/** So many bytes that are here already are read over: less than what a new request costs within a fleet. */
const MOST_SKIPPED = 4 * 1024 * 1024;

export interface PeerTransferOptions {
  readonly peers: PeerClient;
  readonly node: Node;
  readonly request: Omit<BlobRequest, 'range' | 'whole'>;
  /** Told once, before the first byte is written. */
  readonly begun: (blob: PeerBlob) => void;
  readonly received: (bytes: number) => void;
}

/** Brings to a sink what it wants of a blob, from another node that has it or is just bringing it. */
export class PeerTransfer implements RunningTransfer {
  readonly #options: PeerTransferOptions;
  readonly #sink: TrackedSink;
  /** Neither held, nor left to a stream. */
  readonly #missing: IntervalSet;
  readonly #streams = new Set<Promise<void>>();
  readonly #stop = new AbortController();
  readonly #startedAt = performance.now();
  #begun = false;
  #bytes = 0;
  #opening: NodeJS.Immediate | undefined;

  constructor(sink: TrackedSink, options: PeerTransferOptions) {
    this.#sink = sink;
    this.#options = options;
    this.#missing = sink.missing();
  }

  get connections(): number {
    return this.#streams.size;
  }

  /** On average. */
  get pace(): number {
    const seconds = (performance.now() - this.#startedAt) / 1_000;
    return this.#bytes === 0 ? Number.POSITIVE_INFINITY : this.#bytes / seconds;
  }

  /**
   * Resolves when all has come that is wanted now.
   * @throws {RegistryError} what the registry answered to the node
   * @throws {PeerError} where the node gives nothing, or what it gave broke off; what came until then is kept
   */
  async run(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const onAbort = (): void => this.#stop.abort(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const unsubscribe = this.#sink.wishes?.onChange(() => this.#openSoon());
    this.#sink.watch(this);
    try {
      for (;;) {
        this.#open();
        if (this.#streams.size === 0) break;
        await Promise.race(this.#streams);
      }
    } finally {
      clearImmediate(this.#opening);
      unsubscribe?.();
      signal.removeEventListener('abort', onAbort);
      this.#sink.watch(null);
    }
    this.#stop.signal.throwIfAborted();
  }

  #next(): Wish | null {
    if (this.#missing.empty) return null;
    const { wishes } = this.#sink;
    if (wishes !== undefined) return wishes.next(this.#missing);
    const { start } = this.#missing;
    return { from: start, to: this.#missing.endFrom(start), urgent: false };
  }

  /** Not within a call of the sink's, and once for all wishes that come together. */
  #openSoon(): void {
    this.#opening ??= setImmediate(() => {
      this.#opening = undefined;
      this.#open();
    });
  }

  /** Opens the streams that are wanted; until the node has answered, one. */
  #open(): void {
    const most = this.#begun ? MAX_STREAMS : 1;
    while (this.#streams.size < most && !this.#stop.signal.aborted) {
      const wish = this.#next();
      if (wish === null || (this.#streams.size > 0 && !wish.urgent)) return;
      const stream: Promise<void> = this.#bring(wish)
        .catch((error: unknown) => this.#stop.abort(error))
        .finally(() => this.#streams.delete(stream));
      this.#streams.add(stream);
    }
  }

  async #bring(wish: Wish): Promise<void> {
    const whole = this.#sink.wishes?.whole ?? true;
    // All the rest as one body, where all the rest is what is missing.
    const open = wish.to >= this.#missing.end;
    const assigned = new Assignment(this.#missing, wish, whole ? wish.from + WINDOW : wish.to);
    try {
      const { peers, node, request } = this.#options;
      const range = open && whole ? { from: wish.from } : { from: wish.from, to: finite(wish.to) };
      const blob = await peers.blob(node, { ...request, whole, range }, this.#stop.signal);
      try {
        this.#begin(blob);
        await this.#write(blob, assigned, wish);
      } finally {
        blob.close();
      }
      if (!assigned.empty) throw new PeerError('broken', `node ${node.id} gave less than it promised`);
    } finally {
      assigned.giveBack(this.#sink.size);
    }
  }

  #begin(blob: PeerBlob): void {
    const { size } = blob;
    const known = this.#sink.size ?? this.#sink.expectedSize;
    if (size !== undefined && known !== undefined && size !== known) {
      throw new PeerError('none', `node ${this.#options.node.id} has ${size} bytes of a blob that has ${known}`);
    }
    if (this.#begun) return;
    this.#options.begun(blob);
    this.#sink.begin(size);
    this.#begun = true;
    if (size !== undefined) this.#missing.remove(size);
    this.#openSoon();
  }

  async #write(blob: PeerBlob, assigned: Assignment, wish: Wish): Promise<void> {
    if (blob.size !== undefined) assigned.cut(blob.size);
    let offset = wish.from;
    for await (const chunk of blob.chunks) {
      const start = offset;
      offset += chunk.length;
      this.#bytes += chunk.length;
      this.#options.received(chunk.length);
      assigned.reach(offset + WINDOW);
      for (const { from, to } of assigned.take(start, offset)) {
        await this.#sink.write(from, chunk.subarray(from - start, to - start));
      }
      if (assigned.empty && (assigned.next(offset)?.from ?? Number.POSITIVE_INFINITY) > offset + MOST_SKIPPED) return;
      this.#stop.signal.throwIfAborted();
    }
    // The end of the body is the end of the blob, where nobody could say it before.
    if (blob.size === undefined && wish.to === Number.POSITIVE_INFINITY) {
      this.#missing.remove(offset);
      assigned.cut(offset);
    }
  }
}

/** The bytes that are left to one stream: of what is missing up to the end of its wish, so much as lies shortly before it. */
class Assignment {
  readonly #missing: IntervalSet;
  readonly #own: IntervalSet;
  readonly #end: number;
  #reached: number;

  constructor(missing: IntervalSet, wish: Wish, to: number) {
    this.#missing = missing;
    this.#end = wish.to;
    this.#reached = Math.min(to, wish.to);
    this.#own = new IntervalSet(missing.remove(wish.from, this.#reached));
  }

  get empty(): boolean {
    return this.#own.empty;
  }

  /** Leaves it what is missing up to here. */
  reach(to: number): void {
    const end = Math.min(to, this.#end);
    if (end <= this.#reached) return;
    for (const part of this.#missing.remove(this.#reached, end)) this.#own.add(part.from, part.to);
    this.#reached = end;
  }

  take(from: number, to: number): { readonly from: number; readonly to: number }[] {
    return this.#own.remove(from, to);
  }

  /** What is missing next behind an offset, up to the end of the wish. */
  next(offset: number): { readonly from: number } | null {
    const next = this.#missing.nextFrom(offset);
    return next === null || next.from >= this.#end ? null : next;
  }

  cut(size: number): void {
    this.#own.remove(size);
  }

  giveBack(size: number | undefined): void {
    for (const { from, to } of this.#own.list()) this.#missing.add(from, Math.min(to, size ?? to));
  }
}

function finite(to: number): number | undefined {
  return Number.isFinite(to) ? to : undefined;
}
