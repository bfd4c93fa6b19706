import type { StatsFs } from 'node:fs';
import { statfs } from 'node:fs/promises';
import type { Cache } from '../cache/cache.ts';
import type { Config } from '../config/config.ts';
import { version } from '../kit/process.ts';
import type { Sample } from '../telemetry/history.ts';
import type { Metrics } from '../telemetry/metrics.ts';

/** A disk that hangs (a network file system whose server is gone) must not hold up the other metrics, ms. */
const DISK_TIMEOUT = 1_000;

type DiskFacts = StatsFs;

/** What concerns the gateway as a whole: its version, its processes, its disk. Made by the owner alone, so that workers add nothing to it. */
export function measureGateway(
  metrics: Metrics,
  {
    config,
    workers,
  }: { readonly config: Pick<Config, 'dataDir' | 'cache' | 'limits'>; readonly workers: () => number },
): void {
  metrics.ofProcess();
  metrics
    .gauge('build_info', 'The version that runs, and the Node.js that runs it; always 1.', ['version', 'node'])
    .set({ version: version(), node: process.versions.node }, 1);
  metrics.gauge('processes', 'Processes that serve clients.', [], (gauge) => gauge.set(workers()));
  metrics.gauge('cache_max_bytes', 'What the cache may hold (cache.maxSize).').set(config.cache.maxSize);

  const disk = diskReader(config.dataDir);
  const ofDisk =
    (value: (facts: DiskFacts) => number) => async (gauge: { set(value: number): void; reset(): void }) => {
      const facts = await disk();
      gauge.reset();
      if (facts !== null) gauge.set(value(facts));
    };
  metrics.gauge(
    'disk_free_bytes',
    'Free for the gateway on the file system of its data directory.',
    [],
    ofDisk(({ bavail, bsize }) => bavail * bsize),
  );
  metrics.gauge(
    'disk_size_bytes',
    'Size of the file system of the data directory.',
    [],
    ofDisk(({ blocks, bsize }) => blocks * bsize),
  );
  metrics.gauge(
    'disk_inodes_free',
    'Free inodes on the file system of the data directory; none where it has no fixed number of them.',
    [],
    ofDisk(({ ffree }) => ffree),
  );
  metrics.gauge(
    'disk_inodes',
    'Inodes of the file system of the data directory; 0 where it has no fixed number of them.',
    [],
    ofDisk(({ files }) => files),
  );
}

/** One look at the disk for all who ask at the same time; null where it fails or does not answer in time. */
function diskReader(dataDir: string): () => Promise<DiskFacts | null> {
  let looking: Promise<DiskFacts | null> | null = null;
  return () => {
    looking ??= statfs(dataDir)
      .catch(() => null)
      .finally(() => {
        looking = null;
      });
    const { promise: late, resolve } = Promise.withResolvers<null>();
    const timer = setTimeout(resolve, DISK_TIMEOUT, null);
    return Promise.race([looking, late]).finally(() => clearTimeout(timer));
  };
}

/** What the operator's view shows over time. */
export async function sampleOf(metrics: Metrics, cache: Cache): Promise<Sample> {
  const reading = await metrics.read();
  return {
    requests: reading.total('http_requests_total'),
    failed: reading.sum('http_requests_total', ({ status }) => Number(status) >= 500),
    bytesSent: reading.total('http_sent_bytes_total'),
    bytesFetched: reading.total('upstream_bytes_total'),
    hits: reading.total('cache_hits_total'),
    misses: reading.total('cache_misses_total'),
    cacheBytes: cache.admin.stats().bytes,
  };
}
