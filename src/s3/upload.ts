import { crc32 } from 'node:zlib';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';

const MIB = 1024 * 1024;
/** Bytes of a part: with three in memory for each upload, little enough; long enough for the round trip that each costs. */
const PART = 8 * MIB;
/** S3 takes no more parts of one object. */
const MAX_PARTS = 10_000;
/** Up to here an object is put at once. */
const SINGLE = PART;
/** Parts on their way at a time, beside the one that is being read. */
const IN_FLIGHT = 2;
/** How long the end of an upload that failed may take, ms; what is left then is cleared away later. */
const ABORT_WITHIN = 5_000;
const CONTENT_TYPE = 'application/octet-stream';

/**
 * Puts an object: at once where it is small, else in parts, of which three are in memory at a time. It becomes visible when all of it has been read from
 * the source; where that fails or the signal is aborted, nothing becomes visible and the parts are removed.
 */
export async function upload(
  client: S3Client,
  target: { readonly Bucket: string; readonly Key: string },
  source: ByteSource,
  signal: AbortSignal,
): Promise<void> {
  const { length } = source;
  if (length === undefined) throw new TypeError('an upload needs the length of its source');
  if (length <= SINGLE) {
    const body = Buffer.allocUnsafe(length);
    const checksum = await readPart(source, body, signal);
    await client.send(
      new PutObjectCommand({
        ...target,
        Body: body,
        ContentLength: length,
        ContentType: CONTENT_TYPE,
        ChecksumCRC32: checksum,
      }),
      { abortSignal: signal },
    );
    return;
  }
  const { UploadId } = await client.send(
    new CreateMultipartUploadCommand({ ...target, ContentType: CONTENT_TYPE, ChecksumAlgorithm: 'CRC32' }),
    { abortSignal: signal },
  );
  const multipart = { ...target, UploadId };
  try {
    const parts = await sendParts(client, multipart, source, length, signal);
    signal.throwIfAborted();
    await client.send(new CompleteMultipartUploadCommand({ ...multipart, MultipartUpload: { Parts: parts } }), {
      abortSignal: signal,
    });
  } catch (error) {
    const within = AbortSignal.timeout(ABORT_WITHIN);
    await client.send(new AbortMultipartUploadCommand(multipart), { abortSignal: within }).catch(() => {});
    throw error;
  }
}

interface Part {
  readonly PartNumber: number;
  readonly ETag: string | undefined;
  readonly ChecksumCRC32: string;
}

async function sendParts(
  client: S3Client,
  multipart: { readonly Bucket: string; readonly Key: string; readonly UploadId: string | undefined },
  source: ByteSource,
  length: number,
  signal: AbortSignal,
): Promise<Part[]> {
  const size = Math.max(PART, Math.ceil(length / MAX_PARTS / MIB) * MIB);
  const parts: Part[] = [];
  const free: Buffer[] = [];
  const sending = new Set<Promise<void>>();
  // One part that fails ends the others.
  const ending = new AbortController();
  const abortSignal = AbortSignal.any([signal, ending.signal]);
  try {
    for (let at = 0, number = 1; at < length; at += size, number++) {
      const buffer = free.pop() ?? Buffer.allocUnsafeSlow(size);
      const body = buffer.subarray(0, Math.min(size, length - at));
      const ChecksumCRC32 = await readPart(source, body, abortSignal);
      const command = new UploadPartCommand({
        ...multipart,
        PartNumber: number,
        Body: body,
        ContentLength: body.length,
        ChecksumCRC32,
      });
      const sent = client.send(command, { abortSignal }).then(({ ETag }) => {
        parts[number - 1] = { PartNumber: number, ETag, ChecksumCRC32 };
        free.push(buffer);
        sending.delete(sent);
      });
      // A failure is met where it is waited for.
      sent.catch(() => {});
      sending.add(sent);
      if (sending.size >= IN_FLIGHT) await Promise.race(sending);
    }
    await Promise.all(sending);
    return parts;
  } catch (error) {
    ending.abort(error);
    await Promise.allSettled(sending);
    throw error;
  }
}

/** Fills a buffer. Returns its CRC-32 as S3 writes it. @throws {TruncatedError} where the source ends before, the signal's reason */
async function readPart(source: ByteSource, into: Buffer, signal: AbortSignal): Promise<string> {
  let sum = 0;
  for (let at = 0; at < into.length; ) {
    signal.throwIfAborted();
    const count = await source.pull(into.subarray(at));
    if (count === 0) throw new TruncatedError(`the source ended ${into.length - at} bytes early`);
    sum = crc32(into.subarray(at, at + count), sum);
    at += count;
  }
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(sum);
  return bytes.toString('base64');
}
