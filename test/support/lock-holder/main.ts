// A node that takes a lock and is stopped by a test (SIGSTOP). Once it goes on, it writes under the lock that it believes to hold. Prints a line a step.
import { once } from 'node:events';
import { emptyRecord } from '../../../src/certs/store.ts';
import { SecretKeys } from '../../../src/kit/sealed.ts';
import { openPostgres } from '../../../src/postgres/open.ts';
import { silentLog } from '../../../src/telemetry/log.ts';

const [url = '', key = '', leaseMs = ''] = process.argv.slice(2);
const stores = await openPostgres({
  url,
  passwordFile: null,
  sealer: new SecretKeys(key, 'the key of the test'),
  log: silentLog(),
});
const lock = await stores.locks.acquire('certificate a.example.com', { leaseMs: Number(leaseMs) });
// Before the process is stopped, so that the write is the first that it does when it goes on.
const woken = once(process, 'SIGCONT');
console.log('held');
await woken;
const written = await stores.certificates.putRecord({ ...emptyRecord('a.example.com'), failures: 99 }, lock).then(
  () => 'written',
  (error: Error) => error.name,
);
if (!lock.lost.aborted) await once(lock.lost, 'abort');
console.log(`write: ${written}; lost: ${(lock.lost.reason as Error).message}`);
await stores.close();
