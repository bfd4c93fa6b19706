import type { ByteSource } from '../kit/byte-source.ts';
import { type Extent, IntervalSet } from '../kit/interval-set.ts';
import type { BlobSink } from '../oci/transfer.ts';
import { WrongObject } from './blob-tier.ts';

const MIB = 1024 * 1024;
/** What one request asks for: long enough for its round trip, short enough that what is wanted next has its turn soon. */
const PART = 8 * MIB;
/** Requests at a time for one blob: a store gives one connection a share of what it can give. */
const PARALLEL = 4;
/** Bytes read at once. */
const CHUNK = 128 * 1024;

/**
 * Brings to a sink what is wanted of a blob, by several ranged reads at a time, in the order in which it is wanted. Resolves when nothing more is wanted,
 * or all of it is there. @throws the first failure, of a read or of the sink; the other reads are ended
 */
export async function download(
  open: (range: Extent, signal: AbortSignal) => Promise<ByteSource>,
  size: number,
  sink: BlobSink,
  signal: AbortSignal,
): Promise<void> {
  const missing = IntervalSet.complement(sink.held, size);
  const ending = new AbortController();
  const ended = AbortSignal.any([signal, ending.signal]);
  const running = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | null = null;
  let wake = (): void => {};
  const endWatch = sink.wishes?.onChange(() => wake());
  try {
    for (;;) {
      signal.throwIfAborted();
      if (failure !== null) throw (failure as { readonly error: unknown }).error;
      for (let next = nextPart(sink, missing); next !== null && running.size < PARALLEL; ) {
        missing.remove(next.from, next.to);
        const part = copy(open, next, sink, ended)
          .catch((error: unknown) => {
            failure ??= { error };
          })
          .finally(() => running.delete(part));
        running.add(part);
        next = nextPart(sink, missing);
      }
      if (running.size === 0) return;
      const changed = new Promise<void>((resolve) => {
        wake = resolve;
      });
      await Promise.race([...running, changed]);
    }
  } catch (error) {
    ending.abort(error);
    await Promise.allSettled(running);
    throw error;
  } finally {
    endWatch?.();
  }
}

function nextPart({ wishes }: BlobSink, missing: IntervalSet): Extent | null {
  if (missing.empty) return null;
  const { start } = missing;
  const wish = wishes === undefined ? { from: start, to: missing.endFrom(start) } : wishes.next(missing);
  return wish === null ? null : { from: wish.from, to: Math.min(wish.to, wish.from + PART) };
}

async function copy(
  open: (range: Extent, signal: AbortSignal) => Promise<ByteSource>,
  { from, to }: Extent,
  sink: BlobSink,
  signal: AbortSignal,
): Promise<void> {
  const source = await open({ from, to }, signal);
  try {
    const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK, to - from));
    for (let at = from; at < to; ) {
      signal.throwIfAborted();
      const count = await source.pull(chunk.subarray(0, Math.min(chunk.length, to - at)));
      if (count === 0) throw new WrongObject(`the store ended at byte ${at} of ${to}`);
      await sink.write(at, chunk.subarray(0, count));
      at += count;
    }
  } finally {
    await source.close().catch(() => {});
  }
}
