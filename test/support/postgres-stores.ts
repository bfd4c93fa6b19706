import { randomBytes } from 'node:crypto';
import { onTestFinished } from 'vitest';
import { SecretKeys } from '../../src/kit/sealed.ts';
import { openPostgres, type PostgresOptions, type PostgresStores } from '../../src/postgres/open.ts';
import { silentLog } from '../../src/telemetry/log.ts';

/** The key that the nodes of a test seal with. */
const sealer = new SecretKeys(randomBytes(32).toString('base64'), 'the key of the test');

/** How often a test's nodes read the revisions, ms: what is not told is to be known soon. */
const POLL = 100;

/** A node's stores over a database, closed at the end of the test. */
export async function openNode(url: string, options: Partial<PostgresOptions> = {}): Promise<PostgresStores> {
  const stores = await openPostgres({ url, passwordFile: null, sealer, log: silentLog(), poll: POLL, ...options });
  onTestFinished(() => stores.close());
  return stores;
}
