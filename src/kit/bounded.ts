/** More bytes came than whoever reads is ready to hold. */
export class TooLargeError extends Error {
  override readonly name = 'TooLargeError';
}

/** Reads a stream whole, never past `limit` bytes. @throws {TooLargeError} */
export async function readBounded(stream: AsyncIterable<Uint8Array>, limit: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > limit) throw new TooLargeError(`more than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}
