// Prints which files and how many functions of src run for one pull, in one process: `node scripts/pull-files.ts [--list]`.
// It starts a gateway in this process, pulls once so that everything is loaded, and counts by V8's coverage.
import { mkdtempSync, rmSync } from 'node:fs';
import { get } from 'node:https';
import { Session } from 'node:inspector/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../src/config/load.ts';
import { startGateway } from '../src/server/gateway.ts';
import { silentLog } from '../src/telemetry/log.ts';
import { makeDataDirectory } from '../test/support/data-directory.ts';
import { FakeRegistry, generated } from '../test/support/fake-registry/index.ts';

const SOURCE = fileURLToPath(new URL('../src/', import.meta.url));
const REPOSITORY = 'library/app';

const fake = await FakeRegistry.start({ auth: { scheme: 'bearer' }, redirect: { to: 'relative' } });
const dataDir = mkdtempSync(join(tmpdir(), 'pull-files-'));
const env = {
  GATEWAY_DATA_DIR: dataDir,
  GATEWAY_LISTEN_HTTPS: '127.0.0.1:0',
  GATEWAY_LISTEN_HTTP: 'off',
  GATEWAY_METRICS_LISTEN: 'off',
  GATEWAY_LISTEN_WORKERS: '1',
};
const loaded = loadConfig({ env, cwd: dataDir, cores: 1 });
// The default table names docker.io's real endpoint: it is given the fake one before the gateway starts.
await makeDataDirectory(env, [['registry.set', { host: 'docker.io', endpoints: [fake.url], check: false }]]);
const gateway = await startGateway({
  loaded,
  read: async () => loaded,
  processLog: { log: silentLog(), lines: { write() {} }, print() {}, reconfigure() {} },
});
const port = Number(gateway.addresses.https[0]?.split(':').at(-1));

const session = new Session();
session.connect();
await session.post('Profiler.enable');
await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false });

/** File, and functions of it that ran since the last call. */
async function ran(): Promise<Map<string, number>> {
  const { result } = await session.post('Profiler.takePreciseCoverage');
  const files = new Map<string, number>();
  for (const { url, functions } of result) {
    if (!url.startsWith('file://')) continue;
    const file = relative(SOURCE, fileURLToPath(url));
    const count = functions.filter(({ ranges }) => (ranges[0]?.count ?? 0) > 0).length;
    if (!file.startsWith('..') && count > 0) files.set(file, count);
  }
  return files;
}

function pull(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path, agent: false, rejectUnauthorized: false }, (response) => {
      if (response.statusCode !== 200) reject(new Error(`${path} answered ${response.statusCode}`));
      response.resume().once('end', resolve);
    }).once('error', reject);
  });
}

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 400));
const blobs = [1, 2].map((seed) => fake.repository(REPOSITORY).addBlob(generated(3 * 1024 * 1024, seed)));
const paths = blobs.map(({ digest }) => `/v2/${REPOSITORY}/blobs/${digest}`);
try {
  await pull(paths[0] ?? '');
  await settle();
  for (const [what, path] of [
    ['cold blob', paths[1] ?? ''],
    ['warm blob', paths[1] ?? ''],
  ] as const) {
    await ran();
    await pull(path);
    const files = await ran();
    const functions = [...files.values()].reduce((sum, count) => sum + count, 0);
    console.log(`${what}: ${functions} functions in ${files.size} files of src`);
    if (process.argv.includes('--list')) {
      for (const [file, count] of [...files].sort()) console.log(`  ${String(count).padStart(3)} ${file}`);
    }
    await settle();
  }
} finally {
  session.disconnect();
  await gateway.close('the count is done');
  await fake.close();
  rmSync(dataDir, { recursive: true, force: true });
}
