import { createCipheriv } from 'node:crypto';

/** Bytes that look random and are the same in every process for the same seed. */
export function seededBytes(seed: number, size: number): Buffer {
  const key = Buffer.alloc(16);
  key.writeUInt32BE(seed);
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size));
}
