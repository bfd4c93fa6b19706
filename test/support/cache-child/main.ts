// A process of its own around the cache, to be killed, or to be given a disk that is too small. Prints a JSON object a line.
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createCache } from '../../../src/cache/cache.ts';
import { openCacheIndex } from '../../../src/sqlite/open-cache-index.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { sourceOf } from '../byte-source.ts';
import { type Content, contentOf, MIB, readAll } from '../cache-rig.ts';
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
  /** Contents that are kept before; then a file takes all that is left of the disk. */
  readonly keptBefore?: readonly number[];
  /** One pull after the other. */
  readonly inTurn?: boolean;
}

/** Writes a file until not a byte more fits. */
function fillDisk(path: string): void {
  const fd = openSync(path, 'w');
  for (let size = 65_536; size >= 1; ) {
    try {
      if (writeSync(fd, Buffer.alloc(size)) === 0) break;
    } catch {
      size = Math.floor(size / 16);
    }
  }
  closeSync(fd);
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
const madeFrom = (seed: number) => contentOf(generated(order.size, seed).read(0, order.size));
const contents = order.seeds.map(madeFrom);
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
const pull = async ({ key, bytes }: Content): Promise<boolean> => {
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
};

/** Resolves when no fill is under way any more. */
const settled = async (): Promise<void> => {
  while (cache.admin.stats().fills > 0) await new Promise((resolve) => setTimeout(resolve, 5));
};

if (order.keptBefore !== undefined) {
  for (const seed of order.keptBefore) await pull(madeFrom(seed));
  await settled();
  fillDisk(join(order.dataDir, 'filler'));
}
const right: boolean[] = [];
if (order.inTurn) {
  for (const content of contents) {
    right.push(await pull(content));
    await settled();
  }
} else right.push(...(await Promise.all(contents.map(pull))));
await settled();
say({
  done: right.every(Boolean),
  takenUp,
  kept: contents.filter(({ digest }) => cache.kept(digest) !== null).length,
  accepts: cache.accepts(contents[0]!.key),
  metrics: await metrics.text(),
});
await cache.close();
