import { S3Client } from '@aws-sdk/client-s3';
import type { Config } from '../config/config.ts';
import { withoutAnswer } from './errors.ts';

export type S3Config = Config['cache']['s3'] & { readonly bucket: string };

/** How long a connection to the store may take to come about, ms: a store that is near answers in one, and pulls wait for this. */
const CONNECT = 2_000;
/** A connection on which nothing moves for so long, ms, is given up: the upstream may have the bytes sooner. */
const STALL = 10_000;
/** Connections at a time: some uploads with two parts each, and some dozens of ranged reads. */
const MAX_SOCKETS = 64;
/** A request is tried once more where the store asks for that or breaks off; then the cache goes on without the store. */
const ATTEMPTS = 2;

/**
 * A client of the store. Credentials by the SDK's chain: environment, files of AWS, the machine's or container's role.
 * Checksums are the gateway's business: it gives CRC-32 with what it puts (`src/s3/upload.ts`), and checks digests of what it gets.
 */
export function createClient({
  region,
  endpoint,
  pathStyle,
}: Pick<S3Config, 'region' | 'endpoint' | 'pathStyle'>): S3Client {
  // Stores other than AWS mostly have but one, whatever they call it.
  const found = region ?? (endpoint === null ? undefined : (process.env.AWS_REGION ?? 'us-east-1'));
  const client = new S3Client({
    ...(found === undefined ? {} : { region: found }),
    ...(endpoint === null ? {} : { endpoint }),
    forcePathStyle: pathStyle,
    maxAttempts: ATTEMPTS,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      connectionTimeout: CONNECT,
      socketTimeout: STALL,
      httpAgent: { keepAlive: true, maxSockets: MAX_SOCKETS },
      httpsAgent: { keepAlive: true, maxSockets: MAX_SOCKETS },
    },
  });
  client.middlewareStack.add(
    (next) => (args) => {
      const { request } = args as { request?: { headers?: Record<string, string> } };
      // Large bodies have a CRC-32 of their own, so that nothing has to be hashed a second time, at once, on the event loop.
      if (request?.headers?.['x-amz-checksum-crc32'] !== undefined) {
        request.headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD';
      }
      return next(args);
    },
    { step: 'build', name: 'unsignedPayload', priority: 'low' },
  );
  client.middlewareStack.add(
    (next) => async (args) => {
      try {
        return await next(args);
      } catch (error) {
        throw withoutAnswer(error);
      }
    },
    { step: 'initialize', name: 'withoutAnswer', priority: 'high' },
  );
  return client;
}
