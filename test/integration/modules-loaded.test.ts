import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';

const NOTE = new URL('../support/note-modules.js', import.meta.url).href;

let gateway: TestGateway | undefined;
let folder: string;
showLogOfFailures(() => gateway);
afterEach(async () => {
  await gateway?.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Modules that the gateway and its workers have loaded when it is ready. */
async function loaded(config: Readonly<Record<string, unknown>>): Promise<string[]> {
  folder = mkdtempSync(join(tmpdir(), 'modules-'));
  const file = join(folder, 'loaded');
  const env = {
    NODE_OPTIONS: `--import=${NOTE}`,
    NOTED_MODULES: file,
    AWS_ACCESS_KEY_ID: 'a',
    AWS_SECRET_ACCESS_KEY: 'b',
  };
  gateway = await startGateway({ config, env });
  return readFileSync(file, 'utf8').split('\n');
}
const ofFleets = (urls: readonly string[]) =>
  urls.filter((url) => /\/node_modules\/(?:@aws-sdk|@smithy|pg)\/|\/src\/(?:s3|postgres)\//.test(url));

it('one machine with a disk and SQLite loads nothing of S3 and PostgreSQL', async () => {
  const urls = await loaded({});
  expect(urls.some((url) => url.endsWith('/src/server/gateway.ts'))).toBe(true);
  expect(ofFleets(urls)).toEqual([]);
});

it('a bucket loads the client of S3, and still nothing of PostgreSQL', async () => {
  const urls = ofFleets(
    await loaded({ cache: { s3: { bucket: 'shared', endpoint: 'http://127.0.0.1:9', pathStyle: true } } }),
  );
  expect(urls.some((url) => url.includes('/@aws-sdk/client-s3/'))).toBe(true);
  expect(urls.filter((url) => /\/pg\/|\/postgres\//.test(url))).toEqual([]);
});
