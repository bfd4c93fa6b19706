import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { parseDigest } from '../../../src/oci/names.ts';
import { openCacheIndex } from '../../../src/sqlite/open-cache-index.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { addAliases } from '../aliases-file.ts';
import { GATEWAY, gatewaySettings } from '../peers.ts';
import { freePort, runOver, Server } from '../process.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';

const BLOBS = 100_000;

/** 8: from the start of the process to the first 200 of `/readyz`, on a cache of 100,000 blobs. */
export const start: Scenario = async (bench, { runs }) => {
  const results: Result[] = [];
  for (const [aliases, bound] of [
    [100, 0.6],
    [10_000, 1],
  ] as const) {
    const dataDir = join(bench.dir, `gateway-${aliases}`);
    await addAliases(dataDir, 'http://127.0.0.1:1', aliases);
    fillCache(dataDir, BLOBS);
    const values: number[] = [];
    // The first start makes the local CA and the table; it is not counted.
    for (let run = -1; run < runs; run++) {
      const seconds = await startOnce(dataDir);
      if (run >= 0) values.push(seconds);
    }
    results.push({
      scenario: `8  start to ready, ${aliases} aliases, a cache of ${BLOBS} blobs`,
      figure: 'time',
      unit: 's',
      better: 'less',
      ours: { peer: 'gateway', values },
      peers: [],
      bound,
    });
  }
  return results;
};

async function startOnce(dataDir: string): Promise<number> {
  const [https, http] = [await freePort(), await freePort()];
  const started = performance.now();
  const server = await Server.start({
    command: GATEWAY,
    args: ['serve'],
    port: http,
    env: { ...gatewaySettings(dataDir, { https, http }), GATEWAY_LOG_LEVEL: 'warn' },
  });
  try {
    await untilReady(http);
    return (performance.now() - started) / 1000;
  } finally {
    await server.stop();
  }
}

/** Resolves at the first 200 of `/readyz`. Asked again at once: the answer itself takes a turn of its loop. */
export async function untilReady(port: number): Promise<void> {
  while ((await readiness(port)) !== 200) runOver.throwIfAborted();
}

function readiness(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    get({ port, host: '127.0.0.1', path: '/readyz', agent: false }, (response) => {
      response.resume();
      response.once('end', () => resolve(response.statusCode));
    }).once('error', () => resolve(undefined));
  });
}

/** Small blobs, on disk and in the index, as the cache lays them out. */
function fillCache(dataDir: string, count: number): void {
  const index = openCacheIndex(dataDir, silentLog());
  const now = Date.now();
  for (let number = 0; number < count; number++) {
    const body = `blob ${number}`;
    const hex = createHash('sha256').update(body).digest('hex');
    const digest = parseDigest(`sha256:${hex}`);
    if (digest === null) throw new Error('no digest');
    const directory = join(dataDir, 'blobs', 'sha256', hex.slice(0, 2));
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, hex), body);
    index.addBlob({ digest, size: body.length, created: now - number, lastUse: now - number });
  }
  index.close();
}
