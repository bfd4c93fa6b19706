import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { brotliDecompress, gunzip, inflate, inflateRaw, zstdDecompress } from 'node:zlib';
import { readBounded, TooLargeError } from '../kit/http.ts';
import { InvalidResponseError } from './failures.ts';

// `Accept-Encoding: identity` goes out with every request, but some servers and proxies compress all the same (RFC 9110 §8.4, §12.5.3). A document
// is decoded, within bounds; of a blob its size decides whether only the name is wrong, and where that is not known, its digest.

/** Encodings around one document. A proxy that compresses what is compressed already makes two. */
const MAX_ENCODINGS = 3;

type Decoder = (bytes: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>;

const DECODERS: Readonly<Record<string, Decoder>> = {
  gzip: promisify(gunzip) as Decoder,
  'x-gzip': promisify(gunzip) as Decoder,
  // RFC 9110 §8.4.1.2 means the zlib format; some servers send the bare one.
  deflate: (bytes, options) => inflateEither(bytes, options),
  br: promisify(brotliDecompress) as Decoder,
  zstd: promisify(zstdDecompress) as Decoder,
};

/** Encodings that change the bytes (RFC 9110 §18.6; Zstandard: RFC 8878). What else servers write (`aws-chunked`, `utf-8`) leaves them as they are. */
const COMPRESSIONS: ReadonlySet<string> = new Set([...Object.keys(DECODERS), 'compress', 'x-compress']);

async function inflateEither(bytes: Buffer, options: { maxOutputLength: number }): Promise<Buffer> {
  // The first byte of the zlib format (RFC 1950 §2.2) names its method, 8, in the lower half.
  const decode = ((bytes[0] ?? 0) & 0x0f) === 8 ? inflate : inflateRaw;
  return await (promisify(decode) as Decoder)(bytes, options);
}

/** @param encodings all values of `Content-Encoding`, as one list */
function namesIn(encodings: string): string[] {
  return encodings
    .toLowerCase()
    .split(',')
    .map((name) => name.trim());
}

/** The first encoding that changes the bytes; undefined where they are what they are. `encodings`: all values of `Content-Encoding`. */
export function compressionIn(encodings: string): string | undefined {
  return namesIn(encodings).find((name) => COMPRESSIONS.has(name));
}

/**
 * Reads a JSON document whole and plain. What is named that is no compression is left to the checks of the content, and so is a document that is
 * plain although its header says otherwise.
 * @param encodings all values of `Content-Encoding`, as one list
 * @throws {TooLargeError} where it is larger than `limit`, compressed or not; {InvalidResponseError} for what cannot be decoded
 */
export async function readPlain(body: Readable, encodings: string, limit: number): Promise<Buffer> {
  const decoders = namesIn(encodings).flatMap((name) => DECODERS[name] ?? []);
  if (decoders.length > MAX_ENCODINGS) {
    body.on('error', () => {}).destroy();
    throw new InvalidResponseError(`a document in more than ${MAX_ENCODINGS} encodings`);
  }
  let bytes = await readBounded(body, limit);
  // The last one named was put around the others (RFC 9110 §8.4).
  for (const decode of decoders.reverse()) {
    try {
      bytes = await decode(bytes, { maxOutputLength: limit });
    } catch (error) {
      if ((error as { code?: unknown }).code === 'ERR_BUFFER_TOO_LARGE')
        throw new TooLargeError(`more than ${limit} bytes`);
      if (isObjectText(bytes)) return bytes;
      throw new InvalidResponseError('a document that is not compressed as its header says', { cause: error });
    }
  }
  return bytes;
}

/** Whether it begins as a JSON object does. */
function isObjectText(bytes: Buffer): boolean {
  return /^\s*\{/.test(bytes.subarray(0, 64).toString('latin1'));
}
