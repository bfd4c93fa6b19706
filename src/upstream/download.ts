import type { BlobKey, BlobSink } from '../oci/transfer.ts';
import { openBlob } from './blobs.ts';
import type { Room } from './create.ts';
import { overEndpoints } from './failover.ts';
import type { Route } from './upstream.ts';

const CHUNK = 256 * 1024;

/** Plain version: one connection from the first missing byte on, no resumption. */
export async function download(
  room: Room,
  route: Route,
  key: BlobKey,
  sink: BlobSink,
  signal: AbortSignal,
): Promise<void> {
  const start = sink.held[0]?.from === 0 ? sink.held[0].to : 0;
  const range = start === 0 ? null : { from: start };
  const blob = await overEndpoints(route, room.endpoints, room.log, signal, (endpoint) =>
    openBlob(room, route, endpoint, key, range, signal),
  );
  let at = blob.status === 206 ? start : 0;
  sink.begin(blob.size);
  try {
    for (;;) {
      const buffer = Buffer.allocUnsafe(CHUNK);
      const count = await blob.source.pull(buffer);
      if (count === 0) return;
      const skip = Math.max(0, Math.min(count, start - at));
      if (skip < count) await sink.write(at + skip, buffer.subarray(skip, count));
      at += count;
    }
  } finally {
    await blob.source.close();
  }
}
