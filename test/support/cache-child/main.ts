// A process of its own around the cache, to be killed, or to be given a disk that is too small. Prints a JSON object a line.
import { createCache } from '../../../src/cache/cache.ts';
import { openCacheIndex } from '../../../src/sqlite/cache-index.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { sourceOf } from '../byte-source.ts';
import { contentOf, MIB, readAll } from '../cache-rig.ts';
import { generated } from '../content.ts';

interface Order {
  readonly dataDir: string;
  /** Each fill's content is made from its seed. */
  readonly seeds: readonly number[];
  readonly size: number;
  readonly chunk: number;
  /** ms between chunks. */
  readonly pause: number;
  /** Readers go on past the cache where it fails. */
  readonly past: boolean;
  /** The cache does not see how full the disk is, as when others fill it behind its back. */
  readonly blind?: boolean;
}

const say = (line: unknown): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
const order = JSON.parse(process.argv[2] ?? '{}') as Order;
const metrics = new Metrics();
const cache = createCache({
  dataDir: order.dataDir,
  config: { maxSize: 1024 * MIB, minFree: 0 },
  index: openCacheIndex(order.dataDir, silentLog()),
  log: silentLog(),
  metrics,
  maintain: false,
  ...(order.blind ? { freeBytes: async () => Number.MAX_SAFE_INTEGER } : {}),
  limits: { recordBytes: 64 * 1024 },
});

const verified = await cache.admin.verify(() => {}, new AbortController().signal);
const contents = order.seeds.map((seed) => contentOf(generated(order.size, seed).read(0, order.size)));
let whole = 0;
for (const { digest, bytes } of contents) {
  const handle = cache.kept(digest);
  if (handle === null) continue;
  if (!(await readAll(handle.open(), 65_536)).equals(bytes)) say({ wrong: digest });
  handle.release();
  whole++;
}
say({ ready: true, dropped: verified.dropped, removed: verified.removed, adopted: verified.adopted, whole });

let takenUp = 0;
let written = 0;
const pulls = contents.map(async ({ key, bytes }) => {
  const handle = cache.fill(key, async (sink) => {
    takenUp += sink.held.length > 0 ? 1 : 0;
    sink.begin(bytes.length);
    let at = 0;
    for (const { from, to } of [...sink.held, { from: bytes.length, to: bytes.length }]) {
      for (; at < from; at += order.chunk) {
        await sink.write(at, Buffer.from(bytes.subarray(at, Math.min(from, at + order.chunk))));
        say({ written: ++written });
        if (order.pause > 0) await new Promise((resolve) => setTimeout(resolve, order.pause));
      }
      at = to;
    }
  });
  await handle.size();
  const options = order.past ? { continueFrom: async (offset: number) => sourceOf(bytes.subarray(offset)) } : {};
  const read = await readAll(handle.open(undefined, options), 65_536);
  handle.release();
  return read.equals(bytes);
});
const right = await Promise.all(pulls);
say({
  done: right.every(Boolean),
  takenUp,
  accepts: cache.accepts(contents[0]!.key),
  metrics: await metrics.text(),
});
await cache.close();
