import type { StoreTrouble } from '../../cache/blob-tier.ts';
import type { OperationsDeps } from '../operation.ts';
import type { Finding } from './finding.ts';

/** What to do about it. */
const NEXT: Readonly<Record<StoreTrouble, string>> = {
  unreachable:
    'look at cache.s3.endpoint, and whether this machine reaches it; pulls go on without the bucket meanwhile',
  credentials:
    'give credentials by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a file of AWS or a role of this machine',
  denied: 'allow these credentials to list the bucket, and to get, put and delete objects below the prefix',
  clock: 'let chrony or systemd-timesyncd set the clock: signatures are refused when it is wrong',
  'no-bucket': 'make the bucket, or correct cache.s3.bucket',
  region: 'set cache.s3.region to the region of the bucket',
  slow: 'look whether the store is overloaded; pulls go on without the bucket meanwhile',
  other: 'see what the store says; pulls go on without the bucket meanwhile',
};

/** Whether the bucket behind the disk can be used from here; nothing where none is configured, or no gateway runs. */
export async function checkSharedStore({ live, config }: OperationsDeps, signal: AbortSignal): Promise<Finding[]> {
  const checkStore = live?.checkStore ?? null;
  if (checkStore === null) return [];
  const found = await checkStore(signal);
  const name = 'store';
  const where = `the bucket ${config.cache.s3.bucket}`;
  if (found === null) return [{ name, level: 'ok', message: `${where} can be used` }];
  const { trouble, message } = found;
  return [{ name, level: 'fail', message: `${where} cannot be used: ${message}`, next: NEXT[trouble], outward: true }];
}
