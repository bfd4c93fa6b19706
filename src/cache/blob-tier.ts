import { LRUCache } from 'lru-cache';
import type { ByteSource } from '../kit/byte-source.ts';
import { type Extent, IntervalSet } from '../kit/interval-set.ts';
import type { Digest } from '../oci/names.ts';
import type { BlobSink } from '../oci/transfer.ts';
import type { Logger } from '../telemetry/log.ts';

/**
 * A second level of the cache, between this machine's directory and the upstream: a store that several gateways share, such as an object
 * store. It keeps content by digest and knows nothing of repositories or of who may have what.
 *
 * Every method may reject: the cache logs that and goes on as if the tier did not have the blob. The digest of what it gives is checked
 * like the upstream's. An implementation bounds its own time and its own concurrency; `signal` is aborted when nobody wants the result.
 */
export interface BlobTier {
  /** Null where the tier does not have the blob. */
  stat(digest: Digest, signal: AbortSignal): Promise<{ readonly size: number } | null>;
  /** The bytes `[from, to)` of a blob that it has. The caller closes the source. */
  open(digest: Digest, range: Extent, signal: AbortSignal): Promise<ByteSource>;
  /** Keeps a blob: `source` gives all of its bytes, verified, and knows its `length`. Resolves once the tier has it; the caller closes the source. */
  store(digest: Digest, source: ByteSource, signal: AbortSignal): Promise<void>;
}

/** Digests whose bytes in the tier were wrong; more than any tier should ever have. */
const MAX_WRONG = 1_000;
/** Bytes read from the tier at once. */
const CHUNK = 64 * 1024;

/** The second level as the cache uses it: a failure of the tier is logged and is otherwise the same as a miss. */
export class SecondLevel {
  readonly #tier: BlobTier;
  readonly #log: Logger;
  readonly #wrong = new LRUCache<Digest, true>({ max: MAX_WRONG });
  readonly #stores = new Set<Promise<void>>();
  readonly #closing = new AbortController();

  constructor(tier: BlobTier, log: Logger) {
    this.#tier = tier;
    this.#log = log;
  }

  /**
   * Brings to the sink what it lacks of the blob. False where the tier does not have the blob or failed: what it brought until then stays
   * in the sink, and the rest has to come from elsewhere. Errors of the sink are the sink's to remember.
   */
  async fetch(digest: Digest, sink: BlobSink, signal: AbortSignal): Promise<boolean> {
    if (this.#wrong.has(digest)) return false;
    try {
      const found = await this.#tier.stat(digest, signal);
      if (found === null) return false;
      sink.begin(found.size);
      for (const missing of IntervalSet.complement(sink.held, found.size).list()) {
        await this.#copy(digest, missing, sink, signal);
      }
      return true;
    } catch (error) {
      if (!signal.aborted) this.#failed('reading', digest, error);
      return false;
    }
  }

  /** A blob of which the tier gave at least a part turned out to be wrong: its next fill asks the upstream alone. */
  distrust(digest: Digest): void {
    this.#log.warn(
      { digest },
      'a blob that came from the second-level cache is wrong; it is fetched from its registry next time',
    );
    this.#wrong.set(digest, true);
  }

  /** Gives a blob to the tier, in the background. The source is closed afterwards. */
  store(digest: Digest, source: ByteSource): void {
    const { signal } = this.#closing;
    const stored = this.#store(digest, source, signal).finally(() => this.#stores.delete(stored));
    this.#stores.add(stored);
  }

  /** Ends what is being stored. */
  async close(): Promise<void> {
    this.#closing.abort(new Error('the cache is closing'));
    await Promise.all(this.#stores);
  }

  async #store(digest: Digest, source: ByteSource, signal: AbortSignal): Promise<void> {
    try {
      await this.#tier.store(digest, source, signal);
      // It has right bytes from now on.
      this.#wrong.delete(digest);
    } catch (error) {
      if (!signal.aborted) this.#failed('storing', digest, error);
    } finally {
      await source.close().catch(() => {});
    }
  }

  async #copy(digest: Digest, { from, to }: Extent, sink: BlobSink, signal: AbortSignal): Promise<void> {
    const source = await this.#tier.open(digest, { from, to }, signal);
    try {
      const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK, to - from));
      for (let at = from; at < to; ) {
        signal.throwIfAborted();
        const count = await source.pull(chunk.subarray(0, Math.min(CHUNK, to - at)));
        if (count === 0) throw new Error(`the tier ended at byte ${at} of ${to}`);
        await sink.write(at, chunk.subarray(0, count));
        at += count;
      }
    } finally {
      await source.close().catch(() => {});
    }
  }

  #failed(doing: string, digest: Digest, error: unknown): void {
    this.#log.warn(
      { digest, err: error },
      `${doing} a blob in the second-level cache failed; the gateway goes on without it`,
    );
  }
}
